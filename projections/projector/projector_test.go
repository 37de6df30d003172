package projector

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
	"chatsessions/projections/embeddedredis"
	"chatsessions/projections/layout"
	"chatsessions/projections/logtest"
	"chatsessions/projections/modeltest"
	"chatsessions/projections/readmodel"
)

func TestASessionIsProjectedAsItsNewestEventLeftIt(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := logtest.New("log")
		r := newRig(t, rdb, log)
		last := logtest.Session(1, 1000, logtest.In(domain.StateStarted), logtest.With("bob"), logtest.Version(2))
		log.Append(logtest.Session(1, 1000), last)
		r.caughtUp()
		got, err := r.Get(t.Context(), logtest.ID(1), "")
		logtest.MustRun(t, err)
		if got.JSON != logtest.JSON(last) || got.Version != 2 || !got.Visible {
			t.Fatalf("got %s, version %d, visible %v", got.JSON, got.Version, got.Visible)
		}
		for account, sees := range map[string]bool{"alice": true, "bob": true, "carol": false} {
			if got, err := r.Get(t.Context(), logtest.ID(1), account); err != nil || got.Visible != sees {
				t.Errorf("%s sees it: %v, %v", account, got.Visible, err)
			}
		}
		modeltest.SameKeys(t, modeltest.Dump(t, rdb), scratch(t, log))
	})
}

func TestAnEmptyLogIsAReadModelThatAnswers(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		r := newRig(t, rdb, logtest.New("log"))
		r.caughtUp()
		if _, err := r.Get(t.Context(), logtest.ID(1), ""); !errors.Is(err, domain.ErrNotFound) {
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
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		rapid.Check(t, func(rt *rapid.T) {
			ctx := context.Background()
			modeltest.Empty(t, rdb)
			log := logtest.New("log")
			log.Append(logtest.Histories(rt)...)
			tellBefore(rt, log.Events)
			p := New(rdb, log, Options{Logger: slog.New(slog.DiscardHandler)})
			p.log = logtest.New("log") // what there is comes in batches
			logtest.MustRun(t, p.begins(ctx))
			p.log = log
			for rest := log.Events; len(rest) > 0; {
				n := rapid.IntRange(1, len(rest)).Draw(rt, "batch")
				logtest.MustRun(t, p.applyAlone(ctx, rest[:n]))
				rest = rest[n:]
				if rapid.IntRange(0, 4).Draw(rt, "restart") == 0 {
					p = New(rdb, log, Options{Logger: slog.New(slog.DiscardHandler)})
					logtest.MustRun(t, p.begins(ctx))
				}
			}
			modeltest.SameKeys(rt, modeltest.Dump(t, rdb), scratch(t, log))
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
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := logtest.New("log")
		log.Batch = 2000
		for n := range 1000 {
			log.Append(logtest.Session(n, int64(n)))
		}
		long := strings.Repeat("x", 1000)
		for n := range 60 { // 60 × 20 kB
			s := logtest.Session(n, int64(n), logtest.Version(2))
			for i := range 20 {
				s.Participants = append(s.Participants, fmt.Sprint(i, long))
			}
			log.Append(s)
		}
		r := newRig(t, rdb, log)
		r.caughtUp()
		modeltest.SameKeys(t, modeltest.Dump(t, rdb), scratch(t, log))
	})
}

func TestARestartGoesOnFromTheCheckpoint(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := logtest.New("log")
		log.Append(logtest.Session(1, 1), logtest.Session(2, 2))
		r := newRig(t, rdb, log)
		r.caughtUp()
		r.projector.End()
		// A sign that only a rebuild would remove.
		logtest.MustRun(t, rdb.Set(t.Context(), layout.Partitions(1)[0].Base+"sign", "here", 0).Err())
		log.Append(logtest.Session(1, 1, logtest.Version(2)))
		r.project()
		r.caughtUp()
		if n := rdb.Exists(t.Context(), layout.Partitions(1)[0].Base+"sign").Val(); n != 1 {
			t.Fatal("the read model was rebuilt")
		}
		got, err := r.Get(t.Context(), logtest.ID(1), "")
		if err != nil || got.Version != 2 {
			t.Fatalf("got version %d, %v", got.Version, err)
		}
	})
}

