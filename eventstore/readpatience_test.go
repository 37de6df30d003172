package eventstore

import (
	"errors"
	"testing"
	"time"

	"chatsessions/domain"
	"chatsessions/eventstore/natstest"

	"github.com/google/uuid"
)

// TestAReadGivesUpWhereTheServersStayAway: whoever reads to an end waits for it.
func TestAReadGivesUpWhereTheServersStayAway(t *testing.T) {
	server := natstest.Start(t, natstest.Config{})
	nc, err := Connect(t.Context(), ConnectOptions{URL: server.URL()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	l, err := Open(t.Context(), nc, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	end := writeSessions(t, l, 3)
	l.patience = time.Second
	var read uint64
	err = l.Read(t.Context(), 0, end+1, 1, func(batch []domain.Entry) error {
		if read = batch[len(batch)-1].Record.Position; read == end {
			server.Kill()
		}
		return nil
	})
	if !errors.Is(err, domain.ErrUnavailable) || read != end {
		t.Errorf("read up to %d of %d: %v", read, end, err)
	}
	// A server that comes back in time is none of that.
	l.patience = interruptionPatience
	server.Restart()
	killed := false
	err = l.Read(t.Context(), 0, end, 1, func(batch []domain.Entry) error {
		if read = batch[len(batch)-1].Record.Position; !killed {
			killed = true
			server.Kill()
			server.Restart()
		}
		return nil
	})
	if err != nil || read != end {
		t.Errorf("over a restart: read up to %d of %d: %v", read, end, err)
	}
}

// writeSessions writes sessions of four events, each in one write, and returns the end of
// the log.
func writeSessions(t *testing.T, l *Log, sessions int) (end uint64) {
	t.Helper()
	for range sessions {
		id := uuid.NewString()
		r, err := l.Transact(t.Context(), domain.Request{SessionID: id, Actor: "pat"}, func(s domain.Session) ([]domain.Event, error) {
			at := int64(1)
			c := domain.Create{ID: id, By: domain.Caller{Account: "pat"}, Now: 2, Values: domain.Values{CreatedAt: &at}}
			for _, tr := range []domain.Transition{domain.Start, domain.Accept, domain.Finish} {
				c.Values.Stamps[tr].At = &at
			}
			return domain.Decide(s, c)
		})
		if err != nil {
			t.Fatal(err)
		}
		end = r.Record.Position
	}
	return end
}
