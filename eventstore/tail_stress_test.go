package eventstore_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chatsessions/domain"
)

// Writers that give up, a writer that is not in the tail, readers that stall and come
// again: nobody misses an event, gets one twice, or gets a part of a write.
func TestFollowersOfABusyLogMissNothing(t *testing.T) {
	e := startEmbedded(t, t.TempDir())
	l := openLog(t, connectEmbedded(t, e), e)
	foreign := openLog(t, connectEmbedded(t, e), e)
	ctx, cancel := context.WithCancel(context.Background())
	var followers, writers sync.WaitGroup
	var reached [4]atomic.Uint64 // positions of the followers
	for i := range reached {
		followers.Go(func() {
			versions := map[string]uint64{}
			for ctx.Err() == nil {
				short, cancel := context.WithTimeout(ctx, time.Duration(1+rand.IntN(3))*time.Second)
				_ = l.Follow(short, reached[i].Load(), 1+rand.IntN(20), func(b []domain.Entry) error {
					checkOrder(t, reached[i].Load(), b, versions)
					if f := b[0]; f.Record.Event.Session.Room == "" && f.Record.Event.Session.Version != 1 {
						t.Errorf("starts within a write: version %d", f.Record.Event.Session.Version)
					}
					if last := b[len(b)-1].Record.Event.Session; last.Room == "" && last.Version != 1 && last.Version < importedEvents {
						t.Errorf("ends within a write: version %d", last.Version)
					}
					for _, r := range b {
						if r.Record.Encoded != nil && string(r.Record.Encoded) != string(r.Record.Event.Session.AppendJSON(nil)) {
							t.Errorf("encoded %s", r.Record.Encoded)
						}
						if r.Before != nil && r.Before.Version+1 != r.Record.Event.Session.Version {
							t.Errorf("before %d of %d", r.Before.Version, r.Record.Event.Session.Version)
						}
					}
					reached[i].Store(b[len(b)-1].Record.Position)
					if rand.IntN(20) == 0 {
						time.Sleep(time.Duration(rand.IntN(30)) * time.Millisecond)
					}
					return nil
				})
				cancel()
			}
		})
	}
	end := time.Now().Add(5 * time.Second)
	for w := range 8 {
		writers.Go(func() {
			for time.Now().Before(end) {
				log := l
				if w == 7 {
					log = foreign
					time.Sleep(20 * time.Millisecond)
				}
				id := newID()
				patience := time.Second
				if rand.IntN(40) == 0 {
					patience = time.Duration(rand.IntN(600)) * time.Microsecond
				}
				short, cancel := context.WithTimeout(ctx, patience)
				var decide = imported(id, "pat")
				if rand.IntN(3) > 0 {
					decide = create(id, "pat")
				}
				if _, err := log.Transact(short, request(id, "pat"), decide); err == nil && rand.IntN(2) == 0 {
					_, _ = log.Transact(short, request(id, "pat"), setRoom("r"))
				}
				cancel()
			}
		})
	}
	writers.Wait()
	last := mustEnd(t, l)
	for i := range reached {
		eventually(t, "every follower is at the end", func() bool { return reached[i].Load() == last })
	}
	cancel()
	followers.Wait()
	t.Log(last, "events")
}
