package feed

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"chatsessions/cmd/systemtest/rig"
	"chatsessions/eventstore/natstest"
	"chatsessions/http/feed/feedtest"
	"chatsessions/projections/redistest"
)

// quickBeats has heartbeats come as often as they may: they tell how far a stream is
// that shows nothing.
var quickBeats = []string{"--feed-heartbeat", "100ms"}

// A feedStream is one that is being read.
type feedStream struct {
	*feedtest.Stream
	t     *testing.T
	close context.CancelFunc
}

// feed opens a stream, which ends with the test.
func feed(c *rig.Client, query string, headers ...string) *feedStream {
	c.T.Helper()
	ctx, cancel := context.WithCancel(c.T.Context())
	request, err := http.NewRequestWithContext(ctx, "GET", c.URL+"/chat-sessions/events"+query, nil)
	if err != nil {
		c.T.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+c.Token)
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		request.Header.Set(name, value)
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		c.T.Fatal(err)
	}
	c.T.Cleanup(func() { cancel(); response.Body.Close() })
	if response.StatusCode != 200 || response.Header.Get("Content-Type") != "text/event-stream" || response.Header.Get("Cache-Control") != "no-store" || response.Header.Get("X-Accel-Buffering") != "no" {
		c.T.Fatalf("feed%s: %s %v", query, response.Status, response.Header)
	}
	s := &feedStream{feedtest.NewStream(response.Body), c.T, cancel}
	if _, dispatched, err := s.step(); err != nil || dispatched || s.LastEventID == "" {
		c.T.Fatalf("feed%s does not begin with where it begins: %v", query, err)
	}
	return s
}

// step reads on; it fails the test when nothing comes in time.
func (s *feedStream) step() (e feedtest.Event, dispatched bool, err error) {
	late := time.AfterFunc(rig.Patience, s.close)
	defer late.Stop()
	e, dispatched, err = s.Step()
	if err != nil && !late.Stop() {
		s.t.Fatalf("nothing for %s", rig.Patience)
	}
	return e, dispatched, err
}

// until returns what is shown up to a position.
func (s *feedStream) until(position uint64) (shown []feedtest.Event) {
	s.t.Helper()
	for s.position() < position {
		e, dispatched, err := s.step()
		if err != nil {
			s.t.Fatalf("before position %d: %v", position, err)
		}
		if dispatched {
			shown = append(shown, e)
		}
	}
	return shown
}

// cutOff returns what is shown before the stream's last event, and that.
func (s *feedStream) cutOff() (shown []feedtest.Event, last map[string]any) {
	s.t.Helper()
	for {
		e, dispatched, err := s.step()
		if err != nil {
			s.t.Fatalf("the stream ends without saying why: %v", err)
		}
		if !dispatched {
			continue
		}
		if e.Type != "cut-off" {
			shown = append(shown, e)
			continue
		}
		last = rig.Answer{Body: []byte(e.Data)}.Object(s.t)
		if last["lastEventId"] != e.ID || last["detail"] == "" || len(shown) > 0 && position(s.t, e) < position(s.t, shown[len(shown)-1]) {
			s.t.Errorf("the last event is %+v", e)
		}
		if _, _, err := s.step(); err == nil {
			s.t.Error("something comes behind the last event")
		}
		return shown, last
	}
}

// position is where a client would resume, 0 before the stream has said.
func (s *feedStream) position() uint64 {
	if s.LastEventID == "" {
		return 0
	}
	return position(s.t, feedtest.Event{ID: s.LastEventID})
}

