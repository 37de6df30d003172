package projections

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
)

// unprojectable are events of session 1 that cannot be projected, each with what is to be
// said of it.
func unprojectable() map[string]domain.Entry {
	return map[string]domain.Entry{
		errNoEvent.Error():    {Record: &domain.Record{Event: domain.Event{Session: domain.Session{ID: id(1)}}}, Err: errNoEvent},
		"lies before 1970":    {Record: &domain.Record{Event: domain.Event{Session: session(1, -1)}}},
		"has a line break":    {Record: &domain.Record{Event: domain.Event{Session: session(1, 1)}, Encoded: []byte("{\n}")}},
		"nobody has seen yet": {Record: &domain.Record{Event: domain.Event{Session: domain.Session{ID: id(1)}}}, Err: errors.New("nobody has seen yet")},
	}
}

func allParked(t testing.TB, rdb redis.UniversalClient, partitions int) []Parked {
	t.Helper()
	var all []Parked
	mustRun(t, EachParked(t.Context(), rdb, partitions, func(p Parked) error { all = append(all, p); return nil }))
	return all
}

// mustBeParked checks that of all sessions only this one is not shown, and that this is
// told.
func (r *rig) mustBeParked(n int, position uint64, reason string, shown ...int) {
	r.t.Helper()
	ctx := r.t.Context()
	if _, err := r.Get(ctx, id(n), ""); !errors.Is(err, domain.ErrNotFound) {
		r.t.Errorf("a parked session: %v", err)
	}
	for _, n := range shown {
		if _, err := r.Get(ctx, id(n), ""); err != nil {
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
	for _, p := range []func() (Parked, error){
		func() (Parked, error) { return FindParked(ctx, r.rdb, 1, id(n)) },
		func() (Parked, error) { all := allParked(r.t, r.rdb, 1); return all[0], nil },
	} {
		if p, err := p(); err != nil || p.SessionID != id(n) || p.Position != position || !strings.Contains(p.Reason, reason) {
			r.t.Errorf("%+v is parked, %v; want session %d at %d: %s", p, err, n, position, reason)
		}
	}
	for _, n := range shown {
		if p, err := FindParked(ctx, r.rdb, 1, id(n)); !errors.Is(err, ErrNotParked) {
			r.t.Errorf("session %d is parked: %+v, %v", n, p, err)
		}
	}
	eventually(r.t, "the node counts it", func() bool { return r.Status().Parked == 1 })
}

func (r *rig) mustHaveNoneParked() {
	r.t.Helper()
	if all := allParked(r.t, r.rdb, len(r.partitions)); len(all) > 0 {
		r.t.Errorf("still parked: %+v", all)
	}
	eventually(r.t, "the node counts none", func() bool { return r.Status().Parked == 0 })
}

func TestWhatCannotBeProjectedParksItsSessionAndNothingElse(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		for reason, event := range unprojectable() {
			empty(t, rdb)
			log := newFakeLog("log")
			r := newRig(t, rdb, log)
			good := session(1, 1, room("r1"), with("bob"))
			log.append(good, session(2, 2, room("r1")))
			r.caughtUp()
			position := log.record(event)
			log.append(session(3, 3, in(domain.StateStarted)))
			r.caughtUp()
			r.mustBeParked(1, position, reason, 2, 3)
			if said := r.output.String(); !strings.Contains(said, id(1)) || !strings.Contains(said, reason) {
				t.Errorf("%s: it was not said:\n%s", reason, said)
			}
			r.mustBeWhole()

			// The first event that can be projected brings it back, whatever it tells of
			// the session before.
			back := good
			back.Version, back.Room = 3, "r2"
			log.record(domain.Entry{Record: &domain.Record{Event: domain.Event{Session: back}}, Before: &event.Record.Event.Session})
			r.caughtUp()
			got, err := r.Get(t.Context(), id(1), "bob")
			if err != nil || !got.Visible || got.JSON != jsonOf(back) {
				t.Errorf("%s: got %s, %v", reason, got.JSON, err)
			}
			r.mustHaveNoneParked()
			r.mustBeWhole()
			r.projector.end()
		}
	})
}

// It makes no difference whether a read model met the event while it followed the log, or
// while it was filled.
func TestAReadModelThatIsFilledParksTheSameSessions(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := newFakeLog("log")
		log.append(session(2, 2), session(1, 1, room("r1")))
		position := log.recordUnreadable(1)
		log.append(session(3, 3))
		log.recordUnreadable(4)
		log.append(session(4, 4))
		r := newRig(t, rdb, log)
		r.caughtUp()
		r.mustBeParked(1, position, errNoEvent.Error(), 2, 3, 4)
		r.mustBeWhole()
		for range 2 {
			done, err := Rebuild(t.Context(), rdb, log, quietly())
			if err != nil || done.Differences != 0 || done.Sessions != 3 {
				t.Errorf("got %+v, %v", done, err)
			}
			r.mustBeParked(1, position, errNoEvent.Error(), 2, 3, 4)
			r.mustBeWhole()
		}
		log.append(session(1, 1, room("r3"), version(3)))
		r.caughtUp()
		r.mustHaveNoneParked()
		r.mustBeWhole()
	})
}

