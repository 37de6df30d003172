package projections

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"chatsessions/domain"
	"chatsessions/domain/query"
)

func TestASessionIsProjectedAsItsNewestEventLeftIt(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := newFakeLog("log")
		r := newRig(t, rdb, log)
		last := session(1, 1000, in(domain.StateStarted), with("bob"), version(2))
		log.append(session(1, 1000), last)
		r.caughtUp()
		got, err := r.Get(t.Context(), id(1), "")
		mustRun(t, err)
		if got.JSON != jsonOf(last) || got.Version != 2 || !got.Visible {
			t.Fatalf("got %s, version %d, visible %v", got.JSON, got.Version, got.Visible)
		}
		for account, sees := range map[string]bool{"alice": true, "bob": true, "carol": false} {
			if got, err := r.Get(t.Context(), id(1), account); err != nil || got.Visible != sees {
				t.Errorf("%s sees it: %v, %v", account, got.Visible, err)
			}
		}
		sameKeys(t, dump(t, rdb), scratch(t, log))
	})
}

func TestAnEmptyLogIsAReadModelThatAnswers(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		r := newRig(t, rdb, newFakeLog("log"))
		r.caughtUp()
		if _, err := r.Get(t.Context(), id(1), ""); !errors.Is(err, domain.ErrNotFound) {
			t.Fatalf("Get: %v", err)
		}
		page, err := r.List(t.Context(), query.Everything(10))
		if err != nil || len(page.Documents) != 0 || page.Next != nil {
			t.Fatalf("List: %v, %v", page, err)
		}
	})
}

// Whatever the histories and wherever batches are cut, what is in Redis is what
// it would be had the log been projected at once.
func TestIncrementalProjectionEqualsOneFromScratch(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		rapid.Check(t, func(rt *rapid.T) {
			ctx := context.Background()
			empty(t, rdb)
			log := newFakeLog("log")
			log.append(histories(rt)...)
			tellBefore(rt, log.events)
			p := NewProjector(rdb, log, ProjectorOptions{Logger: slog.New(slog.DiscardHandler)})
			p.log = newFakeLog("log") // what there is comes in batches
			mustRun(t, p.begins(ctx))
			p.log = log
			for rest := log.events; len(rest) > 0; {
				n := rapid.IntRange(1, len(rest)).Draw(rt, "batch")
				mustRun(t, p.applyAlone(ctx, rest[:n]))
				rest = rest[n:]
				if rapid.IntRange(0, 4).Draw(rt, "restart") == 0 {
					p = NewProjector(rdb, log, ProjectorOptions{Logger: slog.New(slog.DiscardHandler)})
					mustRun(t, p.begins(ctx))
				}
			}
			sameKeys(rt, dump(t, rdb), scratch(t, log))
		})
	})
}

// tellBefore gives some of the events the session that they changed.
func tellBefore(rt *rapid.T, events []domain.Entry) {
	newest := map[string]*domain.Session{}
	for i := range events {
		e := &events[i]
		if rapid.Bool().Draw(rt, "tells before") {
			if e.Before = newest[e.Record.Event.Session.ID]; e.Before == nil {
				e.Before = &domain.Session{}
			}
		}
		newest[e.Record.Event.Session.ID] = &e.Record.Event.Session
	}
}

func TestALongBatchIsWrittenInParts(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := newFakeLog("log")
		log.cutAt(2000)
		for n := range 1000 {
			log.append(session(n, int64(n)))
		}
		long := strings.Repeat("x", 1000)
		for n := range 60 { // 60 × 20 kB
			s := session(n, int64(n), version(2))
			for i := range 20 {
				s.Participants = append(s.Participants, fmt.Sprint(i, long))
			}
			log.append(s)
		}
		r := newRig(t, rdb, log)
		r.caughtUp()
		sameKeys(t, dump(t, rdb), scratch(t, log))
	})
}

