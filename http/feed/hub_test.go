package feed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"chatsessions/domain"
	"chatsessions/http/feed/feedtest"
	"chatsessions/http/problem"
)

// A hubRig is a hub over a scripted log, with readers over real connections.
type hubRig struct {
	*Hub
	t      *testing.T
	log    *scriptedLog
	tokens *tokens
	listen net.Listener
	pair   sync.Mutex // of the ends of one connection
}

// newHubRig starts a hub; change may make its limits smaller. At the end everything of
// it has to be gone.
func newHubRig(t *testing.T, change func(*limits)) *hubRig {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	rig := &hubRig{t: t, log: newScriptedLog(), tokens: &tokens{}}
	rig.Hub = NewHub(Config{Log: rig.log, Tokens: rig.tokens, Logger: slog.New(slog.DiscardHandler), Beat: time.Minute})
	if change != nil {
		change(&rig.limits)
	}
	var err error
	if rig.listen, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		rig.Close(context.Background()) // that of the test has ended
		_ = rig.listen.Close()
		if n := rig.Stats().Readers; n != 0 {
			t.Errorf("%d readers are left", n)
		}
		goleak.VerifyNone(t, leaks)
	})
	return rig
}

// connect opens a stream after a position, and returns the client's end of it. buffer,
// if not 0, is how little its system takes in for a client that does not read.
func (rig *hubRig) connect(caller domain.Caller, after uint64, query string, buffer int) *net.TCPConn {
	rig.t.Helper()
	q, err := parseQuery(query)
	if err != nil {
		rig.t.Fatal(err)
	}
	rig.pair.Lock()
	theirs, err := net.Dial("tcp", rig.listen.Addr().String())
	if err != nil {
		rig.t.Fatal(err)
	}
	rig.t.Cleanup(func() { theirs.Close() })
	if buffer > 0 {
		_ = theirs.(*net.TCPConn).SetReadBuffer(buffer)
	}
	ours, err := rig.listen.Accept()
	rig.pair.Unlock()
	if err != nil {
		rig.t.Fatal(err)
	}
	token := fmt.Sprint(caller)
	rig.tokens.LoadOrStore(token, caller)
	r := &reader{query: q, caller: caller, token: token, after: after}
	r.take(ours)
	end, _ := rig.log.End(rig.t.Context())
	rig.open(r, end, preamble(after))
	return theirs.(*net.TCPConn)
}

var everybody = domain.Caller{Account: "crm", Role: domain.RoleService}

func account(uid string) domain.Caller { return domain.Caller{Account: uid, Role: domain.RoleAccount} }

// expected is what a caller gets after a position, by the rules as docs/api.md has them.
// What is of sessions that he lost sight of later he may lack: a reader that is behind
// does not get it.
func expected(events []domain.Entry, caller domain.Caller, after uint64, query string) (want []uint64, mayLack map[uint64]bool) {
	lost := map[string]bool{}
	mayLack = map[uint64]bool{}
	for i := range slices.Backward(events) {
		s := &events[i].Record.Event.Session
		lost[s.ID] = lost[s.ID] || !caller.MaySee(s)
		mayLack[events[i].Record.Position] = lost[s.ID]
	}
	for i := range events {
		s, actor := &events[i].Record.Event.Session, events[i].Record.Request.Actor
		name, value, _ := strings.Cut(query, "=")
		asked := query == "" ||
			name == "session" && s.ID == value ||
			name == "account" && (actor == value || s.CreatedBy == value || slices.Contains(s.Participants, value)) ||
			name == "type" && string(events[i].Record.Event.Type) == value
		if asked && events[i].Record.Position > after && caller.MaySee(s) {
			want = append(want, events[i].Record.Position)
		}
	}
	return want, mayLack
}

// difference says where a reader did not get what it was to get, "" for nowhere.
func difference(got, want []uint64, mayLack map[uint64]bool) string {
	for _, position := range want {
		switch {
		case len(got) > 0 && got[0] == position:
			got = got[1:]
		case !mayLack[position]:
			return fmt.Sprintf("it lacks %d, before %v", position, got[:min(5, len(got))])
		}
	}
	if len(got) > 0 {
		return fmt.Sprintf("got %v besides", got[:min(5, len(got))])
	}
	return ""
}

