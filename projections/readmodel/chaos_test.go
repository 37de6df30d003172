package readmodel

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
	"chatsessions/projections/logtest"
	"chatsessions/projections/modeltest"
)

// While Redis is flushed and projectors come and go, two nodes answer what was
// answered before, or nothing; and when it is over, the read model is whole.
func TestWhateverHappensToRedisNothingOlderIsAnswered(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		const sessions = 50
		log := logtest.New("log")
		var answered [sessions]atomic.Uint64 // the version that a client has been told of
		for n := range sessions {
			log.Append(logtest.Session(n, int64(n), logtest.Version(1)))
			answered[n].Store(1)
		}
		r := newRig(t, rdb, log)
		r.caughtUp()
		other := newReadModel(t, rdb, log, Options{Logger: r.logger()})
		logtest.Start(t, other.Run)
		logtest.MustRun(t, other.CaughtUp(t.Context()))

		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { // one writer, which waits until its write is projected
			for versions := [sessions]uint64{}; ctx.Err() == nil; {
				n := rand.IntN(sessions)
				versions[n]++
				position := log.Append(logtest.Session(n, int64(n), logtest.Version(1+versions[n])))
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
					answeredVersion := answered[n].Load()
					got, err := node.Get(ctx, logtest.ID(n), "")
					switch {
					case err == nil && got.Version >= answeredVersion:
						trusted.Add(1)
					case errors.Is(err, domain.ErrUnavailable):
						refused.Add(1)
					default:
						t.Errorf("session %d: got version %d, %v; %d was answered", n, got.Version, err, answeredVersion)
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
			modeltest.Empty(t, rdb)
			if rand.IntN(2) == 0 {
				next := r.project()
				projector.End()
				projector = next
			}
			logtest.Eventually(t, "answers come again", func() bool { return trusted.Load() > flushed+50 || t.Failed() })
		}
		stop()
		running.Wait()
		r.caughtUp()
		modeltest.SameKeys(t, modeltest.Dump(t, rdb), scratch(t, log))
		t.Logf("%d answers, %d refusals", trusted.Load(), refused.Load())
	})
}
