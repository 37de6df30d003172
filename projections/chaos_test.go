package projections

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"chatsessions/domain"
	"chatsessions/domain/query"
)

// While Redis is flushed and projectors come and go, two nodes answer what was
// answered before, or nothing; and when it is over, the read model is whole.
func TestWhateverHappensToRedisNothingOlderIsAnswered(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		const sessions = 50
		log := newFakeLog("log")
		var answered [sessions]atomic.Uint64 // the version that a client has been told of
		for n := range sessions {
			log.append(session(n, int64(n), version(1)))
			answered[n].Store(1)
		}
		r := newRig(t, rdb, log)
		r.caughtUp()
		other := newReadModel(t, rdb, log, ReadModelOptions{Logger: r.logger()})
		start(t, other.Run)
		mustRun(t, other.CaughtUp(t.Context()))

		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { // one writer, who is answered when his write is projected
			for versions := [sessions]uint64{}; ctx.Err() == nil; {
				n := rand.IntN(sessions)
				versions[n]++
				position := log.append(session(n, int64(n), version(1+versions[n])))
				if r.WaitFor(ctx, position, time.Minute) == nil {
					answered[n].Store(1 + versions[n])
				}
			}
		})
		var trusted, refused atomic.Int64
		for _, node := range []*ReadModel{r.ReadModel, other} {
			running.Go(func() {
				for ctx.Err() == nil {
					n := rand.IntN(sessions)
					told := answered[n].Load()
					got, err := node.Get(ctx, id(n), "")
					switch {
					case err == nil && got.Version >= told:
						trusted.Add(1)
					case errors.Is(err, domain.ErrUnavailable):
						refused.Add(1)
					default:
						t.Errorf("session %d: got version %d, %v; %d was answered", n, got.Version, err, told)
						return
					}
				}
			})
			running.Go(func() {
				for ctx.Err() == nil {
					page, err := node.List(ctx, query.Everything(1000))
					if err == nil && len(page.Documents) != sessions || err != nil && !errors.Is(err, domain.ErrUnavailable) {
						t.Errorf("a list of %d sessions, %v", len(page.Documents), err)
						return
					}
				}
			})
		}
		projector := r.projector
		for range 6 {
			flushed := trusted.Load()
			empty(t, rdb)
			if rand.IntN(2) == 0 {
				next := r.project()
				projector.end()
				projector = next
			}
			eventually(t, "answers come again", func() bool { return trusted.Load() > flushed+50 || t.Failed() })
		}
		stop()
		running.Wait()
		r.caughtUp()
		sameKeys(t, dump(t, rdb), scratch(t, log))
		t.Logf("%d answers, %d refusals", trusted.Load(), refused.Load())
	})
}
