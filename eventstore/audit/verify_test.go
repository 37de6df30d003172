package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"chatsessions/domain"
	"chatsessions/eventstore"
	"chatsessions/eventstore/embedded"
	"chatsessions/eventstore/envelope"
	"chatsessions/eventstore/natstest"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"
)

// memories are how much a verification keeps in mind: as much as usual, and so little
// that it has to read again what it has forgotten.
var memories = map[string]int{"with the usual memory": 0, "with no memory": 1}

// unpaced is for a reader that is not slowed.
func unpaced(context.Context, int) error { return nil }

// defectsOf verifies a log, and returns what it says.
func defectsOf(t testing.TB, l *eventstore.Log, memory int) ([]domain.Defect, Verified) {
	t.Helper()
	var defects []domain.Defect
	progress := uint64(0)
	done, err := Verify(t.Context(), l, VerifyOptions{
		Memory: memory, Pace: unpaced,
		Defect: func(d domain.Defect) error { defects = append(defects, d); return nil },
		Progress: func(position, end uint64) {
			if position < progress || position > end {
				t.Errorf("progress went from %d to %d of %d", progress, position, end)
			}
			progress = position
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if done.Defects != uint64(len(defects)) || progress != done.End {
		t.Errorf("%+v with %d defects, read to %d", done, len(defects), progress)
	}
	return defects, done
}

// randomCommand may be refused.
func randomCommand(t *rapid.T, id string, s domain.Session, now int64) domain.Command {
	accounts := rapid.SampledFrom([]string{"pat", "doc", "eve"})
	by := domain.Caller{Account: accounts.Draw(t, "account"), Role: domain.RoleService}
	given := func(name string) bool { return rapid.IntRange(0, 4).Draw(t, name) == 0 }
	var v domain.Values
	if given("room") {
		v.Room = new(rapid.SampledFrom([]string{"", "a", "zażółć \"7\"\n"}).Draw(t, "room"))
	}
	if given("type") {
		v.Type = new(rapid.SampledFrom([]string{"", "telemed"}).Draw(t, "type"))
	}
	if given("participants") {
		v.Participants = new(rapid.SliceOfNDistinct(accounts, 0, 3, rapid.ID[string]).Draw(t, "participants"))
	}
	for _, tr := range domain.Transitions() {
		if !given(tr.AtField()) {
			continue
		}
		v.Stamps[tr].At = new(now - rapid.Int64Range(0, 5).Draw(t, tr.AtField()))
		if tr.ReasonField() != "" && given(tr.ReasonField()) {
			v.Stamps[tr].Reason = new("because")
		}
	}
	if !s.Exists() {
		v.CreatedAt = new(now - 10)
		return domain.Create{ID: id, By: by, Now: now, Values: v}
	}
	c := domain.Change{By: by, Now: now, Values: v}
	for _, tr := range domain.Transitions() {
		c.Directives[tr].Asked = given(tr.String())
	}
	return c
}

// TestAnHonestLogHasNoDefect: random histories of sessions that are written in turns,
// each command with all its events in one atomic write.
func TestAnHonestLogHasNoDefect(t *testing.T) {
	e, err := embedded.Start(t.Context(), embedded.Options{
		StoreDir: t.TempDir(), User: "u", Password: "p", Sync: func(string, func() error) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Shutdown)
	nc, err := e.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	l, err := eventstore.Open(t.Context(), nc, eventstore.Options{OnlyWriter: true, Durability: e})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	for name, memory := range memories {
		if defects, done := defectsOf(t, l, memory); len(defects) > 0 || done != (Verified{}) {
			t.Errorf("%s, an empty log: %+v, %+v", name, done, defects)
		}
	}
	sessions, types := map[string]bool{}, map[domain.EventType]int{}
	events, batches := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		ids := make([]string, rapid.IntRange(10, 40).Draw(rt, "sessions"))
		for i := range ids {
			ids[i] = uuid.Must(uuid.NewV7()).String()
		}
		for range rapid.IntRange(len(ids), 5*len(ids)).Draw(rt, "commands") {
			id := rapid.SampledFrom(ids).Draw(rt, "session")
			now := 1_000_000 + rapid.Int64Range(0, 10).Draw(rt, "now")
			before := events
			_, err := l.Transact(t.Context(), domain.Request{SessionID: id, Actor: "pat", CorrelationID: "c"}, func(s domain.Session) ([]domain.Event, error) {
				decided, err := domain.Decide(s, randomCommand(rt, id, s, now))
				for _, e := range decided {
					events++
					types[e.Type]++
					sessions[id] = true
				}
				return decided, err
			})
			if err != nil && !domain.IsRefusal(err) {
				rt.Fatal(err)
			}
			if events > before+1 {
				batches++
			}
		}
	})
	t.Logf("%d sessions, %d events (%v), %d atomic writes of several", len(sessions), events, types, batches)
	if len(sessions) < 1000 || len(types) != 7 || batches < 100 {
		t.Fatal("these are too few")
	}
	want := Verified{End: uint64(events), Events: uint64(events), Sessions: uint64(len(sessions))}
	for name, memory := range memories {
		if defects, done := defectsOf(t, l, memory); len(defects) > 0 || done != want {
			t.Errorf("%s: %+v, want %+v: %+v", name, done, want, defects)
		}
	}
}

// TestEveryKindOfDefectIsToldAndNothingElse writes each defect into a copy of a log.
func TestEveryKindOfDefectIsToldAndNothingElse(t *testing.T) {
	s := natstest.Start(t, natstest.Config{})
	nc, err := eventstore.Connect(t.Context(), eventstore.ConnectOptions{URL: s.URL()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	honest := honestLog(t, nc)
	kinds := map[domain.DefectKind]bool{domain.DefectMissing: true} // see below
	for name, forge := range forgeries {
		t.Run(name, func(t *testing.T) {
			if err := js.DeleteStream(t.Context(), eventstore.StreamName); err != nil {
				t.Fatal(err)
			}
			l, err := eventstore.Open(t.Context(), nc, eventstore.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			f := &forgery{t: t, msgs: copied(honest)}
			forge(f)
			for _, m := range f.msgs {
				if _, err := js.PublishMsg(t.Context(), m); err != nil {
					t.Fatal(err)
				}
			}
			for name, memory := range memories {
				defects, done := defectsOf(t, l, memory)
				if !sameDefects(defects, f.want) || done.End != uint64(len(f.msgs)) {
					t.Errorf("%s: %+v\n%+v, want\n%+v", name, done, defects, f.want)
				}
			}
			for _, d := range f.want {
				kinds[d.Kind] = true
			}
		})
	}
	for _, kind := range domain.DefectKinds() {
		if !kinds[kind] {
			t.Errorf("no log has a defect of kind %s", kind)
		}
	}
}

// sameDefects reports whether the defects are the wanted ones, and their details contain the
// wanted text.
func sameDefects(got, want []domain.Defect) bool {
	return slices.EqualFunc(got, want, func(got, want domain.Defect) bool {
		says := want.Detail
		want.Detail = got.Detail
		return got == want && strings.Contains(got.Detail, says)
	})
}

// TestWhatIsMissingIsTold: messages were removed from the log.
func TestWhatIsMissingIsTold(t *testing.T) {
	s := natstest.Start(t, natstest.Config{})
	nc, err := eventstore.Connect(t.Context(), eventstore.ConnectOptions{URL: s.URL()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	whole := sixMessages(t, nc)
	missing := func(position uint64, says string) domain.Defect {
		return domain.Defect{Kind: domain.DefectMissing, Position: position, Detail: says}
	}
	for name, test := range map[string]struct {
		remove []uint64
		want   []domain.Defect
	}{
		"nothing":         {},
		"everything":      {[]uint64{1, 2, 3, 4, 5, 6}, []domain.Defect{missing(1, "at positions 1 to 6")}},
		"the end":         {[]uint64{6}, []domain.Defect{missing(6, "at this position")}},
		"one in between":  {[]uint64{1}, []domain.Defect{missing(1, "at this position"), {Kind: domain.DefectPrevious, SessionID: accepted, Position: 6, Detail: "where there is no message"}}},
		"half of a write": {[]uint64{4, 5}, []domain.Defect{missing(4, "at positions 4 to 5"), missing(3, "the rest of that write")}},
		"the end of one":  {[]uint64{5, 6}, []domain.Defect{missing(4, "the rest of that write"), missing(5, "at positions 5 to 6")}},
	} {
		t.Run(name, func(t *testing.T) {
			l := openWithout(t, nc, whole, test.remove)
			for name, memory := range memories {
				defects, done := defectsOf(t, l, memory)
				if !sameDefects(defects, test.want) || done.End != 6 || done.Events != uint64(6-len(test.remove)) {
					t.Errorf("%s: %+v\n%+v, want\n%+v", name, done, defects, test.want)
				}
			}
		})
	}
}

// TestWhatIsKeptOfSessionsIsCountedAsTheyGrow, so that it stays within its memory.
func TestWhatIsKeptOfSessionsIsCountedAsTheyGrow(t *testing.T) {
	const sessions = 100
	r := newRecentStates(2 * sessions * 1500)
	state := func(room string, folded bool) *lastState {
		s := &lastState{session: &domain.Session{Room: room}}
		if folded {
			s.folded = s.session
		}
		return s
	}
	putAll := func(room string, folded bool) (dropped int) {
		for i := range sessions {
			dropped += len(r.put(fmt.Sprint(i), state(room, folded)))
		}
		return dropped
	}
	putAll("", false)
	small := r.used
	if putAll("", false); r.used != small || len(r.newer) != sessions || len(r.older) != 0 {
		t.Errorf("%d bytes, and %d when put once more; %d and %d sessions", small, r.used, len(r.newer), len(r.older))
	}
	room := strings.Repeat("r", 100)
	if putAll(room, false); r.used != small+sessions*len(room) {
		t.Errorf("%d bytes of %d, and each has grown by %d", r.used, small, len(room))
	}
	if putAll(room, true); len(r.older) == 0 {
		t.Errorf("%d bytes of %d, with what the changes fold to", r.used, r.capacity)
	}
	if dropped := putAll("", false); len(r.newer) == 0 || r.used > r.capacity {
		t.Errorf("%d bytes of %d, %d dropped", r.used, r.capacity, dropped)
	}
	if dropped := putAll(strings.Repeat("r", 50_000), false); dropped == 0 || r.used > r.capacity {
		t.Errorf("%d bytes of %d, %d dropped", r.used, r.capacity, dropped)
	}
}

// sixMessages writes a log of six messages, four of them by one atomic write, and returns
// them as the stream stores them.
func sixMessages(t *testing.T, nc *nats.Conn) (all []*nats.Msg) {
	t.Helper()
	l, err := eventstore.Open(t.Context(), nc, eventstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	pat := domain.Caller{Account: "pat", Role: domain.RoleService}
	write := func(id string, c domain.Command) {
		_, err := l.Transact(t.Context(), domain.Request{SessionID: id, Actor: "pat"}, func(s domain.Session) ([]domain.Event, error) { return domain.Decide(s, c) })
		if err != nil {
			t.Fatal(err)
		}
	}
	created := domain.Create{ID: accepted, By: pat, Now: 1000}
	write(accepted, created)
	created.ID = imported
	for _, tr := range []domain.Transition{domain.Start, domain.Accept, domain.Finish} {
		created.Values.Stamps[tr].At = new(int64(1000))
	}
	write(imported, created)
	started := domain.Change{By: pat, Now: 2000}
	started.Directives[domain.Start].Asked = true
	write(accepted, started)
	err = l.ReadMessages(t.Context(), 6, 6, func(msgs []*envelope.Message) error {
		for _, m := range msgs {
			all = append(all, &nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Data})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// openWithout opens a log of these messages, of which some were removed.
func openWithout(t *testing.T, nc *nats.Conn, msgs []*nats.Msg, removed []uint64) *eventstore.Log {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), eventstore.StreamName)
	if err != nil {
		t.Fatal(err)
	}
	config := stream.CachedInfo().Config
	if err := js.DeleteStream(t.Context(), eventstore.StreamName); err != nil {
		t.Fatal(err)
	}
	config.DenyDelete = false
	if stream, err = js.CreateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	for _, m := range msgs {
		if _, err := nc.RequestMsgWithContext(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	for _, sequence := range removed {
		if err := stream.DeleteMsg(t.Context(), sequence); err != nil {
			t.Fatal(err)
		}
	}
	config.DenyDelete = true
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	l, err := eventstore.Open(t.Context(), nc, eventstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestVerifyReadsOnAfterALostConnection, and ends with what the one who is told says.
func TestVerifyReadsOnAfterALostConnection(t *testing.T) {
	s := natstest.Start(t, natstest.Config{})
	nc, err := eventstore.Connect(t.Context(), eventstore.ConnectOptions{URL: s.URL()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	l, err := eventstore.Open(t.Context(), nc, eventstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	ids := make([]string, 10*batchSize/4)
	pat := domain.Caller{Account: "pat", Role: domain.RoleService}
	var writing errgroup.Group
	writing.SetLimit(16) // a Log has that many atomic writes in flight
	for i := range ids {
		writing.Go(func() error {
			id := uuid.Must(uuid.NewV7()).String()
			c := domain.Create{ID: id, By: pat, Now: 1000}
			for _, tr := range []domain.Transition{domain.Start, domain.Reject, domain.Finish} {
				c.Values.Stamps[tr].At = new(int64(1000))
			}
			_, err := l.Transact(t.Context(), domain.Request{SessionID: id, Actor: "pat", New: i%2 == 0}, func(s domain.Session) ([]domain.Event, error) {
				return domain.Decide(s, c)
			})
			return err
		})
	}
	if err := writing.Wait(); err != nil {
		t.Fatal(err)
	}
	cut := false
	done, err := Verify(t.Context(), l, VerifyOptions{
		Pace:   unpaced,
		Defect: func(d domain.Defect) error { return fmt.Errorf("is no defect: %+v", d) },
		Progress: func(position, end uint64) {
			if position > 0 && !cut {
				cut = true
				s.Restart()
			}
		},
	})
	want := uint64(4 * len(ids))
	if err != nil || !cut || done != (Verified{End: want, Events: want, Sessions: uint64(len(ids))}) {
		t.Errorf("%+v, %v, want %d events", done, err, want)
	}

	if _, err := nc.Request(envelope.Subject("nobody"), []byte("hello"), time.Second); err != nil {
		t.Fatal(err)
	}
	enough := errors.New("enough")
	if _, err := Verify(t.Context(), l, VerifyOptions{
		Pace: unpaced, Progress: func(uint64, uint64) {},
		Defect: func(domain.Defect) error { return enough },
	}); !errors.Is(err, enough) {
		t.Errorf("%v", err)
	}
}
