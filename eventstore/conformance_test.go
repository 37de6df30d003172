package eventstore_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"chatsessions/domain"
	"chatsessions/eventstore"
	"chatsessions/eventstore/embedded"
	"chatsessions/eventstore/natstest"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestLog runs one suite on every kind of server that a log can be on. Each test
// has two nodes: two logs with a connection of their own.
func TestLog(t *testing.T) {
	t.Run("embedded", func(t *testing.T) {
		e := startEmbedded(t, t.TempDir())
		conformance(t, func(t testing.TB) *nats.Conn { return connectEmbedded(t, e) }, e)
	})
	t.Run("server", func(t *testing.T) {
		s := natstest.Start(t, natstest.Config{})
		conformance(t, func(t testing.TB) *nats.Conn { return connect(t, s.URL()) })
	})
	t.Run("cluster", func(t *testing.T) {
		c := natstest.StartCluster(t, make([]natstest.Config, 3)...)
		conformance(t, func(t testing.TB) *nats.Conn { return connect(t, c.URL()) })
	})
}

func startEmbedded(t testing.TB, dir string) *embedded.Server {
	t.Helper()
	e, err := embedded.Start(testContext(t), embedded.Options{StoreDir: dir, User: "chatsessions", Password: "secret", Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Shutdown)
	return e
}

func connectEmbedded(t testing.TB, e *embedded.Server) *nats.Conn {
	t.Helper()
	nc, err := e.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func conformance(t *testing.T, connect func(testing.TB) *nats.Conn, e ...*embedded.Server) {
	one, other := openLog(t, connect(t), e...), openLog(t, connect(t), e...)
	if one.Identity() != other.Identity() {
		t.Fatalf("two nodes of one log name it %s and %s", one.Identity(), other.Identity())
	}
	for _, test := range []struct {
		name string
		run  func(t *testing.T, one, other *eventstore.Log)
	}{
		{"a single event is appended and loaded", testSingleEvent},
		{"several events are appended together and chained", testSeveralEvents},
		{"a session without events is not found", testNotFound},
		{"ids that are no subject tokens find nothing", testInvalidIDs},
		{"what appends nothing is answered with the session as it is", testAppendsNothing},
		{"a decision that was overtaken is made again", testDecidesAgain},
		{"a refusal is decided on the newest state", testRefusalIsConfirmed},
		{"what a node remembers of a session may be old", testRemembersAnOldState},
		{"of 50 concurrent accepts one wins and the others see it", testOneWins},
		{"concurrent changes of one session are all applied", testAllApplied},
		{"many atomic writes at once all succeed", testManyBatches},
		{"a key replays the first answer", testReplay},
		{"a key with another body is refused", testKeyReused},
		{"the same key at once on two nodes writes once", testSameKeyAtOnce},
		{"a feed has everything in order and never splits a write", testFollow},
		{"a feed resumes after any position", testFollowResumes},
		{"a feed ends with its context, its handler and its log", testFollowEnds},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, one, other) })
	}
}

func testSingleEvent(t *testing.T, one, other *eventstore.Log) {
	id := newID()
	before := mustEnd(t, one)
	created := mustTransact(t, one, request(id, "pat"), create(id, "pat"))
	if created.Record.Position != before+1 || mustEnd(t, other) != created.Record.Position {
		t.Errorf("created at %d; the log ended at %d and ends at %d", created.Record.Position, before, mustEnd(t, other))
	}
	if got := mustLoad(t, other, id); !sameRecord(got, created.Record) {
		t.Errorf("loaded %+v, created %+v", got, created)
	}
	req := request(id, "doc with ü and %")
	req.TraceParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	started := mustTransact(t, other, req, change("doc", domain.Start))
	records := history(t, one, id)
	if len(records) != 2 || records[1].Previous != created.Record.Position || records[0].Previous != 0 || records[1].Position != started.Record.Position {
		t.Fatalf("history %+v", records)
	}
	if records[1].Request != req || records[1].Event.Type != domain.EventStarted || records[1].Time.UnixMilli() != started.Record.Event.Session.UpdatedAt {
		t.Errorf("recorded %+v for %+v", records[1], req)
	}
}

