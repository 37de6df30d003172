package rebuild

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/redis/go-redis/v9"

	"chatsessions/cmd/systemtest/rig"
	"chatsessions/deploy/servertest"
)

func TestAForeignMessageParksItsSessionAndNothingElse(t *testing.T) {
	t.Parallel()
	rig.OnAllSetups(t, func(t *testing.T, s *rig.Service) {
		t.Parallel()
		flags := s.Stores()
		before := rig.Fill(t, s, 6)
		victim := before.Paths()[0]
		s.As("service-crm").Expect(200, "PATCH", victim, `{"room": "with a key"}`, "Idempotency-Key: k")
		before = s.Content()
		foreign := map[string]string{ // what lies where, by the session's id
			strings.TrimPrefix(victim, "/chat-sessions/"): `{"hello": "world"}`, rig.Ghost: "", notAUUID: "\xff not an event",
		}
		positions := map[string]uint64{}
		for id, data := range foreign {
			positions[id] = s.Publish(&nats.Msg{Subject: "chat-sessions." + id, Data: []byte(data)})
		}
		check := func(when string) {
			t.Helper()
			awaitParked(t, s, len(foreign))
			without(before, victim).Check(s)
			crm := s.As("service-crm")
			for _, path := range []string{victim, "/chat-sessions/" + rig.Ghost} {
				p := crm.Expect(503, "GET", path, "").Object(t)
				if detail := fmt.Sprint(p["detail"]); !strings.Contains(detail, "cannot be read") || !strings.Contains(detail, "chatsessions parked") {
					t.Errorf("%s, GET %s: %s", when, path, detail)
				}
				p = crm.Expect(503, "PATCH", path, `{"room": "new"}`).Object(t)
				if detail := fmt.Sprint(p["detail"]); p["mayHaveBeenWritten"] != false || !strings.Contains(detail, "cannot be read") {
					t.Errorf("%s, PATCH %s: %v", when, path, p)
				}
			}
			// What an earlier request with the same key did, cannot be told.
			if p := crm.Expect(503, "PATCH", victim, `{"room": "with a key"}`, "Idempotency-Key: k").Object(t); p["mayHaveBeenWritten"] != true {
				t.Errorf("%s, PATCH %s again: %v", when, victim, p)
			}
			crm.Expect(404, "GET", "/chat-sessions/"+notAUUID, "")

			table, listed := parked(t, rig.ExitDone, flags...)
			for id, position := range positions {
				line := regexp.MustCompile(`(?m)^` + id + ` +` + strconv.FormatUint(position, 10) + ` +\S.*$`)
				if !line.MatchString(table) {
					t.Errorf("%s: there is no line of %s at %d:\n%s", when, id, position, table)
				}
				if got := listed[id]; got.Position != position || !strings.Contains(got.Reason, "cannot be read") {
					t.Errorf("%s: %s is parked as %+v", when, id, got)
				}
			}
			if len(listed) != len(foreign) || strings.Count(table, "\n") != len(foreign)+1 {
				t.Errorf("%s: parked are %v:\n%s", when, listed, table)
			}
			for id, position := range positions {
				want := fmt.Sprintf(`level=ERROR msg="an event cannot be projected: its session is parked" session=%s position=%d error=`, id, position)
				if log := s.Errors.String(); !strings.Contains(log, want) {
					t.Errorf("%s: the log lacks %s", when, want)
				}
			}
		}
		check("at first")

		// The others go on, and the parked ones were not written.
		crm := s.As("service-crm")
		path := crm.Create(`{"room": "meanwhile", "createdBy": "alice"}`)
		changed := crm.Expect(200, "PATCH", path, `{"start": true}`)
		if got := crm.Expect(200, "GET", path, ""); !bytes.Equal(got.Body, changed.Body) || got.Header.Get("Chat-Sessions-Source") != "" {
			t.Errorf("%s is %s from %q, written was %s", path, got.Body, got.Header.Get("Chat-Sessions-Source"), changed.Body)
		}
		if got := crm.Expect(200, "GET", "/chat-sessions?room=meanwhile", ""); !bytes.Contains(got.Body, changed.Body) {
			t.Errorf("the list is %s, written was %s", got.Body, changed.Body)
		}
		for id, position := range positions {
			stream, err := s.JetStream().Stream(t.Context(), "CHAT_SESSIONS")
			if err != nil {
				t.Fatal(err)
			}
			if newest, err := stream.GetLastMsgForSubject(t.Context(), "chat-sessions."+id); err != nil || newest.Sequence != position {
				t.Errorf("the newest message of %s is at %v, and the foreign one at %d: %v", id, newest, position, err)
			}
		}

		// Nothing brings them back as long as that lies there.
		listed := retry(t, rig.ExitFailed, flags...)
		for id := range foreign {
			if !strings.Contains(listed[id].Retried, "cannot be read") {
				t.Errorf("--retry of %s: %+v", id, listed[id])
			}
		}
		status, stdout, stderr := rig.Command(t, nil, append([]string{"parked", "--retry"}, flags...)...)
		if status != rig.ExitFailed || strings.Count(stdout, "cannot be read") != 2*3 || !strings.Contains(stderr, "3 of 3 sessions could not be brought back") {
			t.Errorf("exit status %d, %q, %q", status, stdout, stderr)
		}
		status, stdout, stderr = rig.Command(t, nil, append([]string{"parked", "--retry", rig.Ghost}, flags...)...)
		if status != rig.ExitFailed || strings.Count(stdout, "\n") != 2 || !strings.Contains(stderr, "1 of 1 sessions could not be brought back") {
			t.Errorf("exit status %d, %q, %q", status, stdout, stderr)
		}

		// From scratch, it is the same.
		before = s.Content()
		s.Stop()
		if s.Flag("--redis-url") != "" {
			if err := openRedis(s).FlushAll(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
		}
		s.Errors = &servertest.Output{}
		s.Start()
		check("after a start from scratch")
		if s.Flag("--redis-url") != "" { // and where the service goes on from its checkpoint
			s.Restart()
			check("after a restart")
		}

		// And after a rebuild.
		rebuilt := rebuild(t, rig.ExitDone, flags...)
		if !strings.HasPrefix(rebuilt.stdout, "A read model of 6 sessions, ") || !strings.Contains(rebuilt.stdout, ": the old one had 0 differences to the log") ||
			strings.Count(rebuilt.stderr, "its session is parked") != len(foreign) {
			t.Errorf("told %q, %q", rebuilt.stdout, rebuilt.stderr)
		}
		check("after a rebuild")
	}, "--ops-listen", "127.0.0.1:0")
}

func TestALaterEventBringsAParkedSessionBack(t *testing.T) {
	t.Parallel()
	rig.OnAllSetups(t, func(t *testing.T, s *rig.Service) {
		t.Parallel()
		flags := s.Stores()
		before := rig.Fill(t, s, 6)
		victim := before.Paths()[3]
		id := strings.TrimPrefix(victim, "/chat-sessions/")
		var newest rig.Event
		for _, e := range s.Log() {
			if e.Session["id"] == id {
				newest = e
			}
		}
		s.Publish(&nats.Msg{Subject: newest.Subject, Data: []byte("not an event")})
		awaitParked(t, s, 1)
		again := &nats.Msg{Subject: newest.Subject, Data: newest.Data, Header: nats.Header{}}
		for name, values := range newest.Header {
			if strings.HasPrefix(name, "ce-") {
				again.Header[name] = values
			}
		}
		s.Publish(again)
		awaitParked(t, s, 0)
		rig.Eventually(t, func() error { return before.Compare(s) })
		if status, stdout, _ := rig.Command(t, nil, append([]string{"parked"}, flags...)...); status != rig.ExitDone || stdout != "No session is parked.\n" {
			t.Errorf("exit status %d, %q", status, stdout)
		}
		rebuild(t, rig.ExitDone, append(flags, "--compare-only")...).expect(t, `: 0 differences `)
	}, "--ops-listen", "127.0.0.1:0")
}

func TestARetryBringsBackWhatCanBeRead(t *testing.T) {
	t.Parallel()
	rig.OnAllSetups(t, func(t *testing.T, s *rig.Service) {
		t.Parallel()
		flags := s.Stores()
		before := rig.Fill(t, s, 6)
		rdb := openRedis(s)
		one, other := before.Paths()[1], before.Paths()[4]
		for _, path := range []string{one, other} {
			park(t, rdb, strings.TrimPrefix(path, "/chat-sessions/"), "an older version could not read it")
		}
		awaitParked(t, s, 2)
		without(before, one, other).Check(s)
		for _, path := range []string{one, other} { // the log can tell them
			got := s.As("service-crm").Expect(200, "GET", path, "")
			if want := before.Sessions[path]; !bytes.Equal(got.Body, want.Body) || got.Header.Get("Chat-Sessions-Source") != "log" {
				t.Errorf("%s is %s from %q, and was %s", path, got.Body, got.Header.Get("Chat-Sessions-Source"), want.Body)
			}
		}

		id := strings.TrimPrefix(one, "/chat-sessions/")
		status, stdout, stderr := rig.Command(t, nil, append([]string{"parked", id, "--retry"}, flags...)...)
		if status != rig.ExitDone || stderr != "" || !regexp.MustCompile(id+` +7 +an older version could not read it +brought back\n$`).MatchString(stdout) {
			t.Errorf("exit status %d, %q, %q", status, stdout, stderr)
		}
		awaitParked(t, s, 1)
		without(before, other).Check(s)
		status, stdout, stderr = rig.Command(t, nil, append([]string{"parked", id, "--retry"}, flags...)...)
		if status != rig.ExitFailed || stdout != "" || !strings.Contains(stderr, id+": the session is not parked") {
			t.Errorf("exit status %d, %q, %q", status, stdout, stderr)
		}

		listed := retry(t, rig.ExitDone, flags...)
		if got := listed[strings.TrimPrefix(other, "/chat-sessions/")]; len(listed) != 1 || got.Retried != "brought back" {
			t.Errorf("--retry told %v", listed)
		}
		awaitParked(t, s, 0)
		before.Check(s)
		if listed := retry(t, rig.ExitDone, flags...); len(listed) != 0 {
			t.Errorf("--retry of nothing told %v", listed)
		}
		rebuild(t, rig.ExitDone, append(flags, "--compare-only")...).expect(t, `: 0 differences `)
		for path := range before.Sessions {
			s.As("service-crm").Expect(200, "PATCH", path, `{"room": "it goes on"}`)
		}
		rig.CheckReadModel(t, s, s.Log())
	}, "--ops-listen", "127.0.0.1:0")
}

func TestWithoutAReadModelThereIsNothingParkedToTell(t *testing.T) {
	t.Parallel()
	servers := rig.StartServers(t)
	s := rig.Start(t, servers.Flags()...)
	embedded := rig.Start(t, "--dev")
	embedded.Stop()
	for _, c := range []struct {
		flags []string
		says  []string
	}{
		{nil, []string{"chatsessions-data", "--data-dir", "--nats-url"}},
		{[]string{"--data-dir", embedded.Flag("--data-dir")}, []string{"not running", "start it"}},
		{[]string{"--nats-url", servers.NATS.URL()}, []string{"--redis-url"}},
		{append(servers.Stores(), "--redis-partitions", "2"), []string{"--redis-partitions 2", "--redis-partitions 1"}},
		{append(servers.Stores(), "--redis-partitions", "2", rig.Ghost), []string{"--redis-partitions 2", "--redis-partitions 1"}},
		{append(servers.Stores(), rig.Ghost), []string{rig.Ghost, "not parked"}},
	} {
		status, stdout, stderr := rig.Command(t, nil, append([]string{"parked"}, c.flags...)...)
		if status != rig.ExitFailed || stdout != "" || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: exit status %d, %q, %q", c.flags, status, stdout, stderr)
		}
		for _, want := range c.says {
			if !strings.Contains(stderr, want) {
				t.Errorf("%q: %q does not say %s", c.flags, stderr, want)
			}
		}
	}
	if status, stdout, stderr := rig.Command(t, nil, append([]string{"parked", "--output", "json"}, servers.Stores()...)...); status != rig.ExitDone || stdout != "" || stderr != "" {
		t.Errorf("exit status %d, %q, %q", status, stdout, stderr)
	}
	rig.CheckReadModel(t, s, s.Log())
}