func position(t *testing.T, e feedtest.Event) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(e.ID, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// checkShown compares what was shown with events of the log.
func checkShown(t *testing.T, shown []feedtest.Event, want []rig.Event) {
	t.Helper()
	if len(shown) != len(want) {
		t.Errorf("%d events were shown, want %d: %v", len(shown), len(want), positions(shown))
		return
	}
	for i, e := range shown {
		var got struct {
			ID, Type, Subject, Actor, Position string
			Data                               struct{ Changes, Session map[string]any }
		}
		if err := json.Unmarshal([]byte(e.Data), &got); err != nil {
			t.Fatalf("%s: %v", e.Data, err)
		}
		w := want[i]
		if position(t, e) != w.Sequence || got.Position != e.ID || got.ID != w.Header.Get("ce-id") || got.Type != e.Type || e.Type != w.Header.Get("ce-type") ||
			got.Subject != w.Header.Get("ce-subject") || got.Actor != w.Header.Get("ce-actor") ||
			!reflect.DeepEqual(got.Data.Session, w.Session) || !reflect.DeepEqual(got.Data.Changes, w.Changes) {
			t.Errorf("event %d was shown as %+v, the log has %v %s", w.Sequence, e, w.Header, w.Data)
		}
	}
}

func positions(shown []feedtest.Event) (ids []string) {
	for _, e := range shown {
		ids = append(ids, e.ID)
	}
	return ids
}

// onBothLogs runs a test on an embedded log and on one outside.
func onBothLogs(t *testing.T, test func(t *testing.T, s *rig.Service)) {
	t.Run("embedded", func(t *testing.T) {
		test(t, rig.Start(t, append(quickBeats, "--dev", "--ops-listen", "127.0.0.1:0")...))
	})
	t.Run("nats and redis", func(t *testing.T) {
		test(t, rig.Start(t, slices.Concat(rig.StartServers(t).Flags(), quickBeats, []string{"--ops-listen", "127.0.0.1:0"})...))
	})
}

func TestAFeedGoesOnWhereItWasCut(t *testing.T) {
	onBothLogs(t, func(t *testing.T, s *rig.Service) {
		crm := s.As("service-crm")
		const writes = 12
		live := feed(crm, "")
		if live.position() != 0 {
			t.Errorf("it begins at %d", live.position())
		}
		for i := range writes {
			path := crm.Create(fmt.Sprintf(`{"room": "r\n%d ü\u2028", "participants": ["bob"]}`, i))
			crm.Expect(200, "PATCH", path, `{"start": true, "accept": true}`)
		}
		log := s.Log()
		end := log[len(log)-1].Sequence
		checkShown(t, live.until(end), log)
		live.close()
		if live.Retry < time.Second || live.Retry > 3*time.Second {
			t.Errorf("retry: %s", live.Retry)
		}
		for after := uint64(0); after <= end; after++ {
			byQuery := feed(crm, fmt.Sprintf("?after=%d", after))
			byHeader := feed(crm, "?after=1", fmt.Sprintf("Last-Event-ID: %d", after))
			for _, stream := range []*feedStream{byQuery, byHeader} {
				checkShown(t, stream.until(end), log[after:])
				stream.close()
			}
		}
		// And while more is written: pieces, cut at random, make up the whole.
		var writing sync.WaitGroup
		for range 4 {
			writing.Go(func() {
				for range 30 {
					if a, err := crm.Do("POST", "/chat-sessions", `{"startedAt": 1, "acceptedAt": 2}`); err != nil || a.Status != 200 {
						t.Error(a.Instead(err))
					}
				}
			})
		}
		total, at := end+4*30*3, uint64(0)
		var whole []feedtest.Event
		chance := rand.New(rand.NewPCG(1, 2))
		for pieces := 0; at < total; pieces++ {
			piece := feed(crm, "", fmt.Sprintf("Last-Event-ID: %d", at))
			for n := chance.IntN(40); n >= 0 && at < total; n-- {
				e, dispatched, err := piece.step()
				if err != nil {
					t.Fatal(err)
				}
				if dispatched {
					whole = append(whole, e)
				}
				at = piece.position()
			}
			piece.close()
		}
		writing.Wait()
		checkShown(t, whole, s.Log())
		rig.Eventually(t, func() error {
			m := s.Metrics()
			if m["chatsessions_feed_readers"] != 0 || m["chatsessions_feed_readers_catching_up"] != 0 || m["chatsessions_feed_events_sent_total"] == 0 || m[`chatsessions_feed_streams_ended_total{reason="client_gone"}`] == 0 {
				return fmt.Errorf("%v readers, %v sent", m["chatsessions_feed_readers"], m["chatsessions_feed_events_sent_total"])
			}
			return nil
		})
	})
}

// TestAFeedShowsWhatTheCallerMaySee as each event has left the session; and when it is
// read again, as the session is by then.
func TestAFeedShowsWhatTheCallerMaySee(t *testing.T) {
	onBothLogs(t, func(t *testing.T, s *rig.Service) {
		alice, bob, crm := s.As("account-alice"), s.As("account-bob"), s.As("service-crm")
		watching := map[string]*feedStream{}
		callers := []string{"account-alice", "account-bob", "account-carol", "service-crm", "auditor-eve", "admin-root"}
		for _, who := range callers {
			watching[who] = feed(s.As(who), "")
		}
		path := alice.Create(`{"participants": ["bob"]}`)
		alice.Expect(200, "PATCH", path, `{"start": true}`)
		alice.Expect(200, "PATCH", path, `{"participants": ["carol"]}`)
		alice.Expect(200, "PATCH", path, `{"room": "without bob"}`)
		other := bob.Create(`{}`)
		alice.Expect(200, "PATCH", path, `{"participants": ["carol", "bob"], "accept": true}`)
		alice.Expect(200, "PATCH", path, `{"participants": null, "finish": true}`)
		crm.Expect(200, "PATCH", path, `{"room": "of nobody's business"}`)
		log := s.Log()
		end := log[len(log)-1].Sequence
		sees := func(uid string, e rig.Event) bool {
			list, _ := e.Session["participants"].([]any)
			return e.Session["createdBy"] == uid || slices.Contains(list, any(uid))
		}
		now := map[any]rig.Event{}
		for _, e := range log {
			now[e.Session["id"]] = e
		}
		filters := map[string]func(rig.Event) bool{
			"":                           func(rig.Event) bool { return true },
			"&session=" + id(path):       func(e rig.Event) bool { return e.Session["id"] == id(path) },
			"&type=chat-session.updated": func(e rig.Event) bool { return e.Header.Get("ce-type") == "chat-session.updated" },
			"&account=bob":               func(e rig.Event) bool { return sees("bob", e) || e.Header.Get("ce-actor") == "bob" },
			"&account[$in][]=crm":        func(e rig.Event) bool { return e.Header.Get("ce-actor") == "crm" },
			"&session=" + rig.NoSession[len("/chat-sessions/"):]: func(rig.Event) bool { return false },
			"&session[$in][]=" + id(path) + "&session[$in][]=" + id(other) + "&type[$in][]=chat-session.created&type[$in][]=chat-session.finished": func(e rig.Event) bool {
				return slices.Contains([]string{"chat-session.created", "chat-session.finished"}, e.Header.Get("ce-type"))
			},
		}
		for _, who := range callers {
			role, uid, _ := strings.Cut(who, "-")
			t.Run(who, func(t *testing.T) {
				for filter, asked := range filters {
					var live, again []rig.Event
					for _, e := range log {
						if role == "account" && !sees(uid, e) || !asked(e) {
							continue
						}
						live = append(live, e)
						if role != "account" || sees(uid, now[e.Session["id"]]) {
							again = append(again, e)
						}
					}
					checkShown(t, feed(s.As(who).In(t), "?after=0"+filter).until(end), again)
					if filter == "" {
						checkShown(t, watching[who].until(end), live)
						t.Logf("%d of %d events, and %d again", len(live), len(log), len(again))
					}
				}
			})
		}
	})
}

// id is that in a session's path.
func id(path string) string { return strings.TrimPrefix(path, "/chat-sessions/") }

func TestWhatIsNotAFeedIsRefused(t *testing.T) {
	const rate = 20 // requests a second, and twice as many at once: more than are needed before
	s := rig.Start(t, "--dev", "--rate-limit", fmt.Sprint(rate), "--max-readers", "2")
	crm := s.As("service-crm")
	crm.Create(`{"startedAt": 1}`)
	const path = "/chat-sessions/events"
	for query, says := range map[string]string{
		"?since=1": "since", "?after=x": "after", "?after=-1": "after", "?type=begun": "chat-session.started", "?session=1": "UUID",
		"?account=": "account", "?$limit=1": "$limit", "?session[$gt]=1": "session[$gt]",
	} {
		if p := crm.Expect(400, "GET", path+query, "").Object(t); !strings.Contains(fmt.Sprint(p["detail"]), says) {
			t.Errorf("%s: %v", query, p)
		}
	}
	crm.Expect(400, "GET", path, "", "Last-Event-ID: first")
	for _, beyond := range [][]string{{path + "?after=3"}, {path + "?after=1", "Last-Event-ID: 17"}} {
		if p := crm.Expect(409, "GET", beyond[0], "", beyond[1:]...).Object(t); p["logEnd"] != 2.0 || !strings.Contains(fmt.Sprint(p["detail"]), "ends at position 2") {
			t.Errorf("%s: %v", beyond, p)
		}
	}
	for _, method := range []string{"POST", "PATCH", "PUT", "DELETE", "OPTIONS"} {
		a := (&rig.Client{T: t, URL: s.URL, Token: "wrong"}).Expect(405, method, path, "")
		if a.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: Allow is %q", method, a.Header.Get("Allow"))
		}
	}
	(&rig.Client{T: t, URL: s.URL, Token: "wrong"}).Expect(401, "GET", path, "")
	if a := crm.Expect(200, "HEAD", path, ""); a.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("HEAD: %v", a.Header)
	}
	first, second := feed(crm, ""), feed(crm, "?after=0")
	first.until(2)
	second.until(2)
	if p := crm.Expect(503, "GET", path, "").Object(t); !strings.Contains(fmt.Sprint(p["detail"]), "readers") {
		t.Errorf("one too many: %v", p)
	}
	// As many as it may make in 15 s, and a machine that is busy takes a few ms for each.
	for asked := 0; ; asked++ {
		a, err := s.As("account-eager").Do("HEAD", path, "")
		if err != nil || asked == 15*rate {
			t.Fatalf("the feed has no part in the rate limit: after %d requests %d, %v", asked, a.Status, err)
		}
		if a.Status == 429 {
			break
		}
	}
}