// position of an event, as its id and as the CloudEvent in it say.
func position(t *testing.T, e feedtest.Event) uint64 {
	t.Helper()
	var data struct{ Position, Type, Specversion string }
	if err := json.Unmarshal([]byte(e.Data), &data); err != nil || data.Position != e.ID || data.Type != e.Type || data.Specversion != "1.0" {
		t.Errorf("%+v is not an event with its CloudEvent: %v", e, err)
	}
	n, err := strconv.ParseUint(e.ID, 10, 64)
	if err != nil {
		t.Error(err)
	}
	return n
}

// lastEvent is what the last event of a stream says.
func lastEvent(t *testing.T, e feedtest.Event) problem.Problem {
	t.Helper()
	var p problem.Problem
	if err := json.Unmarshal([]byte(e.Data), &p); err != nil || e.Type != "cut-off" || p.LastEventID != e.ID || p.Detail == "" || p.ClassName == "" {
		t.Errorf("%+v is not the last event of a stream: %v", e, err)
	}
	return p
}

var uuids = func() (ids []string) {
	for i := range 10 {
		ids = append(ids, fmt.Sprintf("01a2046e-fd39-71e3-9cc1-ab41776b07%02d", i))
	}
	return ids
}()

// TestEveryReaderGetsEveryEventOnceAndInOrder has readers that come and go at random,
// with filters, from the past and from now, quick and slow, while events are written, and
// a hub that keeps so little that they all end up everywhere.
func TestEveryReaderGetsEveryEventOnceAndInOrder(t *testing.T) {
	const total, readers = 1500, 25
	rig := newHubRig(t, func(l *limits) { l.batch, l.ringEvents, l.stepEvents, l.lookups, l.groups = 7, 60, 200, 100, 3 })
	accounts := []string{"alice", "bob", "carol", "dave"}
	var running sync.WaitGroup
	running.Go(func() {
		r := rand.New(rand.NewPCG(1, 2))
		for i := range total {
			who := slices.Clone(accounts)
			r.Shuffle(len(who), func(i, j int) { who[i], who[j] = who[j], who[i] })
			rig.log.append(uuids[r.IntN(len(uuids))], accounts[r.IntN(4)], who[:r.IntN(4)]...)
			if i%100 == 0 {
				time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond)
			}
		}
	})
	type client struct {
		caller domain.Caller
		query  string
		after  uint64
		got    []uint64
	}
	clients := make([]*client, readers)
	for i := range clients {
		r := rand.New(rand.NewPCG(uint64(i), 7))
		c := &client{caller: everybody, query: []string{"", "session=" + uuids[i%10], "account=bob", "type=chat-session.created", "account=carol"}[i%5]}
		if i%3 == 0 {
			c.caller = account(accounts[i%4])
		}
		if end, _ := rig.log.End(t.Context()); i%2 == 0 {
			c.after = end / 2
		}
		clients[i] = c
		running.Go(func() {
			for at := c.after; at < total; {
				conn := rig.connect(c.caller, at, c.query, 64<<10)
				stream := feedtest.NewStream(conn)
				for n := r.IntN(600) + 1; n > 0 && at < total; n-- {
					_ = conn.SetReadDeadline(time.Now().Add(time.Duration(r.IntN(200)+100) * time.Millisecond))
					e, dispatched, err := stream.Step()
					if err != nil { // nothing comes now; what was cut comes again
						break
					}
					if dispatched && e.Type != "cut-off" {
						c.got = append(c.got, position(t, e))
					}
					if n%50 == 0 {
						time.Sleep(time.Millisecond)
					}
					if at, err = strconv.ParseUint(stream.LastEventID, 10, 64); err != nil {
						t.Error(err)
					}
				}
				_ = conn.Close()
				if want, mayLack := expected(rig.log.snapshot(), c.caller, c.after, c.query); rig.head() == total && difference(c.got, want, mayLack) == "" {
					return
				}
			}
		})
	}
	running.Wait()
	for i, c := range clients {
		want, mayLack := expected(rig.log.snapshot(), c.caller, c.after, c.query)
		if wrong := difference(c.got, want, mayLack); wrong != "" {
			t.Errorf("reader %d (%v, %q after %d) got %d events of %d: %s", i, c.caller, c.query, c.after, len(c.got), len(want), wrong)
		}
	}
	t.Logf("the log was followed %d times, read %d times, %d histories; %+v", rig.log.follows.Load(), rig.log.reads.Load(), rig.log.histories.Load(), rig.Stats())
	if rig.log.reads.Load() == 0 || rig.log.histories.Load() == 0 {
		t.Error("nobody had to catch up")
	}
}