func TestARestartGoesOnFromTheCheckpoint(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := newFakeLog("log")
		log.append(session(1, 1), session(2, 2))
		r := newRig(t, rdb, log)
		r.caughtUp()
		r.projector.end()
		// A sign that only a rebuild would remove.
		mustRun(t, rdb.Set(t.Context(), newPartitions(1)[0].base+"sign", "here", 0).Err())
		log.append(session(1, 1, version(2)))
		r.project()
		r.caughtUp()
		if n := rdb.Exists(t.Context(), newPartitions(1)[0].base+"sign").Val(); n != 1 {
			t.Fatal("the read model was rebuilt")
		}
		got, err := r.Get(t.Context(), id(1), "")
		if err != nil || got.Version != 2 {
			t.Fatalf("got version %d, %v", got.Version, err)
		}
	})
}

func TestOfTwoProjectorsOneAdvances(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := newFakeLog("log")
		r := newRig(t, rdb, log)
		second := r.project()
		versions := map[int]uint64{}
		for range 500 {
			n := rand.IntN(20)
			versions[n]++
			last := log.append(session(n, int64(n), version(versions[n])))
			if rand.IntN(10) == 0 {
				mustRun(t, r.WaitFor(t.Context(), last, time.Minute))
				got, err := r.Get(t.Context(), id(n), "")
				if err != nil || got.Version != versions[n] {
					t.Fatalf("got version %d, %v; want %d", got.Version, err, versions[n])
				}
			}
		}
		r.caughtUp()
		sameKeys(t, dump(t, rdb), scratch(t, log))

		r.projector.end()
		log.append(session(1, 1, version(1000)))
		r.caughtUp() // the one that stood by has taken over, or was at work all the time
		third := r.project()
		second.end()
		log.append(session(1, 1, version(1001)))
		r.caughtUp()
		third.end()
		sameKeys(t, dump(t, rdb), scratch(t, log))
	})
}

func TestABatchThatBuildsOnAnotherCheckpointWritesNothing(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		log := newFakeLog("log")
		log.append(session(1, 1), session(1, 1, version(2)), session(2, 2))
		quiet := ProjectorOptions{Logger: slog.New(slog.DiscardHandler)}
		late, p := NewProjector(rdb, log, quiet), NewProjector(rdb, log, quiet)
		events := log.events
		log.truncate(0)
		mustRun(t, p.begins(ctx))
		mustRun(t, late.begins(ctx))
		log.append(session(1, 1), session(1, 1, version(2)), session(2, 2))
		mustRun(t, late.withWriters(ctx, late.lanes, func() error {
			mustRun(t, p.applyAlone(ctx, events))
			before := dump(t, rdb)
			if err := late.apply(ctx, late.lanes, events[:1]); !errors.Is(err, errDeposed) {
				t.Errorf("got %v, want %v", err, errDeposed)
			}
			if err := late.applyAlone(ctx, events[:1]); !errors.Is(err, errDeposed) {
				t.Errorf("got %v, want %v", err, errDeposed)
			}
			sameKeys(t, dump(t, rdb), before)
			return nil
		}))

		next := []domain.Entry{{Record: &domain.Record{Event: domain.Event{Session: session(3, 3)}, Position: 4}}}
		mustRun(t, p.withWriters(ctx, p.lanes, func() error {
			empty(t, rdb)
			if err := p.apply(ctx, p.lanes, next); !errors.Is(err, errAstray) {
				t.Errorf("got %v, want %v", err, errAstray)
			}
			return nil
		}))
		if err := p.applyAlone(ctx, next); !errors.Is(err, errAstray) {
			t.Fatalf("got %v, want %v", err, errAstray)
		}
		sameKeys(t, dump(t, rdb), map[string]string{})
	})
}

// A Redis that others can see gets nothing that may be lost again.
func TestNothingIsProjectedBeforeItIsDurable(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		r := newRig(t, rdb, newFakeLog("log"))
		r.log.append(session(1, 1))
		r.caughtUp()
		before := dump(t, rdb)
		r.log.hold(2)
		position := r.log.append(session(1, 1, version(2)), session(2, 2))
		if err := r.WaitFor(t.Context(), position, 200*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		sameKeys(t, dump(t, rdb), before)
		r.log.hold(0)
		r.caughtUp()
		sameKeys(t, dump(t, rdb), scratch(t, r.log))
	})
}