// TestAReaderThatStopsReadingIsCutOff behind what it was sent, and goes on from there.
func TestAReaderThatStopsReadingIsCutOff(t *testing.T) {
	s := rig.Start(t, "--dev", "--ops-listen", "127.0.0.1:0")
	crm := s.As("service-crm")
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf("%q", fmt.Sprint(i, strings.Repeat("x", 120))))
	}
	body := `{"participants": [` + strings.Join(many, ",") + `], "startedAt": 1, "acceptedAt": 2, "finishedAt": 3}`
	slow := dial(s)
	_ = slow.SetReadBuffer(64 << 10)
	slow.send(t, "GET", "/chat-sessions/events?after=0", "")
	for range 30 {
		crm.Create(body)
	}
	rig.Eventually(t, func() error {
		if got := s.Metrics()[`chatsessions_feed_streams_ended_total{reason="too_slow"}`]; got != 1 {
			return fmt.Errorf("%v readers were too slow", got)
		}
		return nil
	})
	response, err := http.ReadResponse(slow.answers, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	stream := &feedStream{feedtest.NewStream(response.Body), t, func() { slow.Close() }}
	shown, last := stream.cutOff()
	log := s.Log()
	if len(shown) == 0 || len(shown) == len(log) || last["lastEventId"] != fmt.Sprint(len(shown)) {
		t.Errorf("cut off after %d of %d events with %v", len(shown), len(log), last)
	}
	rest := feed(crm, "", "Last-Event-ID: "+stream.LastEventID)
	checkShown(t, append(shown, rest.until(log[len(log)-1].Sequence)...), log)
	t.Logf("cut off after %d of %d events", len(shown), len(log))
}