func TestOfTwoProjectorsOneAdvances(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := logtest.New("log")
		r := newRig(t, rdb, log)
		second := r.project()
		versions := map[int]uint64{}
		for range 500 {
			n := rand.IntN(20)
			versions[n]++
			last := log.Append(logtest.Session(n, int64(n), logtest.Version(versions[n])))
			if rand.IntN(10) == 0 {
				logtest.MustRun(t, r.WaitFor(t.Context(), last, time.Minute))
				got, err := r.Get(t.Context(), logtest.ID(n), "")
				if err != nil || got.Version != versions[n] {
					t.Fatalf("got version %d, %v; want %d", got.Version, err, versions[n])
				}
			}
		}
		r.caughtUp()
		modeltest.SameKeys(t, modeltest.Dump(t, rdb), scratch(t, log))

		r.projector.End()
		log.Append(logtest.Session(1, 1, logtest.Version(1000)))
		r.caughtUp() // the one that stood by has taken over, or was at work all the time
		third := r.project()
		second.End()
		log.Append(logtest.Session(1, 1, logtest.Version(1001)))
		r.caughtUp()
		third.End()
		modeltest.SameKeys(t, modeltest.Dump(t, rdb), scratch(t, log))
	})
}

func TestABatchThatBuildsOnAnotherCheckpointWritesNothing(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		log := logtest.New("log")
		log.Append(logtest.Session(1, 1), logtest.Session(1, 1, logtest.Version(2)), logtest.Session(2, 2))
		quiet := Options{Logger: slog.New(slog.DiscardHandler)}
		late, p := New(rdb, log, quiet), New(rdb, log, quiet)
		events := log.Events
		log.Truncate(0)
		logtest.MustRun(t, p.begins(ctx))
		logtest.MustRun(t, late.begins(ctx))
		log.Append(logtest.Session(1, 1), logtest.Session(1, 1, logtest.Version(2)), logtest.Session(2, 2))
		logtest.MustRun(t, late.withTransactions(ctx, late.writers, func() error {
			logtest.MustRun(t, p.applyAlone(ctx, events))
			before := modeltest.Dump(t, rdb)
			if err := late.apply(ctx, late.writers, events[:1]); !errors.Is(err, errDeposed) {
				t.Errorf("got %v, want %v", err, errDeposed)
			}
			if err := late.applyAlone(ctx, events[:1]); !errors.Is(err, errDeposed) {
				t.Errorf("got %v, want %v", err, errDeposed)
			}
			modeltest.SameKeys(t, modeltest.Dump(t, rdb), before)
			return nil
		}))

		next := []domain.Entry{{Record: &domain.Record{Event: domain.Event{Session: logtest.Session(3, 3)}, Position: 4}}}
		logtest.MustRun(t, p.withTransactions(ctx, p.writers, func() error {
			modeltest.Empty(t, rdb)
			if err := p.apply(ctx, p.writers, next); !errors.Is(err, errUnexpected) {
				t.Errorf("got %v, want %v", err, errUnexpected)
			}
			return nil
		}))
		if err := p.applyAlone(ctx, next); !errors.Is(err, errUnexpected) {
			t.Fatalf("got %v, want %v", err, errUnexpected)
		}
		modeltest.SameKeys(t, modeltest.Dump(t, rdb), map[string]string{})
	})
}

// A Redis that others can see gets nothing that may be lost again.
func TestNothingIsProjectedBeforeItIsDurable(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		r := newRig(t, rdb, logtest.New("log"))
		r.log.Append(logtest.Session(1, 1))
		r.caughtUp()
		before := modeltest.Dump(t, rdb)
		r.log.Hold(2)
		position := r.log.Append(logtest.Session(1, 1, logtest.Version(2)), logtest.Session(2, 2))
		if err := r.WaitFor(t.Context(), position, 200*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		modeltest.SameKeys(t, modeltest.Dump(t, rdb), before)
		r.log.Hold(0)
		r.caughtUp()
		modeltest.SameKeys(t, modeltest.Dump(t, rdb), scratch(t, r.log))
	})
}

