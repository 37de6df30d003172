package eventstore_test

import (
	"testing"

	"chatsessions/domain"
	"chatsessions/eventstore"
)

func TestStatsCountWhatALogDid(t *testing.T) {
	e := startEmbedded(t, t.TempDir())
	one, other := openLog(t, connectEmbedded(t, e), e), openLog(t, connectEmbedded(t, e), e)
	id := newID()
	mustTransact(t, one, request(id, "pat"), create(id, "pat"))             // read, and remembered
	mustTransact(t, other, request(id, "pat"), change("pat", domain.Start)) // read
	_, err := one.Transact(testContext(t), request(id, "pat"), change("pat", domain.Start))
	if err == nil { // it was decided twice
		t.Error("started twice")
	}
	mustTransact(t, one, keyed(id, "pat", "key", "body"), change("pat", domain.Accept))
	mustTransact(t, one, keyed(id, "pat", "key", "body"), change("pat", domain.Accept)) // found
	mustTransact(t, one, request(id, "pat"), func(domain.Session) ([]domain.Event, error) { return nil, nil })
	want := eventstore.Stats{Writes: 2, Events: 2, Conflicts: 1, Replays: 1, CacheHits: 4, CacheMisses: 1}
	if got := one.Stats(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got, want := other.Stats(), (eventstore.Stats{Writes: 1, Events: 1, CacheMisses: 1}); got != want {
		t.Errorf("the other: %+v, want %+v", got, want)
	}
}