// head is how far the hub has read, 0 when it does not.
func (rig *hubRig) head() uint64 {
	rig.mu.Lock()
	g := rig.reading
	rig.mu.Unlock()
	if g == nil {
		return 0
	}
	return g.head()
}

func TestASlowReaderIsCutOffBehindWhatItWasSent(t *testing.T) {
	rig := newHubRig(t, func(l *limits) { l.ringEvents, l.patience = 200, 300*time.Millisecond })
	slow := rig.connect(everybody, 0, "", 64<<10)
	quick := feedtest.NewStream(rig.connect(everybody, 0, "", 0))
	for want := uint64(1); want <= 3000; want++ { // the slow one is nothing to the other
		if want%50 == 1 {
			for range 50 {
				rig.log.append(uuids[0], "alice")
			}
		}
		if e, err := quick.Next(); err != nil || position(t, e) != want {
			t.Fatalf("%+v %v, want %d", e, err, want)
		}
	}
	eventually(t, "the slow reader is cut off", func() bool { return rig.Stats().TooSlow == 1 })
	stream := feedtest.NewStream(slow)
	last := uint64(0)
	for {
		e, err := stream.Next()
		if err != nil {
			t.Fatalf("after %d: %v", last, err)
		}
		if e.Type == "cut-off" {
			if p := lastEvent(t, e); e.ID != fmt.Sprint(last) || p.Status != 503 || !strings.Contains(p.Detail, "read more slowly") {
				t.Errorf("behind event %d: %+v", last, e)
			}
			break
		}
		if position(t, e) != last+1 {
			t.Fatalf("%s after %d", e.ID, last)
		}
		last++
	}
	if _, err := stream.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last event: %v", err)
	}
	if last == 0 || last == 3000 {
		t.Errorf("cut off after %d events", last)
	}
	t.Logf("cut off after %d of 3000 events", last)
	again := feedtest.NewStream(rig.connect(everybody, last, "", 0))
	if e, err := again.Next(); err != nil || position(t, e) != last+1 {
		t.Errorf("resumed with %+v %v", e, err)
	}
}

func TestNothingIsShownBeforeItIsDurable(t *testing.T) {
	rig := newHubRig(t, nil)
	conn := rig.connect(everybody, 0, "", 0)
	stream := feedtest.NewStream(conn)
	if _, _, err := stream.Step(); err != nil { // what a stream begins with
		t.Fatal(err)
	}
	gate := make(chan struct{})
	rig.log.mu.Lock()
	rig.log.gate = gate
	rig.log.mu.Unlock()
	rig.log.append(uuids[0], "alice")
	late := rig.connect(everybody, 0, "", 0) // neither to one that comes now
	for _, c := range []*net.TCPConn{conn, late} {
		_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		text, _ := io.ReadAll(c)
		if strings.Contains(string(text), "data:") {
			t.Errorf("shown before it is durable: %s", text)
		}
		_ = c.SetReadDeadline(time.Time{})
	}
	close(gate)
	for _, c := range []*net.TCPConn{conn, late} {
		if e, err := feedtest.NewStream(c).Next(); err != nil || position(t, e) != 1 {
			t.Errorf("%+v %v", e, err)
		}
	}
}