// A Redis of this process alone may hold it, and nobody is shown it.
func TestNothingIsShownBeforeItIsDurable(t *testing.T) {
	e, err := embeddedredis.Start("secret")
	logtest.MustRun(t, err)
	t.Cleanup(func() { logtest.MustRun(t, e.Close()) })
	log := logtest.New("log")
	m := newReadModel(t, e.Client(), log, readmodel.Options{})
	logtest.Start(t, m.Run)
	p := New(e.Client(), log, Options{Notify: m.Projected, Private: true})
	logtest.Start(t, p.Run)
	log.Append(logtest.Session(1, 1))
	logtest.MustRun(t, m.CaughtUp(t.Context()))

	log.Hold(2)
	position := log.Append(logtest.Session(1, 1, logtest.Version(2)))
	logtest.MustRun(t, m.WaitFor(t.Context(), position, time.Minute))
	short := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	if got, err := m.Get(short(), logtest.ID(1), ""); !errors.Is(err, domain.ErrUnavailable) {
		t.Errorf("got version %d, %v", got.Version, err)
	}
	if page, err := m.List(short(), query.Everything(10)); !errors.Is(err, domain.ErrUnavailable) {
		t.Errorf("got %d sessions, %v", len(page.Documents), err)
	}
	log.Hold(0)
	got, err := m.Get(t.Context(), logtest.ID(1), "")
	if err != nil || got.Version != 2 {
		t.Errorf("got version %d, %v", got.Version, err)
	}
}

// Redis carries out the rest of a transaction when one of its commands fails.
func TestAModelThatCannotBeWrittenAsAWholeIsBuiltAnew(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		r := newRig(t, rdb, logtest.New("log"))
		r.log.Append(logtest.Session(1, 1))
		r.caughtUp()
		damaged := r.liveKeys()
		logtest.MustRun(t, rdb.Set(t.Context(), damaged.Index(layout.FieldIndex("room", "r1")), "no index", 0).Err())
		r.log.Append(logtest.Session(2, 2, logtest.Room("r1")))
		logtest.Eventually(t, "there is another one", func() bool { // until then the damaged one may say that it has caught up
			c, ok := layout.ParseCheckpoint(rdb.Get(t.Context(), r.keys.Checkpoint()).Val())
			return ok && c.Generation != damaged.Generation
		})
		r.caughtUp()
		modeltest.SameKeys(t, modeltest.Dump(t, rdb), scratch(t, r.log))
		if !strings.Contains(r.output.String(), "WRONGTYPE") {
			t.Errorf("it was not said:\n%s", r.output.String())
		}
	})
}

func TestAReadModelOfAnotherLogIsRebuilt(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		other := logtest.New("other")
		for n := range 700 {
			other.Append(logtest.Session(n, int64(n), logtest.Room("of the other log")))
		}
		first := newRig(t, rdb, other)
		first.caughtUp()
		first.projector.End()
		digest, err := first.SaveQuery(t.Context(), "alice", "$limit=1")
		logtest.MustRun(t, err)

		log := logtest.New("log")
		log.Append(logtest.Session(1, 1), logtest.Session(10_000, 2))
		r := newRig(t, rdb, log)
		r.caughtUp()
		if !strings.Contains(r.output.String(), "the read model is of another log") {
			t.Fatalf("it was not said:\n%s", r.output.String())
		}
		if text, err := r.LoadQuery(t.Context(), "alice", digest); text != "$limit=1" {
			t.Fatalf("the saved query went too: %v", err)
		}
		got := modeltest.Dump(t, rdb)
		delete(got, layout.QueryKey("alice", digest))
		delete(got, layout.QueriesKey("alice"))
		modeltest.SameKeys(t, got, scratch(t, log))
	})
}

func TestAReadModelBeyondTheEndOfTheLogIsRebuilt(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := logtest.New("log")
		log.Append(logtest.Session(1, 1), logtest.Session(1, 1, logtest.Version(2)), logtest.Session(2, 2))
		r := newRig(t, rdb, log)
		r.caughtUp()

		old := r.liveKeys()
		log.Truncate(1)                                             // the log was restored from an older copy
		logtest.Eventually(t, "there is another one", func() bool { // until then a node that has not looked yet believes the old one
			c, ok := layout.ParseCheckpoint(rdb.Get(t.Context(), r.keys.Checkpoint()).Val())
			return ok && c.Generation != old.Generation
		})
		r.caughtUp()
		if !strings.Contains(r.output.String(), "it lost events: rebuilding") {
			t.Errorf("it was not said:\n%s", r.output.String())
		}
		got, err := r.Get(t.Context(), logtest.ID(1), "")
		if err != nil || got.Version != 1 {
			t.Fatalf("got version %d, %v", got.Version, err)
		}
		if _, err := r.Get(t.Context(), logtest.ID(2), ""); !errors.Is(err, domain.ErrNotFound) {
			t.Fatalf("the lost session: %v", err)
		}
		modeltest.SameKeys(t, modeltest.Dump(t, rdb), scratch(t, log))
	})
}

