package projector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"chatsessions/domain"
	"chatsessions/domain/query"
	"chatsessions/projections"
	"chatsessions/projections/audit"
	"chatsessions/projections/embeddedredis"
	"chatsessions/projections/layout"
	"chatsessions/projections/logtest"
	"chatsessions/projections/modeltest"
	"chatsessions/projections/readmodel"
)

// A world is some sessions that are written and read all the time, through two nodes.
type world struct {
	*rig
	other    *readmodel.ReadModel // hears of what is projected through Redis only
	answered []atomic.Uint64
	stop     context.CancelFunc
	busy     sync.WaitGroup
}

// newWorld returns a world of so many sessions, in which nothing happens yet.
func newWorld(t *testing.T, rdb redis.UniversalClient, sessions, partitions int) *world {
	t.Helper()
	log := logtest.New("log")
	w := &world{answered: make([]atomic.Uint64, sessions), stop: func() {}}
	for n := range sessions {
		log.Append(logtest.Session(n, int64(n), logtest.Version(1)))
		w.answered[n].Store(1)
	}
	w.rig = newRigOf(t, rdb, log, partitions)
	w.caughtUp()
	w.other = newReadModel(t, rdb, log, readmodel.Options{Logger: w.logger(), Partitions: partitions})
	logtest.Start(t, w.other.Run)
	logtest.MustRun(t, w.other.CaughtUp(t.Context()))
	t.Cleanup(w.rest)
	return w
}

// live makes clients write and read until rest. No read may be older than an answered
// write, and every request must be answered unless refusals is true.
func (w *world) live(refusals bool) {
	ctx, stop := context.WithCancel(w.t.Context())
	w.stop = stop
	fine := func(err error) bool { return ctx.Err() != nil || refusals && errors.Is(err, domain.ErrUnavailable) }
	for i, node := range []*readmodel.ReadModel{w.ReadModel, w.other} {
		w.busy.Go(func() { // writes its own sessions, and waits for them at this node
			for v := uint64(2); ctx.Err() == nil; v++ {
				n := 2*rand.IntN(len(w.answered)/2) + i
				position := w.log.Append(logtest.Session(n, int64(n), logtest.Version(v), logtest.Room(fmt.Sprint("room ", v%3))))
				if node.WaitFor(ctx, position, time.Minute) == nil {
					w.answered[n].Store(v)
				}
			}
		})
		w.busy.Go(func() {
			for ctx.Err() == nil && !w.t.Failed() {
				n := rand.IntN(len(w.answered))
				answeredVersion := w.answered[n].Load()
				got, err := node.Get(ctx, logtest.ID(n), "")
				if err == nil && got.Version < answeredVersion || err != nil && !fine(err) {
					w.t.Errorf("session %d: got version %d, %v; %d was answered", n, got.Version, err, answeredVersion)
				}
			}
		})
		if len(w.parts) > 1 {
			continue
		}
		w.busy.Go(func() {
			for ctx.Err() == nil && !w.t.Failed() {
				page, err := node.List(ctx, query.Everything(len(w.answered)+1))
				if err == nil && len(page.Documents) != len(w.answered) || err != nil && !fine(err) {
					w.t.Errorf("a list of %d sessions, %v", len(page.Documents), err)
				}
			}
		})
	}
}

// rest ends what live has begun.
func (w *world) rest() {
	w.stop()
	w.busy.Wait()
}

func quietOptions() RebuildOptions { return RebuildOptions{Logger: slog.New(slog.DiscardHandler)} }

// rebuild rebuilds the read model, and checks that another one answers then.
func (w *world) rebuild() Rebuilt {
	w.t.Helper()
	before := make([]string, len(w.parts))
	for i, part := range w.parts {
		before[i] = modeltest.Live(w.t, w.rdb, part).Generation
	}
	opts := quietOptions()
	opts.Partitions = len(w.parts)
	opts.Difference = func(d audit.Difference) { w.t.Errorf("is no difference: %+v", d) }
	done, err := Rebuild(w.t.Context(), w.rdb, w.log, opts)
	logtest.MustRun(w.t, err)
	if !done.Compared || done.Sessions != uint64(len(w.answered)) || done.Removed == 0 {
		w.t.Errorf("the result of a rebuild is %+v", done)
	}
	for i, part := range w.parts {
		if modeltest.Live(w.t, w.rdb, part).Generation == before[i] {
			w.t.Errorf("partition %d answers from what it did before", i)
		}
	}
	return done
}

