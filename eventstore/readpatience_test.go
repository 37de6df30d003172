package eventstore

import (
	"errors"
	"testing"
	"time"

	"chatsessions/domain"
	"chatsessions/eventstore/natstest"
)

// TestAReadGivesUpWhereTheServersStayAway: whoever reads to an end waits for it.
func TestAReadGivesUpWhereTheServersStayAway(t *testing.T) {
	readGivesUp = time.Second
	t.Cleanup(func() { readGivesUp = 30 * time.Second })
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
	end := writeEveryType(t, l)
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
	readGivesUp = 30 * time.Second
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