func TestManyReadersShareOneReadingWhichEndsWithThem(t *testing.T) {
	rig := newHubRig(t, func(l *limits) { l.heartbeat = 50 * time.Millisecond })
	for round := int64(1); round <= 2; round++ {
		var conns []*net.TCPConn
		for range 100 {
			conns = append(conns, rig.connect(everybody, 0, "", 0))
		}
		at := rig.log.append(uuids[0], "alice")
		for _, c := range conns {
			stream := feedtest.NewStream(c)
			for last := uint64(0); last < at; {
				e, err := stream.Next()
				if err != nil {
					t.Fatal(err)
				}
				last = position(t, e)
			}
		}
		if got := rig.log.follows.Load(); got != round {
			t.Errorf("the log was followed %d times by 100 readers, in round %d", got, round)
		}
		for _, c := range conns {
			_ = c.Close()
		}
		eventually(t, "the clients are missed, and the reading ends", func() bool {
			rig.mu.Lock()
			defer rig.mu.Unlock()
			return rig.reading == nil && rig.counts.readers.Load() == 0
		})
	}
	if got := rig.Stats(); got.Gone != 200 || got.Sent != 100+2*100 {
		t.Errorf("%+v", got)
	}
}

func TestAHeartbeatMovesThePlaceOfAReaderWithFilters(t *testing.T) {
	rig := newHubRig(t, func(l *limits) { l.heartbeat = 30 * time.Millisecond })
	stream := feedtest.NewStream(rig.connect(account("nobody"), 0, "", 0))
	for range 5 {
		rig.log.append(uuids[0], "alice", "bob")
	}
	for stream.LastEventID != "5" || stream.Comments < 4 {
		if e, dispatched, err := stream.Step(); err != nil || dispatched {
			t.Fatalf("%+v %v", e, err)
		}
	}
}

func TestATokenThatIsTakenBackEndsItsStreams(t *testing.T) {
	rig := newHubRig(t, func(l *limits) { l.heartbeat = 30 * time.Millisecond })
	bob, carol := account("bob"), account("carol")
	ended := feedtest.NewStream(rig.connect(bob, 0, "", 0))
	changed := feedtest.NewStream(rig.connect(carol, 0, "", 0))
	stays := feedtest.NewStream(rig.connect(everybody, 0, "", 0))
	rig.tokens.Delete(fmt.Sprint(bob))
	rig.tokens.Store(fmt.Sprint(carol), domain.Caller{Account: "carol", Role: domain.RoleAdmin})
	for _, s := range []*feedtest.Stream{ended, changed} {
		e, err := s.Next()
		if err != nil || lastEvent(t, e).Status != 401 {
			t.Errorf("%+v %v", e, err)
		}
		if _, err := s.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("after the last event: %v", err)
		}
	}
	rig.log.append(uuids[0], "alice")
	if e, err := stays.Next(); err != nil || position(t, e) != 1 {
		t.Errorf("%+v %v", e, err)
	}
}

func TestALostLogEndsTheStreamsAndANewReaderBeginsAnew(t *testing.T) {
	rig := newHubRig(t, nil)
	rig.log.append(uuids[0], "alice")
	stream := feedtest.NewStream(rig.connect(everybody, 0, "", 0))
	if e, err := stream.Next(); err != nil || position(t, e) != 1 {
		t.Fatalf("%+v %v", e, err)
	}
	rig.log.lose(errors.New("the log was rewritten"))
	if e, err := stream.Next(); err != nil || lastEvent(t, e).Status != 503 || e.ID != "1" {
		t.Errorf("%+v %v", e, err)
	}
	refused := feedtest.NewStream(rig.connect(everybody, 0, "", 0))
	if e, err := refused.Next(); err != nil || e.Type != "cut-off" {
		t.Errorf("while it is lost: %+v %v", e, err)
	}
	rig.log.lose(nil)
	rig.log.append(uuids[0], "alice")
	again := feedtest.NewStream(rig.connect(everybody, 1, "", 0))
	if e, err := again.Next(); err != nil || position(t, e) != 2 {
		t.Errorf("%+v %v", e, err)
	}
}