func TestDuringARebuildEverythingIsAnsweredAndNothingIsOlder(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		for _, partitions := range []int{1, 3} {
			t.Run(fmt.Sprint(partitions, " partitions"), func(t *testing.T) {
				modeltest.Empty(t, rdb)
				w := newWorld(t, rdb, 40, partitions)
				w.live(false)
				for range 3 {
					w.rebuild()
				}
				w.rest()
				w.mustBeWhole()
				w.projector.End()
			})
		}
	})
}

// A rebuild has read events that no live generation shows yet. Counting its position would
// report a write as shown that no node shows.
func TestThePositionOfARebuildDoesNotCountAsShown(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		w := newWorld(t, rdb, 10, 1)
		opts, position, checked := quietOptions(), uint64(0), false
		opts.Progress = func(stage Stage, done, total uint64) {
			switch {
			case stage == Filling && done == total && position == 0: // too late to be filled in
				w.log.Hold(11) // from the projector; not from the rebuild
				position = w.log.Append(logtest.Session(1, 1, logtest.Version(2)))
			case stage == TakingOver && !checked:
				checked = true
				modeltest.Reached(t, rdb, w.keys.Next(), position)
				for _, node := range []*readmodel.ReadModel{w.ReadModel, w.other} {
					if err := node.WaitFor(t.Context(), position, 200*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("the position counts as shown: %v", err)
					}
					if got, err := node.Get(t.Context(), logtest.ID(1), ""); err != nil || got.Version != 1 {
						t.Errorf("got version %d, %v; the generation that answers has 1", got.Version, err)
					}
				}
				w.log.Hold(0)
			}
		}
		_, err := Rebuild(t.Context(), rdb, durableLog{w.log}, opts)
		logtest.MustRun(t, err)
		w.mustBeWhole()
	})
}

// In a durableLog, every event is durable.
type durableLog struct{ *logtest.Log }

func (durableLog) Durable(context.Context, uint64) error { return nil }

// What a service keeps in a Redis of its own another process can rebuild through its
// projector.
func TestAPrivateReadModelIsRebuiltThroughItsProjector(t *testing.T) {
	e, err := embeddedredis.Start("secret")
	logtest.MustRun(t, err)
	t.Cleanup(func() { logtest.MustRun(t, e.Close()) })
	log := logtest.New("log")
	for n := range 20 {
		log.Append(logtest.Session(n, int64(n)))
	}
	m := newReadModel(t, e.Client(), log, readmodel.Options{Private: true, Logger: slog.New(slog.DiscardHandler)})
	logtest.Start(t, m.Run)
	logtest.Start(t, New(e.Client(), log, Options{Notify: m.Projected, Private: true, Logger: slog.New(slog.DiscardHandler)}).Run)
	logtest.MustRun(t, m.CaughtUp(t.Context()))
	ctx, stop := context.WithCancel(t.Context())
	var writing sync.WaitGroup
	writing.Go(func() {
		for v := uint64(2); ctx.Err() == nil; v++ {
			position := log.Append(logtest.Session(1, 1, logtest.Version(v), logtest.Room(fmt.Sprint(v%3))))
			if m.WaitFor(ctx, position, time.Minute) != nil {
				return
			}
			if got, err := m.Get(ctx, logtest.ID(1), ""); ctx.Err() == nil && (err != nil || got.Version != v) {
				t.Errorf("got version %d, %v; %d was written", got.Version, err, v)
			}
		}
	})
	outside := modeltest.Another(t, e.Client())
	for range 3 {
		before := modeltest.Live(t, outside, layout.Partitions(1)[0])
		opts := quietOptions()
		opts.Private = true
		if done, err := Rebuild(t.Context(), outside, log, opts); err != nil || done.Differences != 0 {
			t.Errorf("got %+v, %v", done, err)
		}
		if modeltest.Live(t, outside, layout.Partitions(1)[0]) == before {
			t.Error("it does not answer")
		}
	}
	stop()
	writing.Wait()
	logtest.MustRun(t, m.CaughtUp(t.Context()))
	modeltest.SameKeys(t, modeltest.Dump(t, outside), scratch(t, log))
	modeltest.MustHaveOneGeneration(t, outside, layout.Partitions(1))
}

// A situation is what a rebuild finds.
type situation struct {
	there    string
	compared bool
	make     func(ctx context.Context, rdb *redis.Client, part layout.Partition, log *logtest.Log) error
}

