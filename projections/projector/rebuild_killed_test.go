package projector

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"chatsessions/deploy/servertest"
	"chatsessions/projections/layout"
	"chatsessions/projections/logtest"
	"chatsessions/projections/modeltest"
)

// The first of these rebuilds is killed. Of the next two, one takes its place after a
// while, and the other one is refused. A fourth one waits until the third is done.
func TestOneRebuildIsAtWorkAtATime(t *testing.T) {
	t.Parallel()
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		t.Parallel() // it waits most of the time
		w := newWorld(t, rdb, 10, 1)
		if _, err := Rebuild(t.Context(), killedAfter(t, rdb, 10), w.log, quietOptions()); !errors.Is(err, errKilled) {
			t.Fatalf("got %v", err)
		}
		goOn, results := make(chan struct{}), make(chan error, 2)
		for range 2 {
			go func() {
				opts := quietOptions()
				opts.Progress = func(Stage, uint64, uint64) { <-goOn }
				_, err := Rebuild(t.Context(), rdb, w.log, opts)
				results <- err
			}()
		}
		if err := <-results; !errors.Is(err, ErrRebuilding) {
			t.Errorf("beside another one: %v", err)
		}
		fourth := modeltest.Another(t, rdb)
		var commands atomic.Int32 // an audit sends commands from several goroutines
		fourth.AddHook(modeltest.BeforeEach(func(redis.Cmder) error {
			if commands.Add(1) == 3 {
				close(goOn)
			}
			return nil
		}))
		_, err := Rebuild(t.Context(), fourth, w.log, quietOptions())
		if third := <-results; third != nil || err != nil {
			t.Errorf("the third one: %v; the one that waited: %v", third, err)
		}
		w.mustBeWhole()
	})
}

// mustAnswer checks that sessions are answered, at once.
func (w *world) mustAnswer() {
	w.t.Helper()
	for n := range w.answered {
		got, err := w.Get(w.t.Context(), logtest.ID(n), "")
		if err != nil || got.Version < w.answered[n].Load() {
			w.t.Fatalf("session %d: got version %d, %v", n, got.Version, err)
		}
	}
}

// A stop is where a rebuild is interrupted: when a stage is reported for the n-th time.
type stop struct {
	stage Stage
	n     int
}

func TestARebuildThatIsBrokenOffChangesNothingAndTheNextOneSucceeds(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		w := newWorld(t, rdb, 20, 1)
		for _, at := range []stop{{Comparing, 1}, {Comparing, 2}, {Filling, 1}, {Filling, 2}, {TakingOver, 1}, {TakingOver, 2}} {
			w.log.Append(logtest.Session(1, 1, logtest.Version(w.answered[1].Add(1))))
			w.caughtUp()
			answers := w.liveKeys()
			ctx, kill := context.WithCancel(t.Context())
			opts, reported := quietOptions(), map[Stage]int{}
			opts.Progress = func(stage Stage, _, _ uint64) {
				if reported[stage]++; (stop{stage, reported[stage]}) == at {
					kill()
				}
			}
			if _, err := Rebuild(ctx, rdb, w.log, opts); !errors.Is(err, context.Canceled) {
				t.Errorf("%+v: got %v", at, err)
			}
			w.mustAnswer()
			if at.stage < TakingOver && w.liveKeys() != answers {
				t.Errorf("%+v: it answers", at)
			}
			w.rebuild()
			w.mustBeWhole()
		}
	})
}

var errKilled = errors.New("the process was killed")

// killedAfter returns a client that gets through so many trips to Redis. Then it is cut
// off, as that of a process is which was killed.
func killedAfter(t *testing.T, rdb redis.UniversalClient, trips int) *redis.Client {
	client := modeltest.Another(t, rdb)
	var mu sync.Mutex
	client.AddHook(modeltest.BeforeEach(func(redis.Cmder) error {
		mu.Lock()
		defer mu.Unlock()
		if trips--; trips < 0 {
			return errKilled
		}
		return nil
	}))
	return client
}

func TestARebuildThatIsKilledAtAnyMomentHarmsNothing(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		for _, partitions := range []int{1, 3} {
			t.Run(fmt.Sprint(partitions, " partitions"), func(t *testing.T) {
				modeltest.Empty(t, rdb)
				w := newWorld(t, rdb, 20, partitions)
				opts := quietOptions()
				opts.Partitions = partitions
				killed := 0
				for trips := rand.IntN(4); ; trips += 1 + rand.IntN(4*partitions) {
					// The lock of one that was killed ends by itself.
					logtest.MustRun(t, rdb.Del(t.Context(), w.keys.Base+"rebuilding").Err())
					n := rand.IntN(len(w.answered))
					w.log.Append(logtest.Session(n, int64(n), logtest.Version(w.answered[n].Add(1))))
					w.caughtUp()
					_, err := Rebuild(t.Context(), killedAfter(t, rdb, trips), w.log, opts)
					if err == nil {
						break
					}
					killed++
					if !errors.Is(err, errKilled) {
						t.Fatalf("after %d trips: %v", trips, err)
					}
					w.mustAnswer()
				}
				if killed < 5 {
					t.Errorf("only %d rebuilds were killed", killed)
				}
				w.rebuild()
				w.mustBeWhole()
				w.projector.End()
			})
		}
	})
}