func TestClosingEndsEveryStreamAtOnce(t *testing.T) {
	rig := newHubRig(t, func(l *limits) { l.patience = time.Hour })
	var conns []*net.TCPConn
	for i := range 60 {
		buffer := 0
		if i%3 == 0 {
			buffer = 64 << 10 // nobody reads it, so it is in the middle of a write
		}
		conns = append(conns, rig.connect(everybody, 0, "", buffer))
	}
	for range 2000 {
		rig.log.append(uuids[0], "alice")
	}
	eventually(t, "the others have read on", func() bool { return rig.Stats().CatchingUp > 0 })
	began := time.Now()
	rig.Close(t.Context())
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	for _, c := range conns {
		stream, last := feedtest.NewStream(c), uint64(0)
		for {
			e, err := stream.Next()
			if err != nil {
				t.Fatalf("after %d: %v", last, err)
			}
			if e.Type == "cut-off" {
				if p := lastEvent(t, e); p.Status != 503 || e.ID != fmt.Sprint(last) {
					t.Errorf("after %d: %+v", last, e)
				}
				break
			}
			if last++; position(t, e) != last {
				t.Fatalf("%s is the %d. event", e.ID, last)
			}
		}
	}
	late := feedtest.NewStream(rig.connect(everybody, 0, "", 0))
	if e, err := late.Next(); err != nil || e.Type != "cut-off" {
		t.Errorf("after the end: %+v %v", e, err)
	}
}

func TestOnlySomeReadersReadTheLogAtOnce(t *testing.T) {
	const readers, events = 40, 200
	rig := newHubRig(t, func(l *limits) { l.ringEvents, l.stepEvents, l.batch = 10, 50, 10 })
	rig.log.meet = maxSeats // by themselves they may come one after the other
	for range events {
		rig.log.append(uuids[0], "alice")
	}
	var running sync.WaitGroup
	for range readers {
		conn := rig.connect(everybody, 0, "", 0)
		running.Go(func() {
			stream := feedtest.NewStream(conn)
			for want := uint64(1); want <= events; want++ {
				if e, err := stream.Next(); err != nil || position(t, e) != want {
					t.Errorf("%+v %v, want %d", e, err, want)
					return
				}
			}
		})
	}
	running.Wait()
	rig.log.mu.Lock()
	defer rig.log.mu.Unlock()
	if most := rig.log.mostReaders; most != maxSeats {
		t.Errorf("%d read at once, want %d", most, maxSeats)
	}
}

func TestSessionsThatAreNamedAreLookedUp(t *testing.T) {
	rig := newHubRig(t, func(l *limits) { l.ringEvents = 1 })
	for i := range 300 {
		rig.log.append(uuids[i%3], "alice")
	}
	first := feedtest.NewStream(rig.connect(everybody, 10, "session[$in][]="+uuids[0]+"&session[$in][]="+uuids[2]+"&session[$in][]="+uuids[9], 0))
	for want := uint64(11); want <= 300; want++ {
		if want%3 == 2 {
			continue
		}
		if e, err := first.Next(); err != nil || position(t, e) != want {
			t.Fatalf("%+v %v, want %d", e, err, want)
		}
	}
	if reads, histories := rig.log.reads.Load(), rig.log.histories.Load(); reads != 0 || histories < 3 {
		t.Errorf("%d reads of the log, %d histories", reads, histories)
	}
}

func TestWhatCannotBeReadIsShownToThoseWhoSeeEverything(t *testing.T) {
	rig := newHubRig(t, nil)
	rig.log.append(uuids[0], "alice", "bob")
	rig.log.park(uuids[0])
	rig.log.append(uuids[0], "alice", "bob")
	for _, query := range []string{"", "session=" + uuids[0], "type=chat-session.updated", "account=bob"} {
		for _, caller := range []domain.Caller{everybody, account("bob")} {
			stream := feedtest.NewStream(rig.connect(caller, 0, query, 0))
			var got []string
			for len(got) == 0 || got[len(got)-1] != "chat-session.updated 3" {
				e, err := stream.Next()
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, e.Type+" "+e.ID)
			}
			// It has neither a type nor an account.
			if shown := slices.Contains(got, "unreadable 2"); shown != (caller.SeesAll() && (query == "" || strings.HasPrefix(query, "session"))) {
				t.Errorf("%v with %q got %q", caller, query, got)
			}
		}
	}
}

