package eventstore

import (
	"testing"

	"chatsessions/domain"
	"chatsessions/eventstore/natstest"
)

// TestAHistoryOfMuchDataIsNotHeld: it is read as a long one is.
func TestAHistoryOfMuchDataIsNotHeld(t *testing.T) {
	nc, err := Connect(t.Context(), ConnectOptions{URL: natstest.Start(t, natstest.Config{}).URL()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	l, err := Open(t.Context(), nc, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	writeSessions(t, l, 1)
	first, err := l.at(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	id := first.Event.Session.ID
	newest, err := l.newest(t.Context(), id, leader)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		bytes int
		walks bool
	}{{maxWalkBytes, true}, {len(first.Encoded), false}} {
		l.maxWalkBytes = c.bytes
		walked, err := l.walkBack(t.Context(), newest)
		if err != nil || (walked != nil) != c.walks {
			t.Errorf("with %d bytes %d events are held, %v", c.bytes, len(walked), err)
		}
		var read uint64
		err = l.Session(t.Context(), id, func(batch []domain.Entry) error { read += uint64(len(batch)); return nil })
		if err != nil || read != newest.Event.Session.Version {
			t.Errorf("with %d bytes %d events are read, %v", c.bytes, read, err)
		}
	}
}