// A Redis of this process alone may hold it, and nobody is shown it.
func TestNothingIsShownBeforeItIsDurable(t *testing.T) {
	e, err := StartEmbedded("secret")
	mustRun(t, err)
	t.Cleanup(func() { mustRun(t, e.Close()) })
	log := newFakeLog("log")
	m := newReadModel(t, e.Client(), log, ReadModelOptions{})
	start(t, m.Run)
	p := NewProjector(e.Client(), log, ProjectorOptions{Notify: m.Projected, Private: true})
	start(t, p.Run)
	log.append(session(1, 1))
	mustRun(t, m.CaughtUp(t.Context()))

	log.hold(2)
	position := log.append(session(1, 1, version(2)))
	mustRun(t, m.WaitFor(t.Context(), position, time.Minute))
	short := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	if got, err := m.Get(short(), id(1), ""); !errors.Is(err, domain.ErrUnavailable) {
		t.Errorf("got version %d, %v", got.Version, err)
	}
	if page, err := m.List(short(), query.Everything(10)); !errors.Is(err, domain.ErrUnavailable) {
		t.Errorf("got %d sessions, %v", len(page.Documents), err)
	}
	log.hold(0)
	got, err := m.Get(t.Context(), id(1), "")
	if err != nil || got.Version != 2 {
		t.Errorf("got version %d, %v", got.Version, err)
	}
}

// Redis carries out the rest of a transaction when one of its commands fails.
func TestAModelThatCannotBeWrittenAsAWholeIsBuiltAnew(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		r := newRig(t, rdb, newFakeLog("log"))
		r.log.append(session(1, 1))
		r.caughtUp()
		damaged := r.serving()
		mustRun(t, rdb.Set(t.Context(), damaged.index(fieldIndex("room", "r1")), "no index", 0).Err())
		r.log.append(session(2, 2, room("r1")))
		eventually(t, "there is another one", func() bool { // until then the damaged one may say that it has caught up
			c, ok := parseCheckpoint(rdb.Get(t.Context(), r.keys.checkpoint()).Val())
			return ok && c.generation != damaged.generation
		})
		r.caughtUp()
		sameKeys(t, dump(t, rdb), scratch(t, r.log))
		if !strings.Contains(r.output.String(), "WRONGTYPE") {
			t.Errorf("it was not said:\n%s", r.output.String())
		}
	})
}

func TestAReadModelOfAnotherLogIsRebuilt(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		other := newFakeLog("other")
		for n := range 700 {
			other.append(session(n, int64(n), room("of the other log")))
		}
		first := newRig(t, rdb, other)
		first.caughtUp()
		first.projector.end()
		digest, err := first.SaveQuery(t.Context(), "alice", "$limit=1")
		mustRun(t, err)

		log := newFakeLog("log")
		log.append(session(1, 1), session(10_000, 2))
		r := newRig(t, rdb, log)
		r.caughtUp()
		if !strings.Contains(r.output.String(), "the read model is of another log") {
			t.Fatalf("it was not said:\n%s", r.output.String())
		}
		if text, err := r.LoadQuery(t.Context(), "alice", digest); text != "$limit=1" {
			t.Fatalf("the saved query went too: %v", err)
		}
		got := dump(t, rdb)
		delete(got, queryKey("alice", digest))
		delete(got, queriesKey("alice"))
		sameKeys(t, got, scratch(t, log))
	})
}

func TestAReadModelBeyondTheEndOfTheLogIsRebuilt(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := newFakeLog("log")
		log.append(session(1, 1), session(1, 1, version(2)), session(2, 2))
		r := newRig(t, rdb, log)
		r.caughtUp()

		old := r.serving()
		log.truncate(1)                                     // the log was restored from an older copy
		eventually(t, "there is another one", func() bool { // until then a node that has not looked yet believes the old one
			c, ok := parseCheckpoint(rdb.Get(t.Context(), r.keys.checkpoint()).Val())
			return ok && c.generation != old.generation
		})
		r.caughtUp()
		if !strings.Contains(r.output.String(), "it lost events: rebuilding") {
			t.Errorf("it was not said:\n%s", r.output.String())
		}
		got, err := r.Get(t.Context(), id(1), "")
		if err != nil || got.Version != 1 {
			t.Fatalf("got version %d, %v", got.Version, err)
		}
		if _, err := r.Get(t.Context(), id(2), ""); !errors.Is(err, domain.ErrNotFound) {
			t.Fatalf("the lost session: %v", err)
		}
		sameKeys(t, dump(t, rdb), scratch(t, log))
	})
}