func testSeveralEvents(t *testing.T, one, other *eventstore.Log) {
	id := newID()
	before := mustEnd(t, one)
	got := mustTransact(t, one, request(id, "pat"), imported(id, "pat"))
	if got.Record.Position != before+importedEvents || got.Record.Event.Session.State != domain.StateFinished || got.Record.Event.Session.Version != importedEvents {
		t.Fatalf("imported %+v after %d", got, before)
	}
	if loaded := mustLoad(t, other, id); !sameRecord(loaded, got.Record) {
		t.Errorf("loaded %+v, imported %+v", loaded, got)
	}
	// A second write of several events, so that the chain crosses from one to the
	// other.
	room, reason := "green", "done"
	mustTransact(t, other, request(id, "doc"), func(s domain.Session) ([]domain.Event, error) {
		c := domain.Change{By: by("doc"), Now: now(), Values: domain.Values{Room: &room}}
		c.Values.Stamps[domain.Finish].Reason = &reason
		return domain.Decide(s, c)
	})
	records := history(t, one, id)
	if len(records) != importedEvents+2 {
		t.Fatalf("%d events", len(records))
	}
	var folded domain.Session
	for i, r := range records {
		wantPrevious := r.Position - 1
		if i == 0 {
			wantPrevious = 0
		}
		if r.Previous != wantPrevious || r.Event.Session.Version != uint64(i+1) {
			t.Errorf("event %d: position %d, previous %d, version %d", i, r.Position, r.Previous, r.Event.Session.Version)
		}
		var err error
		if folded, err = domain.Apply(folded, r.Event); err != nil {
			t.Fatal(err)
		}
		if string(folded.AppendJSON(nil)) != string(r.Event.Session.AppendJSON(nil)) {
			t.Errorf("event %d folds to %+v, not to %+v", i, folded, r.Event.Session)
		}
	}
}

func testNotFound(t *testing.T, one, _ *eventstore.Log) {
	id := newID()
	if _, err := one.Load(testContext(t), id); !errors.Is(err, domain.ErrNotFound) {
		t.Errorf("load: %v", err)
	}
	for _, err := range one.History(testContext(t), id) {
		if !errors.Is(err, domain.ErrNotFound) {
			t.Errorf("history: %v", err)
		}
	}
	got, err := one.Transact(testContext(t), request(id, "pat"), change("pat", domain.Start))
	if !errors.Is(err, domain.ErrNotFound) || errors.Is(err, domain.ErrUnavailable) || got.Record.Position != 0 {
		t.Errorf("transact: %+v, %v", got, err)
	}
}

func testInvalidIDs(t *testing.T, one, _ *eventstore.Log) {
	mustTransact(t, one, request("x", "pat"), func(s domain.Session) ([]domain.Event, error) {
		if s.Exists() {
			return nil, nil
		}
		return create("x", "pat")(s)
	})
	for _, id := range []string{"", "*", ">", "x.y", "x ", "x\r\n", "ü", `x"`, `","seq":1,"x":"`, "\x00"} {
		if _, err := one.Load(testContext(t), id); !errors.Is(err, domain.ErrNotFound) {
			t.Errorf("load %q: %v", id, err)
		}
		if _, err := one.Transact(testContext(t), request(id, "pat"), change("pat", domain.Start)); !errors.Is(err, domain.ErrNotFound) {
			t.Errorf("transact %q: %v", id, err)
		}
	}
	for _, id := range []string{"", "*", "x.y"} {
		if got, err := one.Transact(testContext(t), request(id, "pat"), create(id, "pat")); err == nil {
			t.Errorf("created %q: %+v", id, got)
		}
	}
}

func testAppendsNothing(t *testing.T, one, other *eventstore.Log) {
	id := newID()
	created := mustTransact(t, one, request(id, "pat"), create(id, "pat"))
	end := mustEnd(t, one)
	got := mustTransact(t, other, request(id, "doc"), change("doc"))
	if !sameRecord(got.Record, created.Record) {
		t.Errorf("a change of nothing gave %+v, not %+v", got, created)
	}
	refusal := fmt.Errorf("refused")
	got, err := other.Transact(testContext(t), request(id, "doc"), func(domain.Session) ([]domain.Event, error) { return nil, refusal })
	if !errors.Is(err, refusal) || !sameRecord(got.Record, created.Record) {
		t.Errorf("a refusal gave %+v and %v", got, err)
	}
	if got := mustEnd(t, one); got != end {
		t.Errorf("the log went from %d to %d", end, got)
	}
}