// A parkedSession is what --output json tells of one.
type parkedSession struct {
	SessionID, Reason, Retried string
	Position                   uint64
}

// parked runs `chatsessions parked` twice: for the table, and for the sessions by id.
func parked(t *testing.T, status int, flags ...string) (table string, sessions map[string]parkedSession) {
	t.Helper()
	got, table, stderr := rig.Command(t, nil, append([]string{"parked"}, flags...)...)
	if got != status || stderr != "" {
		t.Fatalf("exit status %d, want %d: %q, %q", got, status, table, stderr)
	}
	return table, parkedAsJSON(t, status, flags...)
}

// retry runs `chatsessions parked --retry`, and returns what became of each session.
func retry(t *testing.T, status int, flags ...string) map[string]parkedSession {
	t.Helper()
	return parkedAsJSON(t, status, append(slices.Clip(flags), "--retry")...)
}

func parkedAsJSON(t *testing.T, status int, flags ...string) map[string]parkedSession {
	t.Helper()
	got, stdout, stderr := rig.Command(t, nil, append([]string{"parked", "--output", "json"}, flags...)...)
	if got != status {
		t.Fatalf("exit status %d, want %d: %q, %q", got, status, stdout, stderr)
	}
	sessions := map[string]parkedSession{}
	for line := range strings.Lines(stdout) {
		var one parkedSession
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		sessions[one.SessionID] = one
	}
	return sessions
}

