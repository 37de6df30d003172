package eventstore_test

import (
	"errors"
	"testing"

	"chatsessions/domain"
	"chatsessions/eventstore"
)

// testRemembersAnOldState: a node that wrote to a session, and has not heard of it
// since, appends, refuses, repeats and does nothing as the log has the session.
func testRemembersAnOldState(t *testing.T, one, other *eventstore.Log) {
	remembered := func() string {
		id := newID()
		mustTransact(t, one, request(id, "pat"), create(id, "pat"))
		mustTransact(t, other, keyed(id, "pat", "key-"+id, "body"), change("pat", domain.Start))
		return id
	}

	id := remembered()
	if got := mustTransact(t, one, request(id, "pat"), change("pat", domain.Accept)); got.Record.Event.Session.Version != 3 {
		t.Errorf("appended to an old state: %+v", got)
	}

	id = remembered()
	_, err := one.Transact(testContext(t), request(id, "pat"), change("pat", domain.Start))
	var illegal *domain.IllegalTransitionError
	if !errors.As(err, &illegal) || illegal.Session.Version != 2 {
		t.Errorf("refused for an old state: %v", err)
	}

	id = remembered()
	got := mustTransact(t, one, request(id, "pat"), func(domain.Session) ([]domain.Event, error) { return nil, nil })
	if got.Record.Event.Session.Version != 2 {
		t.Errorf("answered with an old state: %+v", got)
	}

	id = remembered()
	got = mustTransact(t, one, keyed(id, "pat", "key-"+id, "body"), change("pat", domain.Start))
	if got.Record.Event.Session.Version != 2 || got.Before == nil {
		t.Errorf("not answered again: %+v", got)
	}
}
