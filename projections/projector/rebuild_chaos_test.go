package projector

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"chatsessions/projections/audit"
	"chatsessions/projections/logtest"
	"chatsessions/projections/modeltest"
)

// While rebuilds begin and are killed, projectors come and go, and Redis is flushed, two
// nodes answer what was answered before, or nothing; and in the end all is whole.
func TestWhateverHappensDuringRebuildsNothingOlderIsAnswered(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		for _, partitions := range []int{1, 3} {
			t.Run(fmt.Sprint(partitions, " partitions"), func(t *testing.T) {
				modeltest.Empty(t, rdb)
				w := newWorld(t, rdb, 30, partitions)
				w.live(true)
				projectors := []*logtest.Running{w.projector, w.project()}
				for range 8 {
					flush, kill := rand.IntN(4) == 0, rand.IntN(2) == 0
					client, mayFail := rdb, flush
					if kill {
						client, mayFail = killedAfter(t, rdb, 5+rand.IntN(40*partitions)), true
					}
					opts := quietOptions()
					opts.Partitions = partitions
					opts.Difference = func(d audit.Difference) {
						if !flush {
							t.Errorf("is no difference: %+v", d)
						}
					}
					var rebuilding sync.WaitGroup
					rebuilding.Go(func() {
						_, err := Rebuild(t.Context(), client, w.log, opts)
						if kill && errors.Is(err, errKilled) { // otherwise the next one waits for seconds
							err = rdb.Del(context.WithoutCancel(t.Context()), w.keys.Base+"rebuilding").Err()
						}
						if err != nil && !mayFail {
							t.Errorf("a rebuild beside projectors that come and go: %v", err)
						}
					})
					if rand.IntN(2) == 0 {
						i := rand.IntN(len(projectors))
						projectors[i].End()
						projectors[i] = w.project()
					}
					if flush {
						modeltest.Empty(t, rdb)
					}
					rebuilding.Wait()
					position := w.log.Append(logtest.Session(0, 0, logtest.Version(1<<40)))
					mustWait(t, w.ReadModel, position)
					mustWait(t, w.other, position)
				}
				w.rest()
				w.rebuild()
				w.mustBeWhole()
				for _, p := range projectors {
					p.End()
				}
			})
		}
	})
}