func TestATokenThatIsTakenBackEndsItsFeed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	var lines, tokens []string
	for _, who := range []string{"stays", "goes"} {
		_, out, _ := rig.Command(t, nil, "token", "--account", who, "--role", "auditor", "--output", "json")
		o := rig.Answer{Body: []byte(out)}.Object(t)
		lines, tokens = append(lines, fmt.Sprint(o["line"])), append(tokens, fmt.Sprint(o["token"]))
	}
	write := func(lines ...string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(lines...)
	s := rig.Start(t, append(quickBeats, "--dev", "--auth-tokens", file)...)
	stays, goes := feed((&rig.Client{T: t, URL: s.URL, Token: tokens[0]}), ""), feed((&rig.Client{T: t, URL: s.URL, Token: tokens[1]}), "")
	s.As("service-crm").Create(`{}`)
	stays.until(1)
	goes.until(1)
	write(lines[0])
	if err := s.Cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if shown, last := goes.cutOff(); len(shown) != 0 || last["status"] != 401.0 || last["className"] != "not-authenticated" {
		t.Errorf("%v %v", shown, last)
	}
	s.As("service-crm").Create(`{}`)
	checkShown(t, stays.until(2), s.Log()[1:])
}

func TestADrainSendsReadersElsewhere(t *testing.T) {
	servers := rig.StartServers(t)
	first, second := rig.Start(t, servers.Flags()...), rig.Start(t, servers.Flags()...)
	crm := second.As("service-crm")
	var streams []*feedStream
	for range 20 {
		streams = append(streams, feed(first.As("service-crm"), ""))
	}
	for range 5 {
		crm.Create(`{}`)
	}
	for i, stream := range streams {
		if i%2 == 0 {
			stream.until(5)
		}
	}
	began := time.Now()
	if status := first.Stop(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("streams held the end up, for %s", took)
	}
	for range 5 {
		crm.Create(`{}`)
	}
	log := second.Log()
	for i, stream := range streams {
		shown, last := stream.cutOff()
		if last["status"] != 503.0 || !strings.Contains(fmt.Sprint(last["detail"]), "shutting down") {
			t.Errorf("%v", last)
		}
		from := 5
		if i%2 != 0 {
			from = 0
		}
		checkShown(t, append(shown, feed(crm, "", "Last-Event-ID: "+stream.LastEventID).until(10)...), log[from:])
	}
}