// mend makes every message of a session an event, as a newer version of the service that
// can read it would: the session has been started then.
func (l *fakeLog) mend(n int, changes ...func(*domain.Session)) {
	l.change(func() {
		l.events = slices.Clone(l.events) // others may be reading
		for i := range l.events {
			if e := &l.events[i]; e.Err != nil && e.Record.Event.Session.ID == id(n) {
				e.Record = new(*e.Record)
				e.Record.Event.Session, e.Err = session(n, int64(n), append(changes, in(domain.StateStarted), version(uint64(i+1)))...), nil
			}
		}
	})
}

func TestARetryBringsASessionBackAsTheLogHasIt(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := newFakeLog("log")
		log.append(session(1, 1, room("r1")), session(2, 2))
		position := log.recordUnreadable(1)
		r := newRig(t, rdb, log)
		r.caughtUp()
		p, err := FindParked(t.Context(), rdb, 1, id(1))
		mustRun(t, err)

		if err := Retry(t.Context(), rdb, p, log.load); !errors.Is(err, errNoEvent) {
			t.Errorf("it still cannot be read: %v", err)
		}
		refuses := func(context.Context, string) (*domain.Record, error) {
			return &domain.Record{Event: domain.Event{Session: session(1, -1)}, Position: 3}, nil
		}
		if err := Retry(t.Context(), rdb, p, refuses); err == nil || errors.Is(err, ErrNotParked) {
			t.Errorf("it still cannot be projected: %v", err)
		}
		r.mustBeParked(1, position, errNoEvent.Error(), 2)

		log.mend(1, room("r2"))
		mustRun(t, Retry(t.Context(), rdb, p, log.load))
		r.mustHaveNoneParked()
		r.mustBeWhole()
		if err := Retry(t.Context(), rdb, p, log.load); !errors.Is(err, ErrNotParked) {
			t.Errorf("it is back already: %v", err)
		}

		// What follows finds the index entries that it had, be they known or not.
		before := log.newest()[id(1)]
		log.record(domain.Entry{Record: &domain.Record{Event: domain.Event{Session: session(1, 1, room("r3"), version(4))}}, Before: &before})
		r.mustBeWhole()
		log.append(session(1, 1, version(5)))
		r.mustBeWhole()
	})
}

func TestARetryOfWhatHasChangedMeanwhileDoesNothing(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := newFakeLog("log")
		log.recordUnreadable(1)
		r := newRig(t, rdb, log)
		for what, happens := range map[string]func(){
			"it is back":      func() { log.append(session(1, 1, room("new"))) },
			"it parked again": func() { log.append(session(1, 1)); log.recordUnreadable(1) },
			"the read model was lost": func() {
				log.append(session(1, 1, room("new"), version(9)))
				empty(t, rdb)
				eventually(t, "there is a read model again", func() bool { return rdb.Exists(t.Context(), r.keys.checkpoint()).Val() == 1 })
			},
		} {
			log.recordUnreadable(1)
			r.caughtUp()
			p, err := FindParked(t.Context(), rdb, 1, id(1))
			mustRun(t, err)
			err = Retry(t.Context(), rdb, p, func(context.Context, string) (*domain.Record, error) {
				happens()
				r.caughtUp()
				return &domain.Record{Event: domain.Event{Session: session(1, 1, room("old"))}, Position: p.Position}, nil
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
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		for _, private := range []bool{false, true} {
			empty(t, rdb)
			log := newFakeLog("log")
			log.append(session(1, 1))
			log.recordUnreadable(1)
			r := newRig(t, rdb, log)
			r.caughtUp()
			r.projector.end()
			p, err := FindParked(t.Context(), rdb, 1, id(1))
			mustRun(t, err)
			log.mend(1, room("r1"))
			mended, err := log.load(t.Context(), id(1))
			mustRun(t, err)

			watched, batches := another(t, rdb), 0
			watched.AddHook(beforeEach(func(cmd redis.Cmder) error {
				if cmd.Name() != "multi" {
					return nil
				}
				if batches++; batches == 2 {
					err = Retry(t.Context(), rdb, p, func(context.Context, string) (*domain.Record, error) { return mended, nil })
				}
				return nil
			}))
			projector := NewProjector(watched, log, ProjectorOptions{Logger: r.logger(), Notify: r.Projected, Private: private})
			run := start(t, projector.Run)
			log.append(session(2, 2))
			r.caughtUp()
			log.append(session(1, 1, room("r2"), version(3)))
			r.caughtUp()
			run.end()
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
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := newFakeLog("log")
		want := map[string]bool{}
		for n := range 12 {
			log.append(session(n, int64(n)))
			log.recordUnreadable(n)
			want[id(n)] = true
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
			log.mend(n, room(fmt.Sprint(n)))
			p, err := FindParked(t.Context(), rdb, 3, id(n))
			mustRun(t, err)
			mustRun(t, Retry(t.Context(), rdb, p, log.load))
		}
		r.mustHaveNoneParked()
		r.mustBeWhole()
	})
}
