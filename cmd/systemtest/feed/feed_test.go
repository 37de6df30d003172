package main

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

	"chatsessions/eventstore/natstest"
	"chatsessions/http/feedtest"
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
func (c *client) feed(query string, headers ...string) *feedStream {
	c.t.Helper()
	ctx, cancel := context.WithCancel(c.t.Context())
	request, err := http.NewRequestWithContext(ctx, "GET", c.url+"/chat-sessions/events"+query, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+c.token)
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		request.Header.Set(name, value)
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { cancel(); response.Body.Close() })
	if response.StatusCode != 200 || response.Header.Get("Content-Type") != "text/event-stream" || response.Header.Get("Cache-Control") != "no-store" || response.Header.Get("X-Accel-Buffering") != "no" {
		c.t.Fatalf("feed%s: %s %v", query, response.Status, response.Header)
	}
	s := &feedStream{feedtest.NewStream(response.Body), c.t, cancel}
	if _, dispatched, err := s.step(); err != nil || dispatched || s.LastEventID == "" {
		c.t.Fatalf("feed%s does not begin with where it begins: %v", query, err)
	}
	return s
}

// step reads on; it fails the test when nothing comes in time.
func (s *feedStream) step() (e feedtest.Event, dispatched bool, err error) {
	late := time.AfterFunc(patience, s.close)
	defer late.Stop()
	e, dispatched, err = s.Step()
	if err != nil && !late.Stop() {
		s.t.Fatalf("nothing for %s", patience)
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
		last = answer{body: []byte(e.Data)}.object(s.t)
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
func checkShown(t *testing.T, shown []feedtest.Event, want []event) {
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
		if position(t, e) != w.sequence || got.Position != e.ID || got.ID != w.header.Get("ce-id") || got.Type != e.Type || e.Type != w.header.Get("ce-type") ||
			got.Subject != w.header.Get("ce-subject") || got.Actor != w.header.Get("ce-actor") ||
			!reflect.DeepEqual(got.Data.Session, w.session) || !reflect.DeepEqual(got.Data.Changes, w.changes) {
			t.Errorf("event %d was shown as %+v, the log has %v %s", w.sequence, e, w.header, w.data)
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
func onBothLogs(t *testing.T, test func(t *testing.T, s *service)) {
	t.Run("embedded", func(t *testing.T) {
		test(t, startService(t, append(quickBeats, "--dev", "--ops-listen", "127.0.0.1:0")...))
	})
	t.Run("nats and redis", func(t *testing.T) {
		test(t, startService(t, slices.Concat(startServers(t).flags(), quickBeats, []string{"--ops-listen", "127.0.0.1:0"})...))
	})
}

func TestAFeedGoesOnWhereItWasCut(t *testing.T) {
	onBothLogs(t, func(t *testing.T, s *service) {
		crm := s.as("service-crm")
		const writes = 12
		live := crm.feed("")
		if live.position() != 0 {
			t.Errorf("it begins at %d", live.position())
		}
		for i := range writes {
			path := crm.create(fmt.Sprintf(`{"room": "r\n%d ü\u2028", "participants": ["bob"]}`, i))
			crm.expect(200, "PATCH", path, `{"start": true, "accept": true}`)
		}
		log := s.log()
		end := log[len(log)-1].sequence
		checkShown(t, live.until(end), log)
		live.close()
		if live.Retry < time.Second || live.Retry > 3*time.Second {
			t.Errorf("retry: %s", live.Retry)
		}
		for after := uint64(0); after <= end; after++ {
			byQuery := crm.feed(fmt.Sprintf("?after=%d", after))
			byHeader := crm.feed("?after=1", fmt.Sprintf("Last-Event-ID: %d", after))
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
					if a, err := crm.do("POST", "/chat-sessions", `{"startedAt": 1, "acceptedAt": 2}`); err != nil || a.status != 200 {
						t.Error(a.instead(err))
					}
				}
			})
		}
		total, at := end+4*30*3, uint64(0)
		var whole []feedtest.Event
		chance := rand.New(rand.NewPCG(1, 2))
		for pieces := 0; at < total; pieces++ {
			piece := crm.feed("", fmt.Sprintf("Last-Event-ID: %d", at))
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
		checkShown(t, whole, s.log())
		eventually(t, func() error {
			m := s.metrics()
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
	onBothLogs(t, func(t *testing.T, s *service) {
		alice, bob, crm := s.as("account-alice"), s.as("account-bob"), s.as("service-crm")
		watching := map[string]*feedStream{}
		callers := []string{"account-alice", "account-bob", "account-carol", "service-crm", "auditor-eve", "admin-root"}
		for _, who := range callers {
			watching[who] = s.as(who).feed("")
		}
		path := alice.create(`{"participants": ["bob"]}`)
		alice.expect(200, "PATCH", path, `{"start": true}`)
		alice.expect(200, "PATCH", path, `{"participants": ["carol"]}`)
		alice.expect(200, "PATCH", path, `{"room": "without bob"}`)
		other := bob.create(`{}`)
		alice.expect(200, "PATCH", path, `{"participants": ["carol", "bob"], "accept": true}`)
		alice.expect(200, "PATCH", path, `{"participants": null, "finish": true}`)
		crm.expect(200, "PATCH", path, `{"room": "of nobody's business"}`)
		log := s.log()
		end := log[len(log)-1].sequence
		sees := func(uid string, e event) bool {
			list, _ := e.session["participants"].([]any)
			return e.session["createdBy"] == uid || slices.Contains(list, any(uid))
		}
		now := map[any]event{}
		for _, e := range log {
			now[e.session["id"]] = e
		}
		filters := map[string]func(event) bool{
			"":                           func(event) bool { return true },
			"&session=" + id(path):       func(e event) bool { return e.session["id"] == id(path) },
			"&type=chat-session.updated": func(e event) bool { return e.header.Get("ce-type") == "chat-session.updated" },
			"&account=bob":               func(e event) bool { return sees("bob", e) || e.header.Get("ce-actor") == "bob" },
			"&account[$in][]=crm":        func(e event) bool { return e.header.Get("ce-actor") == "crm" },
			"&session=" + nobody[len("/chat-sessions/"):]: func(event) bool { return false },
			"&session[$in][]=" + id(path) + "&session[$in][]=" + id(other) + "&type[$in][]=chat-session.created&type[$in][]=chat-session.finished": func(e event) bool {
				return slices.Contains([]string{"chat-session.created", "chat-session.finished"}, e.header.Get("ce-type"))
			},
		}
		for _, who := range callers {
			role, uid, _ := strings.Cut(who, "-")
			t.Run(who, func(t *testing.T) {
				for filter, asked := range filters {
					var live, again []event
					for _, e := range log {
						if role == "account" && !sees(uid, e) || !asked(e) {
							continue
						}
						live = append(live, e)
						if role != "account" || sees(uid, now[e.session["id"]]) {
							again = append(again, e)
						}
					}
					checkShown(t, s.as(who).in(t).feed("?after=0"+filter).until(end), again)
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
	s := startService(t, "--dev", "--rate-limit", fmt.Sprint(rate), "--max-readers", "2")
	crm := s.as("service-crm")
	crm.create(`{"startedAt": 1}`)
	const path = "/chat-sessions/events"
	for query, says := range map[string]string{
		"?since=1": "since", "?after=x": "after", "?after=-1": "after", "?type=begun": "chat-session.started", "?session=1": "UUID",
		"?account=": "account", "?$limit=1": "$limit", "?session[$gt]=1": "session[$gt]",
	} {
		if p := crm.refused(400, "GET", path+query, ""); !strings.Contains(fmt.Sprint(p["detail"]), says) {
			t.Errorf("%s: %v", query, p)
		}
	}
	crm.refused(400, "GET", path, "", "Last-Event-ID: first")
	for _, beyond := range [][]string{{path + "?after=3"}, {path + "?after=1", "Last-Event-ID: 17"}} {
		if p := crm.refused(409, "GET", beyond[0], "", beyond[1:]...); p["logEnd"] != 2.0 || !strings.Contains(fmt.Sprint(p["detail"]), "ends at position 2") {
			t.Errorf("%s: %v", beyond, p)
		}
	}
	for _, method := range []string{"POST", "PATCH", "PUT", "DELETE", "OPTIONS"} {
		a := (&client{t, s.url, "wrong"}).expect(405, method, path, "")
		if a.header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: Allow is %q", method, a.header.Get("Allow"))
		}
	}
	(&client{t, s.url, "wrong"}).refused(401, "GET", path, "")
	if a := crm.expect(200, "HEAD", path, ""); a.header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("HEAD: %v", a.header)
	}
	first, second := crm.feed(""), crm.feed("?after=0")
	first.until(2)
	second.until(2)
	if p := crm.refused(503, "GET", path, ""); !strings.Contains(fmt.Sprint(p["detail"]), "readers") {
		t.Errorf("one too many: %v", p)
	}
	// As many as it may make in 15 s, and a machine that is busy takes a few ms for each.
	for asked := 0; ; asked++ {
		a, err := s.as("account-eager").do("HEAD", path, "")
		if err != nil || asked == 15*rate {
			t.Fatalf("the feed has no part in the rate limit: after %d requests %d, %v", asked, a.status, err)
		}
		if a.status == 429 {
			break
		}
	}
}

// TestAReaderThatStopsReadingIsCutOff behind what it was sent, and goes on from there.
func TestAReaderThatStopsReadingIsCutOff(t *testing.T) {
	s := startService(t, "--dev", "--ops-listen", "127.0.0.1:0")
	crm := s.as("service-crm")
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf("%q", fmt.Sprint(i, strings.Repeat("x", 120))))
	}
	body := `{"participants": [` + strings.Join(many, ",") + `], "startedAt": 1, "acceptedAt": 2, "finishedAt": 3}`
	slow := s.dial()
	_ = slow.SetReadBuffer(64 << 10)
	slow.send(t, "GET", "/chat-sessions/events?after=0", "")
	for range 30 {
		crm.create(body)
	}
	eventually(t, func() error {
		if got := s.metrics()[`chatsessions_feed_streams_ended_total{reason="too_slow"}`]; got != 1 {
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
	log := s.log()
	if len(shown) == 0 || len(shown) == len(log) || last["lastEventId"] != fmt.Sprint(len(shown)) {
		t.Errorf("cut off after %d of %d events with %v", len(shown), len(log), last)
	}
	rest := crm.feed("", "Last-Event-ID: "+stream.LastEventID)
	checkShown(t, append(shown, rest.until(log[len(log)-1].sequence)...), log)
	t.Logf("cut off after %d of %d events", len(shown), len(log))
}

func TestATokenThatIsTakenBackEndsItsFeed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	var lines, tokens []string
	for _, who := range []string{"stays", "goes"} {
		o := answer{body: []byte(runCommand(t, "token", "--account", who, "--role", "auditor", "--output", "json"))}.object(t)
		lines, tokens = append(lines, fmt.Sprint(o["line"])), append(tokens, fmt.Sprint(o["token"]))
	}
	write := func(lines ...string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(lines...)
	s := startService(t, append(quickBeats, "--dev", "--auth-tokens", file)...)
	stays, goes := (&client{t, s.url, tokens[0]}).feed(""), (&client{t, s.url, tokens[1]}).feed("")
	s.as("service-crm").create(`{}`)
	stays.until(1)
	goes.until(1)
	write(lines[0])
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if shown, last := goes.cutOff(); len(shown) != 0 || last["status"] != 401.0 || last["className"] != "not-authenticated" {
		t.Errorf("%v %v", shown, last)
	}
	s.as("service-crm").create(`{}`)
	checkShown(t, stays.until(2), s.log()[1:])
}

func TestADrainSendsReadersElsewhere(t *testing.T) {
	servers := startServers(t)
	first, second := startService(t, servers.flags()...), startService(t, servers.flags()...)
	crm := second.as("service-crm")
	var streams []*feedStream
	for range 20 {
		streams = append(streams, first.as("service-crm").feed(""))
	}
	for range 5 {
		crm.create(`{}`)
	}
	for i, stream := range streams {
		if i%2 == 0 {
			stream.until(5)
		}
	}
	began := time.Now()
	if status := first.stop(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("streams held the end up, for %s", took)
	}
	for range 5 {
		crm.create(`{}`)
	}
	log := second.log()
	for i, stream := range streams {
		shown, last := stream.cutOff()
		if last["status"] != 503.0 || !strings.Contains(fmt.Sprint(last["detail"]), "ending") {
			t.Errorf("%v", last)
		}
		from := 5
		if i%2 != 0 {
			from = 0
		}
		checkShown(t, append(shown, crm.feed("", "Last-Event-ID: "+stream.LastEventID).until(10)...), log[from:])
	}
}

// TestAReaderThatWasCutOffByACrashMissesNothing: the node that it reads from is killed,
// the log's server is killed under another one, and it goes on elsewhere each time.
func TestAReaderThatWasCutOffByACrashMissesNothing(t *testing.T) {
	nats := natstest.Start(t, natstest.Config{})
	redis := redistest.Start(t, redistest.Config{})
	flags := append([]string{"--dev", "--nats-url", nats.URL(), "--redis-url", redis.URL()}, quickBeats...)
	nodes := []*service{startService(t, flags...), startService(t, flags...)}
	var whole []feedtest.Event
	stream := nodes[0].as("auditor-eve").feed("?after=0")
	write := func(node *service, n int) {
		t.Helper()
		for range n {
			key := fmt.Sprint("Idempotency-Key: ", rand.Uint64())
			eventually(t, func() error { // a write may be refused while a server restarts
				a, err := node.as("service-crm").do("POST", "/chat-sessions", `{"startedAt": 1}`, key)
				if err != nil || a.status != 200 {
					return a.instead(err)
				}
				return nil
			})
		}
	}
	end := func(node *service) uint64 {
		log := node.log()
		return log[len(log)-1].sequence
	}
	read := func(node *service) {
		t.Helper()
		whole = append(whole, stream.until(end(node))...)
	}
	write(nodes[1], 5)
	read(nodes[1])
	write(nodes[1], 5)
	nodes[0].kill()
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
	stream = nodes[1].as("auditor-eve").feed("", "Last-Event-ID: "+stream.LastEventID)
	read(nodes[1])

	nodes[0].start()
	nats.Kill() // the stream stays, and waits
	nats.Restart()
	write(nodes[0], 5)
	read(nodes[0])
	nodes[1].kill()
	write(nodes[0], 5)
	stream = nodes[0].as("auditor-eve").feed("", "Last-Event-ID: "+stream.LastEventID)
	read(nodes[0])
	checkShown(t, whole, nodes[0].log())
	nodes[1].start()
}