// The log was restored from an older copy while nobody looked, and has grown beyond
// the checkpoint since.
func TestAReadModelOfALogThatWasRewrittenIsRebuilt(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := newFakeLog("log")
		log.append(session(1, 1), session(1, 1, version(2)), session(2, 2))
		r := newRig(t, rdb, log)
		r.caughtUp()
		r.projector.end()

		log.truncate(1)
		log.append(session(3, 3), session(4, 4), session(5, 5))
		second := r.project()
		eventually(t, "the loss is noticed", func() bool {
			return strings.Contains(r.output.String(), "it lost events: rebuilding")
		})
		r.caughtUp()
		sameKeys(t, dump(t, rdb), scratch(t, log))

		// A node that is connected anew compares before it believes.
		var connections atomic.Uint64
		m := newReadModel(t, rdb, log, ReadModelOptions{Connections: connections.Load})
		start(t, m.Run)
		mustRun(t, m.CaughtUp(t.Context()))
		second.end()
		end := log.append(session(1, 1, version(9)))
		log.truncate(int(end) - 2)
		log.append(session(6, 6), session(7, 7))
		connections.Add(1)
		if got, err := m.Get(t.Context(), id(5), ""); !errors.Is(err, domain.ErrUnavailable) {
			t.Errorf("got %s, %v", got.JSON, err)
		}
	})
}

func TestAnEndThatIsOldOnceIsNoReasonToRebuild(t *testing.T) {
	e, err := StartEmbedded("secret")
	mustRun(t, err)
	t.Cleanup(func() { mustRun(t, e.Close()) })
	log := newFakeLog("log")
	log.append(session(1, 1), session(2, 2))
	r := newRig(t, e.Client(), log)
	r.caughtUp()
	p := NewProjector(e.Client(), &hiccup{fakeLog: log}, ProjectorOptions{Logger: slog.New(slog.DiscardHandler)})
	l, err := p.resume(t.Context(), p.partitions[0], false)
	if err != nil || l.current.position != 2 {
		t.Fatalf("got %v, %v", l, err)
	}
}

// hiccup is a log whose first answer comes from a leader that was deposed.
type hiccup struct {
	*fakeLog
	asked int
}

func (h *hiccup) End(ctx context.Context) (uint64, error) {
	if h.asked++; h.asked == 1 {
		return 1, nil
	}
	return h.fakeLog.End(ctx)
}

func TestAHalfFilledReadModelIsBuiltAnewByAnotherProjector(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := newFakeLog("log")
		log.append(session(1, 1))
		keys := newPartitions(1)[0].of("dead")
		mustRun(t, rdb.Set(t.Context(), keys.checkpoint(), "log 0 dead f7 e", 0).Err())
		mustRun(t, rdb.SAdd(t.Context(), keys.generations(), "dead").Err())
		mustRun(t, rdb.Set(t.Context(), keys.document(id(9)), "left over", 0).Err())
		r := newRig(t, rdb, log)
		r.caughtUp()
		sameKeys(t, dump(t, rdb), scratch(t, log))
	})
}

func TestTroubleOfTheLogIsSurvived(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := newFakeLog("log")
		log.append(session(1, 1))
		r := newRig(t, rdb, log)
		r.caughtUp()
		log.fail(errLogDown)
		eventually(t, "the trouble is logged", func() bool { return strings.Contains(r.output.String(), errLogDown.Error()) })
		log.fail(nil)
		log.append(session(2, 2))
		r.caughtUp()
		sameKeys(t, dump(t, rdb), scratch(t, log))
	})
}