func TestAnEventMayBeLargerThanAllBuffers(t *testing.T) {
	rig := newHubRig(t, nil)
	var conns []*net.TCPConn
	for range 3 {
		conns = append(conns, rig.connect(everybody, 0, "", 64<<10))
	}
	rig.large(40)
	for _, c := range conns {
		stream := feedtest.NewStream(c)
		for want := uint64(1); want <= 40; want++ {
			if e, err := stream.Next(); err != nil || position(t, e) != want {
				t.Fatalf("%+v %v, want %d", e, err, want)
			}
		}
	}
}

// large appends events of some 30 KB, which bob may see.
func (rig *hubRig) large(events int) {
	many := []string{"bob"}
	for i := range 99 {
		many = append(many, fmt.Sprint(i, strings.Repeat("é", 120)))
	}
	for range events {
		rig.log.append(uuids[0], "alice", many...)
	}
}

// Readers that are far behind and read nothing wait for themselves alone.
func TestReadersThatDoNotReadKeepNobodyElseFromCatchingUp(t *testing.T) {
	for _, query := range []string{"", "session=" + uuids[0]} {
		rig := newHubRig(t, func(l *limits) { l.ringEvents, l.patience = 1, time.Minute })
		rig.large(100)
		for range 2 * maxSeats {
			rig.connect(everybody, 0, query, 4<<10)
		}
		eventually(t, "all of them are behind", func() bool { return rig.Stats().CatchingUp == 2*maxSeats })
		stream := feedtest.NewStream(rig.connect(everybody, 0, query, 0))
		for want := uint64(1); want <= 100; want++ {
			if e, err := stream.Next(); err != nil || position(t, e) != want {
				t.Fatalf("%+v %v, want %d", e, err, want)
			}
		}
	}
}

// A reader whose token is taken back while it is being brought up to date is not sent
// the rest first.
func TestATokenThatIsTakenBackEndsAStreamThatIsBehind(t *testing.T) {
	for _, query := range []string{"", "session=" + uuids[0]} {
		rig := newHubRig(t, func(l *limits) { l.ringEvents, l.heartbeat = 1, 20*time.Millisecond })
		rig.large(500)
		bob := account("bob")
		conn := rig.connect(bob, 0, query, 64<<10)
		stream := feedtest.NewStream(conn)
		for n := 0; ; n++ {
			if n == 3 {
				rig.tokens.Delete(fmt.Sprint(bob))
			}
			time.Sleep(time.Millisecond) // slowly
			e, err := stream.Next()
			if err != nil {
				t.Fatal(err)
			}
			if e.Type != "cut-off" {
				if position(t, e) > 100 {
					t.Fatal("it was sent a hundred events more")
				}
				continue
			}
			if p := lastEvent(t, e); p.Status != 401 {
				t.Errorf("got %+v", p)
			}
			break
		}
	}
}

// However much there is, one step of one reader takes little.
func TestAStepOfAReaderIsBoundedInBytes(t *testing.T) {
	for _, query := range []string{"", "session=" + uuids[0]} {
		rig := newHubRig(t, nil)
		rig.large(200)
		q, err := parseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		g := rig.begin(200)
		defer g.close(errUnused)
		p := &catchUp{hub: rig.Hub, reading: g, r: &reader{query: q, caller: everybody, token: "token"}}
		rig.tokens.Store("token", everybody)
		for steps := 0; p.r.after < 200; steps++ {
			b, err := p.step(200)
			if err != nil || len(b.bytes) > rig.limits.stepBytes+64<<10 || steps > 200 {
				t.Fatalf("step %d: %d bytes, %v", steps, len(b.bytes), err)
			}
			for i, e := range b.events {
				if want := p.r.after + uint64(i) + 1; e.position != want {
					t.Fatalf("got %d, want %d", e.position, want)
				}
			}
			p.r.after = b.last
		}
	}
}