// situationEvents is how many events the log has before.
const situationEvents = 20

func situations() []situation {
	put := func(text string) func(context.Context, *redis.Client, layout.Partition, *logtest.Log) error {
		return func(ctx context.Context, rdb *redis.Client, part layout.Partition, _ *logtest.Log) error {
			return rdb.Set(ctx, part.Checkpoint(), text, 0).Err()
		}
	}
	change := func(f func(log *logtest.Log)) func(context.Context, *redis.Client, layout.Partition, *logtest.Log) error {
		return func(_ context.Context, _ *redis.Client, _ layout.Partition, log *logtest.Log) error {
			f(log)
			return nil
		}
	}
	return []situation{
		{"nothing", false, func(ctx context.Context, rdb *redis.Client, part layout.Partition, _ *logtest.Log) error {
			return rdb.Del(ctx, part.Checkpoint()).Err()
		}},
		{"a damaged one", false, put("damaged")},
		{"a half filled one", false, put("log 0 g f7")},
		{"one of which the log has lost the end", false, change(func(log *logtest.Log) { log.Truncate(situationEvents / 2) })},
		{"one that is up to date", true, change(func(*logtest.Log) {})},
		{"one that is behind", true, change(func(log *logtest.Log) { log.Append(logtest.Session(1, 1, logtest.Version(2)), logtest.Session(99, 99)) })},
	}
}

// With no projector at work a rebuild looks after everything itself, whatever is there.
func TestARebuildNeedsNoProjector(t *testing.T) {
	type rebuilt struct {
		situation
		rdb  *redis.Client
		log  *logtest.Log
		done Rebuilt
		err  error
	}
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		var all []*rebuilt
		var rebuilding sync.WaitGroup // all at once: each waits for a projector first
		for i, s := range situations() {
			options := *rdb.(*redis.Client).Options()
			options.DB = i
			database := redis.NewClient(&options)
			t.Cleanup(func() { logtest.MustRun(t, database.Close()) })
			r := &rebuilt{situation: s, rdb: database, log: logtest.New("log")}
			for n := range situationEvents {
				r.log.Append(logtest.Session(n, int64(n)))
			}
			p := New(r.rdb, r.log, silent(1))
			logtest.MustRun(t, p.begins(t.Context()))
			logtest.MustRun(t, s.make(t.Context(), r.rdb, p.partitions[0], r.log))
			rebuilding.Go(func() { r.done, r.err = Rebuild(t.Context(), r.rdb, r.log, quietOptions()) })
			all = append(all, r)
		}
		rebuilding.Wait()
		for _, r := range all {
			t.Run(r.there, func(t *testing.T) {
				if r.err != nil || r.done.Compared != r.compared || r.done.Differences != 0 || r.done.Sessions != uint64(len(r.log.Sessions())) {
					t.Fatalf("got %+v, %v", r.done, r.err)
				}
				modeltest.SameKeys(t, modeltest.Dump(t, r.rdb), scratch(t, r.log))
				modeltest.MustHaveOneGeneration(t, r.rdb, layout.Partitions(1))
			})
		}
	})
}

func TestACompareOnlyRebuildChangesNothing(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		w := newWorld(t, rdb, 50, 1)
		before, answers := modeltest.Dump(t, rdb), w.liveKeys()
		opts := quietOptions()
		opts.CompareOnly = true
		done, err := Rebuild(t.Context(), rdb, w.log, opts)
		if err != nil || !done.Compared || done.Differences != 0 || done.Sessions != 50 {
			t.Errorf("got %+v, %v", done, err)
		}
		modeltest.SameKeys(t, modeltest.Dump(t, rdb), before)
		modeltest.MustHaveOneGeneration(t, rdb, w.parts)
		if w.liveKeys() != answers {
			t.Error("another read model answers")
		}
	})
}

// The Redis of another service: what it holds is not to be replaced by mistake.
func TestAReadModelOfAnotherLogIsNotRebuilt(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		w := newWorld(t, rdb, 5, 1)
		before := modeltest.Dump(t, rdb)
		if _, err := Rebuild(t.Context(), rdb, logtest.New("other"), quietOptions()); !errors.Is(err, projections.ErrOtherLog) {
			t.Errorf("got %v", err)
		}
		modeltest.SameKeys(t, modeltest.Dump(t, rdb), before)
		modeltest.MustHaveOneGeneration(t, rdb, w.parts)
	})
}