func testDecidesAgain(t *testing.T, one, other *eventstore.Log) {
	id := newID()
	mustTransact(t, one, request(id, "pat"), create(id, "pat"))
	calls := 0
	got := mustTransact(t, one, request(id, "doc"), func(s domain.Session) ([]domain.Event, error) {
		if calls++; calls == 1 {
			mustTransact(t, other, request(id, "eve"), setRoom("overtaken"))
		}
		return change("doc", domain.Start)(s)
	})
	if calls < 2 || got.Record.Event.Session.Room != "overtaken" || got.Record.Event.Session.State != domain.StateStarted || got.Record.Event.Session.Version != 3 {
		t.Errorf("decided %d times: %+v", calls, got)
	}
}

func testRefusalIsConfirmed(t *testing.T, one, other *eventstore.Log) {
	id := newID()
	mustTransact(t, one, request(id, "pat"), create(id, "pat"))
	calls := 0
	got, err := one.Transact(testContext(t), request(id, "doc"), func(s domain.Session) ([]domain.Event, error) {
		if calls++; calls == 1 {
			mustTransact(t, other, request(id, "eve"), setRoom("newer"))
		}
		return nil, fmt.Errorf("refused in room %q", s.Room)
	})
	if err == nil || err.Error() != `refused in room "newer"` || got.Record.Event.Session.Room != "newer" {
		t.Errorf("%+v, %v", got, err)
	}
}

func testOneWins(t *testing.T, one, other *eventstore.Log) {
	id := newID()
	mustTransact(t, one, request(id, "pat"), create(id, "pat"))
	mustTransact(t, one, request(id, "pat"), change("pat", domain.Start))
	const writers = 50
	errs := make([]error, writers)
	var group sync.WaitGroup
	for i := range writers {
		group.Go(func() {
			l := []*eventstore.Log{one, other}[i%2]
			account := fmt.Sprintf("doc%d", i)
			_, errs[i] = l.Transact(testContext(t), request(id, account), change(account, domain.Accept))
		})
	}
	group.Wait()
	winner := slices.Index(errs, nil)
	if winner < 0 {
		t.Fatalf("nobody won: %v", errs[0])
	}
	for i, err := range errs {
		if i == winner {
			continue
		}
		var illegal *domain.IllegalTransitionError
		if !errors.As(err, &illegal) {
			t.Fatalf("writer %d: %v", i, err)
		}
		if stamp := illegal.Session.Stamps[domain.Accept]; stamp == nil || stamp.By != fmt.Sprintf("doc%d", winner) {
			t.Errorf("writer %d lost to %+v, not to doc%d", i, stamp, winner)
		}
	}
	if s := mustLoad(t, one, id).Event.Session; s.Version != 3 {
		t.Errorf("%d events", s.Version)
	}
}

