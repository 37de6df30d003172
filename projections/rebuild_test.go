package projections

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
)

// A world is some sessions that are written and read all the time, through two nodes.
type world struct {
	*rig
	other    *ReadModel // hears of what is projected through Redis only
	answered []atomic.Uint64
	stop     context.CancelFunc
	busy     sync.WaitGroup
}

// newWorld returns a world of so many sessions, in which nothing happens yet.
func newWorld(t *testing.T, rdb redis.UniversalClient, sessions, partitions int) *world {
	t.Helper()
	log := newFakeLog("log")
	w := &world{answered: make([]atomic.Uint64, sessions), stop: func() {}}
	for n := range sessions {
		log.append(session(n, int64(n), version(1)))
		w.answered[n].Store(1)
	}
	w.rig = newRigOf(t, rdb, log, partitions)
	w.caughtUp()
	w.other = newReadModel(t, rdb, log, ReadModelOptions{Logger: w.logger(), Partitions: partitions})
	start(t, w.other.Run)
	mustRun(t, w.other.CaughtUp(t.Context()))
	t.Cleanup(w.rest)
	return w
}

// live lets clients write and read until rest. Nothing that they read may be older than
// what was answered before, and unless refusals are fine everything is to be answered.
func (w *world) live(refusals bool) {
	ctx, stop := context.WithCancel(w.t.Context())
	w.stop = stop
	fine := func(err error) bool { return ctx.Err() != nil || refusals && errors.Is(err, domain.ErrUnavailable) }
	for i, node := range []*ReadModel{w.ReadModel, w.other} {
		w.busy.Go(func() { // who writes waits at this node, and writes sessions of his own
			for v := uint64(2); ctx.Err() == nil; v++ {
				n := 2*rand.IntN(len(w.answered)/2) + i
				position := w.log.append(session(n, int64(n), version(v), room(fmt.Sprint("room ", v%3))))
				if node.WaitFor(ctx, position, time.Minute) == nil {
					w.answered[n].Store(v)
				}
			}
		})
		w.busy.Go(func() {
			for ctx.Err() == nil && !w.t.Failed() {
				n := rand.IntN(len(w.answered))
				told := w.answered[n].Load()
				got, err := node.Get(ctx, id(n), "")
				if err == nil && got.Version < told || err != nil && !fine(err) {
					w.t.Errorf("session %d: got version %d, %v; %d was answered", n, got.Version, err, told)
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

func quietly() RebuildOptions { return RebuildOptions{Logger: slog.New(slog.DiscardHandler)} }

// rebuild rebuilds the read model, and checks that another one answers then.
func (w *world) rebuild() Rebuilt {
	w.t.Helper()
	before := make([]string, len(w.parts))
	for i, part := range w.parts {
		before[i] = servingOf(w.t, w.rdb, part).generation
	}
	opts := quietly()
	opts.Partitions = len(w.parts)
	opts.Difference = func(d Difference) { w.t.Errorf("is no difference: %+v", d) }
	done, err := Rebuild(w.t.Context(), w.rdb, w.log, opts)
	mustRun(w.t, err)
	if !done.Compared || done.Sessions != uint64(len(w.answered)) || done.Removed == 0 {
		w.t.Errorf("the result of a rebuild is %+v", done)
	}
	for i, part := range w.parts {
		if servingOf(w.t, w.rdb, part).generation == before[i] {
			w.t.Errorf("partition %d answers from what it did before", i)
		}
	}
	return done
}

func TestDuringARebuildEverythingIsAnsweredAndNothingIsOlder(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		for _, partitions := range []int{1, 3} {
			t.Run(fmt.Sprint(partitions, " partitions"), func(t *testing.T) {
				empty(t, rdb)
				w := newWorld(t, rdb, 40, partitions)
				w.live(false)
				for range 3 {
					w.rebuild()
				}
				w.rest()
				w.mustBeWhole()
				w.projector.end()
			})
		}
	})
}

// A rebuild has read what does not answer yet. Whoever took its word for it would tell a
// client that a write is shown which no node shows.
func TestWhatARebuildHasReadIsNotTakenForWhatAnswers(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		w := newWorld(t, rdb, 10, 1)
		w.log.hold(11) // for the projector; not for the rebuild
		position := w.log.append(session(1, 1, version(2)))
		watched, looked := another(t, rdb), false
		watched.AddHook(beforeEach(func(cmd redis.Cmder) error {
			if looked || cmd.Name() != "scan" {
				return nil
			}
			looked = true
			reached(t, rdb, w.keys.next(), position)
			for _, node := range []*ReadModel{w.ReadModel, w.other} {
				if err := node.WaitFor(t.Context(), position, 200*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("the position counts as shown: %v", err)
				}
				if got, err := node.Get(t.Context(), id(1), ""); err != nil || got.Version != 1 {
					t.Errorf("got version %d, %v; the generation that answers has 1", got.Version, err)
				}
			}
			w.log.hold(0)
			return nil
		}))
		opts := quietly()
		opts.CompareOnly = true
		_, err := Rebuild(t.Context(), watched, newHeldLog(w.log), opts)
		mustRun(t, err)
		w.mustBeWhole()
	})
}

// What a service keeps in a Redis of its own another process can rebuild through its
// projector.
func TestAPrivateReadModelIsRebuiltThroughItsProjector(t *testing.T) {
	e, err := StartEmbedded("secret")
	mustRun(t, err)
	t.Cleanup(func() { mustRun(t, e.Close()) })
	log := newFakeLog("log")
	for n := range 20 {
		log.append(session(n, int64(n)))
	}
	m := newReadModel(t, e.Client(), log, ReadModelOptions{Private: true, Logger: slog.New(slog.DiscardHandler)})
	start(t, m.Run)
	start(t, NewProjector(e.Client(), log, ProjectorOptions{Notify: m.Projected, Private: true, Logger: slog.New(slog.DiscardHandler)}).Run)
	mustRun(t, m.CaughtUp(t.Context()))
	ctx, stop := context.WithCancel(t.Context())
	var writing sync.WaitGroup
	writing.Go(func() {
		for v := uint64(2); ctx.Err() == nil; v++ {
			position := log.append(session(1, 1, version(v), room(fmt.Sprint(v%3))))
			if m.WaitFor(ctx, position, time.Minute) != nil {
				return
			}
			if got, err := m.Get(ctx, id(1), ""); ctx.Err() == nil && (err != nil || got.Version != v) {
				t.Errorf("got version %d, %v; %d was written", got.Version, err, v)
			}
		}
	})
	outside := another(t, e.Client())
	for range 3 {
		before := servingOf(t, outside, newPartitions(1)[0])
		opts := quietly()
		opts.Private = true
		if done, err := Rebuild(t.Context(), outside, log, opts); err != nil || done.Differences != 0 {
			t.Errorf("got %+v, %v", done, err)
		}
		if servingOf(t, outside, newPartitions(1)[0]) == before {
			t.Error("it does not answer")
		}
	}
	stop()
	writing.Wait()
	mustRun(t, m.CaughtUp(t.Context()))
	sameKeys(t, dump(t, outside), scratch(t, log))
	mustHaveOneGeneration(t, outside, newPartitions(1))
}

// A situation is what a rebuild finds.
type situation struct {
	there    string
	compared bool
	make     func(ctx context.Context, rdb *redis.Client, part partition, log *fakeLog) error
}

// situationEvents is how many events the log has before.
const situationEvents = 20

func situations() []situation {
	put := func(text string) func(context.Context, *redis.Client, partition, *fakeLog) error {
		return func(ctx context.Context, rdb *redis.Client, part partition, _ *fakeLog) error {
			return rdb.Set(ctx, part.checkpoint(), text, 0).Err()
		}
	}
	change := func(f func(log *fakeLog)) func(context.Context, *redis.Client, partition, *fakeLog) error {
		return func(_ context.Context, _ *redis.Client, _ partition, log *fakeLog) error { f(log); return nil }
	}
	return []situation{
		{"nothing", false, func(ctx context.Context, rdb *redis.Client, part partition, _ *fakeLog) error {
			return rdb.Del(ctx, part.checkpoint()).Err()
		}},
		{"a damaged one", false, put("damaged")},
		{"a half filled one", false, put("log 0 g f7")},
		{"one of which the log has lost the end", false, change(func(log *fakeLog) { log.truncate(situationEvents / 2) })},
		{"one that is up to date", true, change(func(*fakeLog) {})},
		{"one that is behind", true, change(func(log *fakeLog) { log.append(session(1, 1, version(2)), session(99, 99)) })},
	}
}

// With no projector at work a rebuild looks after everything itself, whatever is there.
func TestARebuildNeedsNoProjector(t *testing.T) {
	type rebuilt struct {
		situation
		rdb  *redis.Client
		log  *fakeLog
		done Rebuilt
		err  error
	}
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		var all []*rebuilt
		var rebuilding sync.WaitGroup // all at once: each waits for a projector first
		for i, s := range situations() {
			r := &rebuilt{situation: s, rdb: database(t, rdb, i), log: newFakeLog("log")}
			for n := range situationEvents {
				r.log.append(session(n, int64(n)))
			}
			p := NewProjector(r.rdb, r.log, silent(1))
			mustRun(t, p.begins(t.Context()))
			mustRun(t, s.make(t.Context(), r.rdb, p.partitions[0], r.log))
			rebuilding.Go(func() { r.done, r.err = Rebuild(t.Context(), r.rdb, r.log, quietly()) })
			all = append(all, r)
		}
		rebuilding.Wait()
		for _, r := range all {
			t.Run(r.there, func(t *testing.T) {
				if r.err != nil || r.done.Compared != r.compared || r.done.Differences != 0 || r.done.Sessions != uint64(len(r.log.newest())) {
					t.Fatalf("got %+v, %v", r.done, r.err)
				}
				sameKeys(t, dump(t, r.rdb), scratch(t, r.log))
				mustHaveOneGeneration(t, r.rdb, newPartitions(1))
			})
		}
	})
}

func TestACompareOnlyRebuildChangesNothing(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		w := newWorld(t, rdb, 50, 1)
		before, answers := dump(t, rdb), w.serving()
		opts := quietly()
		opts.CompareOnly = true
		done, err := Rebuild(t.Context(), rdb, w.log, opts)
		if err != nil || !done.Compared || done.Differences != 0 || done.Sessions != 50 {
			t.Errorf("got %+v, %v", done, err)
		}
		sameKeys(t, dump(t, rdb), before)
		mustHaveOneGeneration(t, rdb, w.parts)
		if w.serving() != answers {
			t.Error("another read model answers")
		}
	})
}

// The Redis of another service: what it holds is not to be replaced by mistake.
func TestAReadModelOfAnotherLogIsNotRebuilt(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		w := newWorld(t, rdb, 5, 1)
		before := dump(t, rdb)
		if _, err := Rebuild(t.Context(), rdb, newFakeLog("other"), quietly()); !errors.Is(err, ErrOtherLog) {
			t.Errorf("got %v", err)
		}
		sameKeys(t, dump(t, rdb), before)
		mustHaveOneGeneration(t, rdb, w.parts)
	})
}