// park does in Redis what a projector does with a session that it cannot read.
func park(t *testing.T, rdb *redis.Client, id, reason string) {
	t.Helper()
	ctx := t.Context()
	begin := "cs2:{0}:" + answeringGeneration(t, rdb) + ":"
	text, err := rdb.Get(ctx, begin+"doc:"+id).Result()
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(text, "\n")
	noted, err := json.Marshal(map[string]any{"sessionId": id, "position": 7, "reason": reason})
	if err != nil {
		t.Fatal(err)
	}
	indexes := keysOf(t, rdb, begin+"by:*")
	_, err = rdb.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
		pipe.HSet(ctx, begin+"parked", id, noted)
		pipe.Del(ctx, begin+"doc:"+id)
		for _, index := range indexes {
			pipe.ZRem(ctx, index, rest[:24])
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// without is the content but for some sessions, which are in no list.
func without(c rig.Content, paths ...string) rig.Content {
	var all []json.RawMessage
	if err := json.Unmarshal([]byte(c.List), &all); err != nil {
		panic(err) // it came from the service, and was read before
	}
	rest := rig.Content{Sessions: maps.Clone(c.Sessions)}
	for _, path := range paths {
		delete(rest.Sessions, path)
		all = slices.DeleteFunc(all, func(session json.RawMessage) bool { return bytes.Equal(session, c.Sessions[path].Body) })
	}
	texts := make([]string, len(all))
	for i, session := range all {
		texts[i] = string(session)
	}
	rest.List = "[" + strings.Join(texts, ",") + "]"
	return rest
}

// awaitParked returns when the service counts n parked sessions.
func awaitParked(t *testing.T, s *rig.Service, n int) {
	t.Helper()
	rig.Eventually(t, func() error {
		if got := s.Metrics()["chatsessions_parked_sessions"]; got != float64(n) {
			return fmt.Errorf("%v sessions are parked, want %d", got, n)
		}
		return nil
	})
}

// notAUUID is a session id as no service makes it.
const notAUUID = "not-a-uuid"
