package projector

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"chatsessions/domain"
	"chatsessions/domain/query"
	"chatsessions/projections/layout"
	"chatsessions/projections/logtest"
	"chatsessions/projections/modeltest"
)

// unprojectable are events of session 1 that cannot be projected, each with what is to be
// said of it.
func unprojectable() map[string]domain.Entry {
	return map[string]domain.Entry{
		logtest.ErrNoEvent.Error(): {Record: &domain.Record{Event: domain.Event{Session: domain.Session{ID: logtest.ID(1)}}}, Err: logtest.ErrNoEvent},
		"lies before 1970":         {Record: &domain.Record{Event: domain.Event{Session: logtest.Session(1, -1)}}},
		"has a line break":         {Record: &domain.Record{Event: domain.Event{Session: logtest.Session(1, 1)}, Encoded: []byte("{\n}")}},
		"nobody has seen yet":      {Record: &domain.Record{Event: domain.Event{Session: domain.Session{ID: logtest.ID(1)}}}, Err: errors.New("nobody has seen yet")},
	}
}

func allParked(t testing.TB, rdb redis.UniversalClient, partitions int) []layout.Parked {
	t.Helper()
	var all []layout.Parked
	logtest.MustRun(t, EachParked(t.Context(), rdb, partitions, func(p layout.Parked) error { all = append(all, p); return nil }))
	return all
}

// mustBeParked checks that of all sessions only this one is not shown, and that this is
// told.
func (r *rig) mustBeParked(n int, position uint64, reason string, shown ...int) {
	r.t.Helper()
	ctx := r.t.Context()
	if _, err := r.Get(ctx, logtest.ID(n), ""); !errors.Is(err, domain.ErrNotFound) {
		r.t.Errorf("a parked session: %v", err)
	}
	for _, n := range shown {
		if _, err := r.Get(ctx, logtest.ID(n), ""); err != nil {
			r.t.Errorf("session %d: %v", n, err)
		}
	}
	queries := []query.Query{query.Everything(100)}
	for _, f := range []query.Filter{{Field: "createdBy", Values: []string{"alice"}}, {Field: "state", Values: []string{"created", "started"}}} {
		q := query.Everything(100)
		q.Filters, q.Count = []query.Filter{f}, true
		queries = append(queries, q)
	}
	for _, q := range queries {
		page, err := r.List(ctx, q)
		if err != nil || len(page.Documents) != len(shown) || page.Total != nil && *page.Total != int64(len(shown)) {
			r.t.Errorf("a list of %s, %v; not of %d", page.Documents, err, shown)
		}
	}
	for _, p := range []func() (layout.Parked, error){
		func() (layout.Parked, error) { return FindParked(ctx, r.rdb, 1, logtest.ID(n)) },
		func() (layout.Parked, error) { all := allParked(r.t, r.rdb, 1); return all[0], nil },
	} {
		if p, err := p(); err != nil || p.SessionID != logtest.ID(n) || p.Position != position || !strings.Contains(p.Reason, reason) {
			r.t.Errorf("%+v is parked, %v; want session %d at %d: %s", p, err, n, position, reason)
		}
	}
	for _, n := range shown {
		if p, err := FindParked(ctx, r.rdb, 1, logtest.ID(n)); !errors.Is(err, ErrNotParked) {
			r.t.Errorf("session %d is parked: %+v, %v", n, p, err)
		}
	}
	logtest.Eventually(r.t, "the node counts it", func() bool { return r.Status().Parked == 1 })
}

func (r *rig) mustHaveNoneParked() {
	r.t.Helper()
	if all := allParked(r.t, r.rdb, len(r.parts)); len(all) > 0 {
		r.t.Errorf("still parked: %+v", all)
	}
	logtest.Eventually(r.t, "the node counts none", func() bool { return r.Status().Parked == 0 })
}