// After the rebuild has said that its work is complete, it is not needed any more.
func TestWhatARebuildHasFinishedIsAdoptedByWhoeverComes(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		for _, partitions := range []int{1, 3} {
			t.Run(fmt.Sprint(partitions, " partitions"), func(t *testing.T) {
				modeltest.Empty(t, rdb)
				w := newWorld(t, rdb, 20, partitions)
				ctx, kill := context.WithCancel(t.Context())
				opts, reported := quietOptions(), 0
				opts.Partitions = partitions
				opts.Progress = func(stage Stage, _, _ uint64) {
					switch {
					case stage != TakingOver:
					case reported == 0:
						w.projector.End() // who was at work
						reported++
					default:
						kill()
					}
				}
				if _, err := Rebuild(ctx, rdb, w.log, opts); !errors.Is(err, context.Canceled) {
					t.Fatalf("got %v", err)
				}
				var built []string
				for _, part := range w.parts {
					c, ok := layout.ParseCheckpoint(rdb.Get(t.Context(), part.Next()).Val())
					if !ok || c.State != layout.Complete {
						t.Fatalf("partition %d is not complete: %+v", part.Number, c)
					}
					built = append(built, c.Generation)
				}
				w.mustAnswer()
				w.log.Append(logtest.Session(1, 1, logtest.Version(2)), logtest.Session(30, 30)) // which it does not have yet
				defer w.project().End()
				w.caughtUp()
				for i, part := range w.parts {
					if answers := modeltest.Live(t, rdb, part).Generation; answers != built[i] {
						t.Errorf("partition %d was not adopted: %s answers", i, answers)
					}
					if left := rdb.Get(t.Context(), part.Next()).Val(); left != "" {
						t.Errorf("partition %d waits still: %s", i, left)
					}
				}
				whole := modeltest.DumpOf(t, rdb, partitions)
				for key := range whole {
					if strings.Contains(key, "of another generation") { // the next rebuild removes it
						delete(whole, key)
					}
				}
				modeltest.SameKeys(t, whole, scratchOf(t, w.log, partitions))
			})
		}
	})
}

// The projector at work dies while a rebuild is: another one takes over at once, not
// when the rebuild is over.
func TestAStandbyTakesOverWhileARebuildIsAtWork(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		w := newWorld(t, rdb, 10, 1)
		both := []*logtest.Running{w.projector, nil}
		outputs := []*servertest.Output{w.output, {}}
		one := *w.rig
		one.output = outputs[1]
		both[1] = one.project()
		standsBy := -1
		logtest.Eventually(t, "one stands by", func() bool {
			position := w.log.Append(logtest.Session(1, 1, logtest.Version(w.answered[1].Add(1))))
			mustWait(t, w.ReadModel, position)
			standsBy = slices.IndexFunc(outputs, func(o *servertest.Output) bool { return strings.Contains(o.String(), "stands by") })
			return standsBy >= 0
		})
		compares, goOn := make(chan struct{}), make(chan struct{})
		opts, once := quietOptions(), sync.Once{}
		opts.Progress = func(stage Stage, _, _ uint64) {
			if stage == Comparing {
				once.Do(func() { close(compares); <-goOn })
			}
		}
		ctx, kill := context.WithCancel(t.Context())
		var rebuilding sync.WaitGroup
		defer rebuilding.Wait()
		defer func() { kill(); close(goOn) }()
		rebuilding.Go(func() {
			if _, err := Rebuild(ctx, rdb, w.log, opts); !errors.Is(err, context.Canceled) {
				t.Errorf("the rebuild: %v", err)
			}
		})
		<-compares
		both[1-standsBy].End()
		position := w.log.Append(logtest.Session(2, 2, logtest.Version(w.answered[2].Add(1))))
		logtest.Eventually(t, "the other one takes over", func() bool {
			// Meanwhile the rebuild makes progress.
			next, ok := layout.ParseCheckpoint(rdb.Get(t.Context(), w.keys.Next()).Val())
			if !ok {
				t.Fatal("the rebuild has not begun a generation")
			}
			logtest.MustRun(t, rdb.Set(t.Context(), w.keys.Next(), next.AfterFilling(1).String(), 0).Err())
			return w.WaitFor(t.Context(), position, time.Millisecond) == nil
		})
	})
}