func testAllApplied(t *testing.T, one, other *eventstore.Log) {
	id := newID()
	mustTransact(t, one, request(id, "pat"), create(id, "pat"))
	const writers, rounds = 8, 5
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			l := []*eventstore.Log{one, other}[w%2]
			for r := range rounds {
				if _, err := l.Transact(testContext(t), request(id, "doc"), setRoom(fmt.Sprintf("%d-%d", w, r))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	rooms := map[string]bool{}
	for _, r := range history(t, one, id)[1:] {
		rooms[r.Event.Session.Room] = true
	}
	if v := mustLoad(t, one, id).Event.Session.Version; v != 1+writers*rounds || len(rooms) != writers*rounds {
		t.Errorf("%d events, %d rooms", v, len(rooms))
	}
}

func testManyBatches(t *testing.T, one, other *eventstore.Log) {
	var group sync.WaitGroup
	for i := range 120 {
		group.Go(func() {
			id := newID()
			l := []*eventstore.Log{one, other}[i%2]
			if got, err := l.Transact(testContext(t), request(id, "pat"), imported(id, "pat")); err != nil || got.Record.Event.Session.Version != importedEvents {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
	group.Wait()
}

func testReplay(t *testing.T, one, other *eventstore.Log) {
	single, several := newID(), newID()
	createSingle := keyed(single, "pat", "k", "body")
	createSeveral := keyed(several, "pat", "k", "body")
	start := keyed(single, "doc", "k", "start")
	finish := keyed(single, "doc", "k2", "accept and finish")
	first := map[domain.Request]domain.Result{
		createSingle:  mustTransact(t, one, createSingle, create(single, "pat")),
		createSeveral: mustTransact(t, one, createSeveral, imported(several, "pat")),
		start:         mustTransact(t, other, start, change("doc", domain.Start)),
		finish:        mustTransact(t, other, finish, change("doc", domain.Accept, domain.Finish)),
	}
	check := func() {
		t.Helper()
		end := mustEnd(t, one)
		for req, want := range first {
			for _, l := range []*eventstore.Log{one, other} {
				again := req
				again.CorrelationID = "another"
				got := mustTransact(t, l, again, func(domain.Session) ([]domain.Event, error) { return nil, fmt.Errorf("decided anew") })
				if !sameRecord(got.Record, want.Record) {
					t.Errorf("replayed %+v, first answered %+v", got, want)
				}
			}
		}
		if got := mustEnd(t, one); got != end {
			t.Errorf("replays wrote: the log went from %d to %d", end, got)
		}
	}
	check()
	for i := range 5 {
		mustTransact(t, one, request(single, "doc"), setRoom(fmt.Sprint(i)))
		mustTransact(t, one, request(several, "doc"), setRoom(fmt.Sprint(i)))
	}
	check()
}

func testKeyReused(t *testing.T, one, other *eventstore.Log) {
	id := newID()
	mustTransact(t, one, keyed(id, "pat", "k", "body"), create(id, "pat"))
	start := keyed(id, "pat", "k2", "start")
	mustTransact(t, one, start, change("pat", domain.Start))
	end := mustEnd(t, one)
	for _, req := range []domain.Request{keyed(id, "pat", "k", "other"), keyed(id, "pat", "k2", "other")} {
		if _, err := other.Transact(testContext(t), req, change("pat", domain.Accept)); !errors.Is(err, domain.ErrKeyReused) {
			t.Errorf("%v", err)
		}
	}
	// A key that was refused is not remembered.
	refused := keyed(id, "pat", "k3", "start")
	if _, err := one.Transact(testContext(t), refused, change("pat", domain.Start)); err == nil {
		t.Error("started twice")
	}
	if got := mustEnd(t, one); got != end {
		t.Errorf("the log went from %d to %d", end, got)
	}
	refused.Digest = keyed(id, "pat", "k3", "accept").Digest
	if got := mustTransact(t, one, refused, change("pat", domain.Accept)); got.Record.Event.Session.State != domain.StateAccepted {
		t.Errorf("%+v", got)
	}
}

func testSameKeyAtOnce(t *testing.T, one, other *eventstore.Log) {
	atOnce := func(req domain.Request, decide func(domain.Session) ([]domain.Event, error)) []domain.Result {
		answers := make([]domain.Result, 20)
		var group sync.WaitGroup
		for i := range answers {
			group.Go(func() {
				var err error
				if answers[i], err = []*eventstore.Log{one, other}[i%2].Transact(testContext(t), req, decide); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		for _, a := range answers {
			if !sameRecord(a.Record, answers[0].Record) {
				t.Errorf("one was answered %+v, another %+v", answers[0], a)
			}
		}
		return answers
	}
	id := newID()
	before := mustEnd(t, one)
	atOnce(keyed(id, "pat", "k", "body"), imported(id, "pat"))
	if v := mustLoad(t, one, id).Event.Session.Version; v != importedEvents {
		t.Errorf("%d events", v)
	}
	patched := newID()
	mustTransact(t, one, request(patched, "pat"), create(patched, "pat"))
	atOnce(keyed(patched, "pat", "k", "body"), change("pat", domain.Start, domain.Accept))
	if v := mustLoad(t, one, patched).Event.Session.Version; v != 3 {
		t.Errorf("%d events", v)
	}
	if end := mustEnd(t, one); end != before+importedEvents+3 {
		t.Errorf("the log went from %d to %d", before, end)
	}
}