// A reading that began anywhere else would send the whole log through the ring.
func TestTheFirstReaderBeginsAReadingAtTheEndOfTheLog(t *testing.T) {
	rig := newHubRig(t, nil)
	for range 5 {
		rig.log.append(uuids[0], "alice")
	}
	check := func(after *uint64, wantPosition uint64) {
		t.Helper()
		if position, end, err := rig.start(t.Context(), after); position != wantPosition || end != 5 || err != nil {
			t.Errorf("from %d with the end at %d: %v", position, end, err)
		}
	}
	check(new(uint64), 0)
	check(nil, 5)
	g := rig.begin(5)
	rig.reading = g
	check(new(uint64), 0)
	check(nil, 5)
	g.close(errUnused)
}

// Histories that are looked up are sent in steps too.
func TestLookedUpSessionsAreSentInSteps(t *testing.T) {
	rig := newHubRig(t, func(l *limits) { l.stepBytes = 16 << 10 })
	for range 100 {
		rig.log.append(uuids[0], "alice")
	}
	g := rig.begin(100)
	defer g.close(errUnused)
	p := &catchUp{hub: rig.Hub, reading: g, r: &reader{query: query{sessions: uuids[:1]}, caller: everybody}}
	steps, events := 0, 0
	for ; p.r.after < 90; steps++ {
		b, ok := p.lookUp(90)
		if !ok || b.last <= p.r.after || len(b.bytes) > rig.limits.stepBytes+4<<10 {
			t.Fatalf("step %d: %+v, %v", steps, b, ok)
		}
		p.r.after = b.last
		events += len(b.events)
	}
	if steps < 2 || events != 90 || p.r.after != 90 {
		t.Errorf("%d events in %d steps, to %d", events, steps, p.r.after)
	}
}

func TestAFeedRingKeepsTheNewest(t *testing.T) {
	kept := ring{floor: 5, head: 5, maxEvents: 10, maxBytes: 1 << 20}
	for last := uint64(8); last <= 50; last += 3 {
		kept.add(&batch{last: last, events: make([]event, 3)})
	}
	if kept.head != 50 || kept.floor != 41 || kept.events != 9 {
		t.Fatalf("%+v", kept)
	}
	for position := uint64(30); position < 60; position++ {
		b := kept.after(position)
		if has := position >= 41 && position < 50; (b != nil) != has {
			t.Errorf("after %d: %+v", position, b)
		} else if has && (b.last <= position || b.last-3 > position) {
			t.Errorf("after %d comes the batch up to %d", position, b.last)
		}
	}
	kept.maxBytes = 10
	kept.add(&batch{last: 51, bytes: make([]byte, 100)})
	if len(kept.batches) != 1 || kept.floor != 50 {
		t.Errorf("one that is too large is kept alone: %+v", kept)
	}
}

func TestTheQueryOfTheFeed(t *testing.T) {
	good := "session[$in][]=" + uuids[0] + "&session[$in][]=" + uuids[1] + "&type=chat-session.created&account=a%20b&after=#7"
	if q, err := parseQuery(good); err != nil || len(q.sessions) != 2 || len(q.types) != 1 || q.accounts[0] != "a b" || *q.after != 7 {
		t.Errorf("%+v %v", q, err)
	}
	for query, says := range map[string]string{
		"foo=1":                       "foo is not a parameter",
		"session=1":                   "UUID",
		"type=started":                "chat-session.started",
		"account=":                    "account",
		"after=-1":                    "whole number",
		"after=":                      "whole number",
		"after=1&after=2":             "twice",
		"after[]=1":                   "array",
		"after[$in][]=1":              "$in",
		"type[]=chat-session.created": "type[$in][]",
		"session=" + uuids[0] + "&session=" + uuids[1]:        "session[$in][]",
		"session[$in][]=" + uuids[0] + "&session=" + uuids[1]: "session[$in][]",
		"account[$gt]=a":             "account[$gt]",
		"$limit=1":                   "$limit",
		"after=18446744073709551616": "whole number",
	} {
		_, err := parseQuery(query)
		var p *problem.Problem
		if !errors.As(err, &p) || p.Status != 400 || !strings.Contains(p.Detail, says) {
			t.Errorf("%s: %v", query, err)
		}
	}
}
