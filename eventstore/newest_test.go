package eventstore

import (
	"fmt"
	"sync"
	"testing"

	"chatsessions/domain"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"
)

// TestNewest: while sessions are created and written, what is handed over ends, for
// every session, with its newest event up to the position that is returned.
func TestNewest(t *testing.T) {
	onEachServer(t, func(t *testing.T, l *Log, _ ...jetstream.ErrorCode) {
		if end, err := l.Newest(t.Context(), 10, func([]domain.Entry) error { return nil }); end != 0 || err != nil {
			t.Fatalf("an empty log: %d, %v", end, err)
		}
		var ids []string
		for range 40 {
			ids = append(ids, uuid.NewString())
		}
		written := map[uint64]string{} // the session's id by position
		var mu sync.Mutex
		write := func(id, room string) {
			r, err := l.Transact(t.Context(), domain.Request{SessionID: id, Actor: "pat"}, func(s domain.Session) ([]domain.Event, error) {
				if !s.Exists() {
					return domain.Decide(s, domain.Create{ID: id, By: domain.Caller{Account: "pat"}, Now: 1})
				}
				return domain.Decide(s, domain.Change{By: domain.Caller{Account: "pat"}, Now: 2, Values: domain.Values{Room: &room}})
			})
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			written[r.Record.Position] = id
		}
		for i := range 200 {
			write(ids[i%len(ids)], fmt.Sprint("before ", i))
		}
		var writing sync.WaitGroup
		writing.Go(func() {
			for i := range 200 {
				write(ids[i%len(ids)], fmt.Sprint("meanwhile ", i))
			}
		})
		got := map[string]uint64{}
		last := uint64(0)
		end, err := l.Newest(t.Context(), 10, func(batch []domain.Entry) error {
			for _, e := range batch {
				if e.Record.Position <= last {
					t.Errorf("%d came after %d", e.Record.Position, last)
				}
				last = e.Record.Position
				got[e.Record.Event.Session.ID] = e.Record.Position
			}
			return nil
		})
		writing.Wait()
		if err != nil || end < 200 {
			t.Fatalf("%d, %v", end, err)
		}
		want := map[string]uint64{}
		for position, id := range written {
			if position <= end {
				want[id] = max(want[id], position)
			}
		}
		for id, position := range want {
			if got[id] != position {
				t.Errorf("session %s ends with %d, want %d", id, got[id], position)
			}
		}
	})
}