// The log was restored from an older copy while nobody looked, and has grown beyond
// the checkpoint since.
func TestAReadModelOfALogThatWasRewrittenIsRebuilt(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := logtest.New("log")
		log.Append(logtest.Session(1, 1), logtest.Session(1, 1, logtest.Version(2)), logtest.Session(2, 2))
		r := newRig(t, rdb, log)
		r.caughtUp()
		r.projector.End()

		log.Truncate(1)
		log.Append(logtest.Session(3, 3), logtest.Session(4, 4), logtest.Session(5, 5))
		second := r.project()
		logtest.Eventually(t, "the loss is noticed", func() bool {
			return strings.Contains(r.output.String(), "it lost events: rebuilding")
		})
		r.caughtUp()
		modeltest.SameKeys(t, modeltest.Dump(t, rdb), scratch(t, log))

		// A node that is connected anew compares before it believes.
		var connections atomic.Uint64
		m := newReadModel(t, rdb, log, readmodel.Options{Connections: connections.Load})
		logtest.Start(t, m.Run)
		logtest.MustRun(t, m.CaughtUp(t.Context()))
		second.End()
		end := log.Append(logtest.Session(1, 1, logtest.Version(9)))
		log.Truncate(int(end) - 2)
		log.Append(logtest.Session(6, 6), logtest.Session(7, 7))
		connections.Add(1)
		if got, err := m.Get(t.Context(), logtest.ID(5), ""); !errors.Is(err, domain.ErrUnavailable) {
			t.Errorf("got %s, %v", got.JSON, err)
		}
	})
}

func TestAnEndThatIsOldOnceIsNoReasonToRebuild(t *testing.T) {
	e, err := embeddedredis.Start("secret")
	logtest.MustRun(t, err)
	t.Cleanup(func() { logtest.MustRun(t, e.Close()) })
	log := logtest.New("log")
	log.Append(logtest.Session(1, 1), logtest.Session(2, 2))
	r := newRig(t, e.Client(), log)
	r.caughtUp()
	p := New(e.Client(), &hiccup{Log: log}, Options{Logger: slog.New(slog.DiscardHandler)})
	w, err := p.resume(t.Context(), p.partitions[0], false)
	if err != nil || w.current.Position != 2 {
		t.Fatalf("got %v, %v", w, err)
	}
}

// hiccup is a log whose first answer comes from a leader that was deposed.
type hiccup struct {
	*logtest.Log
	asked int
}

func (h *hiccup) End(ctx context.Context) (uint64, error) {
	if h.asked++; h.asked == 1 {
		return 1, nil
	}
	return h.Log.End(ctx)
}

func TestAHalfFilledReadModelIsBuiltAnewByAnotherProjector(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := logtest.New("log")
		log.Append(logtest.Session(1, 1))
		keys := layout.Partitions(1)[0].Keys("dead")
		logtest.MustRun(t, rdb.Set(t.Context(), keys.Partition.Checkpoint(), "log 0 dead f7 e", 0).Err())
		logtest.MustRun(t, rdb.SAdd(t.Context(), keys.Partition.Generations(), "dead").Err())
		logtest.MustRun(t, rdb.Set(t.Context(), keys.Document(logtest.ID(9)), "left over", 0).Err())
		r := newRig(t, rdb, log)
		r.caughtUp()
		modeltest.SameKeys(t, modeltest.Dump(t, rdb), scratch(t, log))
	})
}

func TestTroubleOfTheLogIsSurvived(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := logtest.New("log")
		log.Append(logtest.Session(1, 1))
		r := newRig(t, rdb, log)
		r.caughtUp()
		log.Fail(logtest.ErrDown)
		logtest.Eventually(t, "the trouble is logged", func() bool { return strings.Contains(r.output.String(), logtest.ErrDown.Error()) })
		log.Fail(nil)
		log.Append(logtest.Session(2, 2))
		r.caughtUp()
		modeltest.SameKeys(t, modeltest.Dump(t, rdb), scratch(t, log))
	})
}