// TestAReaderThatWasCutOffByACrashMissesNothing: the node that it reads from is killed,
// the log's server is killed under another one, and it goes on elsewhere each time.
func TestAReaderThatWasCutOffByACrashMissesNothing(t *testing.T) {
	nats := natstest.Start(t, natstest.Config{})
	redis := redistest.Start(t, redistest.Config{})
	flags := append([]string{"--dev", "--nats-url", nats.URL(), "--redis-url", redis.URL()}, quickBeats...)
	nodes := []*rig.Service{rig.Start(t, flags...), rig.Start(t, flags...)}
	var whole []feedtest.Event
	stream := feed(nodes[0].As("auditor-eve"), "?after=0")
	write := func(node *rig.Service, n int) {
		t.Helper()
		for range n {
			key := fmt.Sprint("Idempotency-Key: ", rand.Uint64())
			rig.Eventually(t, func() error { // a write may be refused while a server restarts
				a, err := node.As("service-crm").Do("POST", "/chat-sessions", `{"startedAt": 1}`, key)
				if err != nil || a.Status != 200 {
					return a.Instead(err)
				}
				return nil
			})
		}
	}
	end := func(node *rig.Service) uint64 {
		log := node.Log()
		return log[len(log)-1].Sequence
	}
	read := func(node *rig.Service) {
		t.Helper()
		whole = append(whole, stream.until(end(node))...)
	}
	write(nodes[1], 5)
	read(nodes[1])
	write(nodes[1], 5)
	nodes[0].Kill()
	write(nodes[1], 5)
	for { // what was under way when it was killed
		e, dispatched, err := stream.step()
		if err != nil {
			break
		}
		if dispatched {
			whole = append(whole, e)
		}
	}
	stream = feed(nodes[1].As("auditor-eve"), "", "Last-Event-ID: "+stream.LastEventID)
	read(nodes[1])

	nodes[0].Start()
	nats.Kill() // the stream stays, and waits
	nats.Restart()
	write(nodes[0], 5)
	read(nodes[0])
	nodes[1].Kill()
	write(nodes[0], 5)
	stream = feed(nodes[0].As("auditor-eve"), "", "Last-Event-ID: "+stream.LastEventID)
	read(nodes[0])
	checkShown(t, whole, nodes[0].Log())
	nodes[1].Start()
}