func TestWhatCannotBeProjectedParksItsSessionAndNothingElse(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		for reason, event := range unprojectable() {
			modeltest.Empty(t, rdb)
			log := logtest.New("log")
			r := newRig(t, rdb, log)
			good := logtest.Session(1, 1, logtest.Room("r1"), logtest.With("bob"))
			log.Append(good, logtest.Session(2, 2, logtest.Room("r1")))
			r.caughtUp()
			position := log.Record(event)
			log.Append(logtest.Session(3, 3, logtest.In(domain.StateStarted)))
			r.caughtUp()
			r.mustBeParked(1, position, reason, 2, 3)
			if said := r.output.String(); !strings.Contains(said, logtest.ID(1)) || !strings.Contains(said, reason) {
				t.Errorf("%s: it was not said:\n%s", reason, said)
			}
			r.mustBeWhole()

			// The first event that can be projected brings it back, whatever it tells of
			// the session before.
			back := good
			back.Version, back.Room = 3, "r2"
			log.Record(domain.Entry{Record: &domain.Record{Event: domain.Event{Session: back}}, Before: &event.Record.Event.Session})
			r.caughtUp()
			got, err := r.Get(t.Context(), logtest.ID(1), "bob")
			if err != nil || !got.Visible || got.JSON != logtest.JSON(back) {
				t.Errorf("%s: got %s, %v", reason, got.JSON, err)
			}
			r.mustHaveNoneParked()
			r.mustBeWhole()
			r.projector.End()
		}
	})
}

// It makes no difference whether a read model met the event while it followed the log, or
// while it was filled.
func TestAReadModelThatIsFilledParksTheSameSessions(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := logtest.New("log")
		log.Append(logtest.Session(2, 2), logtest.Session(1, 1, logtest.Room("r1")))
		position := log.RecordUnreadable(1)
		log.Append(logtest.Session(3, 3))
		log.RecordUnreadable(4)
		log.Append(logtest.Session(4, 4))
		r := newRig(t, rdb, log)
		r.caughtUp()
		r.mustBeParked(1, position, logtest.ErrNoEvent.Error(), 2, 3, 4)
		r.mustBeWhole()
		for range 2 {
			done, err := Rebuild(t.Context(), rdb, log, quietOptions())
			if err != nil || done.Differences != 0 || done.Sessions != 3 {
				t.Errorf("got %+v, %v", done, err)
			}
			r.mustBeParked(1, position, logtest.ErrNoEvent.Error(), 2, 3, 4)
			r.mustBeWhole()
		}
		log.Append(logtest.Session(1, 1, logtest.Room("r3"), logtest.Version(3)))
		r.caughtUp()
		r.mustHaveNoneParked()
		r.mustBeWhole()
	})
}

func TestARetryBringsASessionBackAsTheLogHasIt(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := logtest.New("log")
		log.Append(logtest.Session(1, 1, logtest.Room("r1")), logtest.Session(2, 2))
		position := log.RecordUnreadable(1)
		r := newRig(t, rdb, log)
		r.caughtUp()
		p, err := FindParked(t.Context(), rdb, 1, logtest.ID(1))
		logtest.MustRun(t, err)

		if err := Retry(t.Context(), rdb, 1, p, log.Load); !errors.Is(err, logtest.ErrNoEvent) {
			t.Errorf("it still cannot be read: %v", err)
		}
		refuses := func(context.Context, string) (*domain.Record, error) {
			return &domain.Record{Event: domain.Event{Session: logtest.Session(1, -1)}, Position: 3}, nil
		}
		if err := Retry(t.Context(), rdb, 1, p, refuses); err == nil || errors.Is(err, ErrNotParked) {
			t.Errorf("it still cannot be projected: %v", err)
		}
		r.mustBeParked(1, position, logtest.ErrNoEvent.Error(), 2)

		mend(log, 1, logtest.Room("r2"))
		logtest.MustRun(t, Retry(t.Context(), rdb, 1, p, log.Load))
		r.mustHaveNoneParked()
		r.mustBeWhole()
		if err := Retry(t.Context(), rdb, 1, p, log.Load); !errors.Is(err, ErrNotParked) {
			t.Errorf("it is back already: %v", err)
		}

		// What follows finds the index entries that it had, be they known or not.
		before := log.Sessions()[logtest.ID(1)]
		log.Record(domain.Entry{Record: &domain.Record{Event: domain.Event{Session: logtest.Session(1, 1, logtest.Room("r3"), logtest.Version(4))}}, Before: &before})
		r.mustBeWhole()
		log.Append(logtest.Session(1, 1, logtest.Version(5)))
		r.mustBeWhole()
	})
}

func TestARetryOfWhatHasChangedMeanwhileDoesNothing(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := logtest.New("log")
		log.RecordUnreadable(1)
		r := newRig(t, rdb, log)
		for what, happens := range map[string]func(){
			"it is back":      func() { log.Append(logtest.Session(1, 1, logtest.Room("new"))) },
			"it parked again": func() { log.Append(logtest.Session(1, 1)); log.RecordUnreadable(1) },
			"the read model was lost": func() {
				log.Append(logtest.Session(1, 1, logtest.Room("new"), logtest.Version(9)))
				modeltest.Empty(t, rdb)
				logtest.Eventually(t, "there is a read model again", func() bool { return rdb.Exists(t.Context(), r.keys.Checkpoint()).Val() == 1 })
			},
		} {
			log.RecordUnreadable(1)
			r.caughtUp()
			p, err := FindParked(t.Context(), rdb, 1, logtest.ID(1))
			logtest.MustRun(t, err)
			err = Retry(t.Context(), rdb, 1, p, func(context.Context, string) (*domain.Record, error) {
				happens()
				r.caughtUp()
				return &domain.Record{Event: domain.Event{Session: logtest.Session(1, 1, logtest.Room("old"))}, Position: p.Position}, nil
			})
			if !errors.Is(err, ErrNotParked) {
				t.Errorf("%s: %v", what, err)
			}
			r.mustBeWhole()
		}
	})
}

// While the projector is about to write an event of a parked session, an operator brings
// the session back. It must not keep entries in indexes that it has left.
func TestARetryBesideAnEventLeavesNoIndexEntries(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		for _, private := range []bool{false, true} {
			modeltest.Empty(t, rdb)
			log := logtest.New("log")
			log.Append(logtest.Session(1, 1))
			log.RecordUnreadable(1)
			r := newRig(t, rdb, log)
			r.caughtUp()
			r.projector.End()
			p, err := FindParked(t.Context(), rdb, 1, logtest.ID(1))
			logtest.MustRun(t, err)
			mend(log, 1, logtest.Room("r1"))
			mended, err := log.Load(t.Context(), logtest.ID(1))
			logtest.MustRun(t, err)

			watched, batches := modeltest.Another(t, rdb), 0
			watched.AddHook(modeltest.BeforeEach(func(cmd redis.Cmder) error {
				if cmd.Name() != "multi" {
					return nil
				}
				if batches++; batches == 2 {
					err = Retry(t.Context(), rdb, 1, p, func(context.Context, string) (*domain.Record, error) { return mended, nil })
				}
				return nil
			}))
			projector := New(watched, log, Options{Logger: r.logger(), Notify: r.Projected, Private: private})
			run := logtest.Start(t, projector.Run)
			log.Append(logtest.Session(2, 2))
			r.caughtUp()
			log.Append(logtest.Session(1, 1, logtest.Room("r2"), logtest.Version(3)))
			r.caughtUp()
			run.End()
			if batches < 2 || err != nil {
				t.Errorf("%d batches, %v", batches, err)
			}
			if said := r.output.String(); strings.Contains(said, "projector stopped") {
				t.Errorf("it was in its way:\n%s", said)
			}
			r.mustBeWhole()
		}
	})
}

func TestAParkedSessionIsFoundInItsPartition(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := logtest.New("log")
		want := map[string]bool{}
		for n := range 12 {
			log.Append(logtest.Session(n, int64(n)))
			log.RecordUnreadable(n)
			want[logtest.ID(n)] = true
		}
		r := newRigOf(t, rdb, log, 3)
		r.mustBeWhole()
		for _, p := range allParked(t, rdb, 3) {
			if !want[p.SessionID] {
				t.Errorf("more than once: %+v", p)
			}
			delete(want, p.SessionID)
			found, err := FindParked(t.Context(), rdb, 3, p.SessionID)
			if err != nil || found != p {
				t.Errorf("%+v, %v; want %+v", found, err, p)
			}
		}
		if len(want) > 0 {
			t.Errorf("not found: %v", want)
		}
		for n := range 12 {
			mend(log, n, logtest.Room(fmt.Sprint(n)))
			p, err := FindParked(t.Context(), rdb, 3, logtest.ID(n))
			logtest.MustRun(t, err)
			logtest.MustRun(t, Retry(t.Context(), rdb, 3, p, log.Load))
		}
		r.mustHaveNoneParked()
		r.mustBeWhole()
	})
}

// mend makes every message of a session an event, as for a newer version of the service
// that can read it. The session is then started.
func mend(l *logtest.Log, n int, changes ...func(*domain.Session)) {
	l.Change(func() {
		l.Events = slices.Clone(l.Events) // others may be reading
		for i := range l.Events {
			if e := &l.Events[i]; e.Err != nil && e.Record.Event.Session.ID == logtest.ID(n) {
				e.Record = new(*e.Record)
				changes := append(changes, logtest.In(domain.StateStarted), logtest.Version(uint64(i+1)))
				e.Record.Event.Session, e.Err = logtest.Session(n, int64(n), changes...), nil
			}
		}
	})
}
