package main

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
)

func TestAForeignMessageParksItsSessionAndNothingElse(t *testing.T) {
	onEveryStore(t, func(t *testing.T, s *service, flags []string) {
		before := fill(t, s, 6)
		victim := before.paths()[0]
		s.as("service-crm").expect(200, "PATCH", victim, `{"room": "with a key"}`, "Idempotency-Key: k")
		before = s.content()
		foreign := map[string]string{ // what lies where, by the session's id
			strings.TrimPrefix(victim, "/chat-sessions/"): `{"hello": "world"}`, ghost: "", notAUUID: "\xff not an event",
		}
		positions := map[string]uint64{}
		for id, data := range foreign {
			positions[id] = s.publish(&nats.Msg{Subject: "chat-sessions." + id, Data: []byte(data)})
		}
		check := func(when string) {
			t.Helper()
			awaitParked(t, s, len(foreign))
			before.without(victim).check(s)
			crm := s.as("service-crm")
			for _, path := range []string{victim, "/chat-sessions/" + ghost} {
				p := crm.refused(503, "GET", path, "")
				if detail := fmt.Sprint(p["detail"]); !strings.Contains(detail, "cannot be read") || !strings.Contains(detail, "chatsessions parked") {
					t.Errorf("%s, GET %s: %s", when, path, detail)
				}
				p = crm.refused(503, "PATCH", path, `{"room": "new"}`)
				if detail := fmt.Sprint(p["detail"]); p["mayHaveBeenWritten"] != false || !strings.Contains(detail, "cannot be read") {
					t.Errorf("%s, PATCH %s: %v", when, path, p)
				}
			}
			// What an earlier request with the same key did, cannot be told.
			if p := crm.refused(503, "PATCH", victim, `{"room": "with a key"}`, "Idempotency-Key: k"); p["mayHaveBeenWritten"] != true {
				t.Errorf("%s, PATCH %s again: %v", when, victim, p)
			}
			crm.expect(404, "GET", "/chat-sessions/"+notAUUID, "")

			table, told := parked(t, exitDone, flags...)
			for id, position := range positions {
				line := regexp.MustCompile(`(?m)^` + id + ` +` + strconv.FormatUint(position, 10) + ` +\S.*$`)
				if !line.MatchString(table) {
					t.Errorf("%s: there is no line of %s at %d:\n%s", when, id, position, table)
				}
				if got := told[id]; got.Position != position || !strings.Contains(got.Reason, "cannot be read") {
					t.Errorf("%s: %s is parked as %+v", when, id, got)
				}
			}
			if len(told) != len(foreign) || strings.Count(table, "\n") != len(foreign)+1 {
				t.Errorf("%s: parked are %v:\n%s", when, told, table)
			}
			for id, position := range positions {
				want := fmt.Sprintf(`level=ERROR msg="an event cannot be projected: its session is parked" session=%s position=%d error=`, id, position)
				if log := s.errors.String(); !strings.Contains(log, want) {
					t.Errorf("%s: the log lacks %s", when, want)
				}
			}
		}
		check("at first")

		// The others go on, and the parked ones were not written.
		crm := s.as("service-crm")
		path := crm.create(`{"room": "meanwhile", "createdBy": "alice"}`)
		changed := crm.expect(200, "PATCH", path, `{"start": true}`)
		if got := crm.expect(200, "GET", path, ""); !bytes.Equal(got.body, changed.body) || got.header.Get("Chat-Sessions-Source") != "" {
			t.Errorf("%s is %s from %q, written was %s", path, got.body, got.header.Get("Chat-Sessions-Source"), changed.body)
		}
		if got := crm.expect(200, "GET", "/chat-sessions?room=meanwhile", ""); !bytes.Contains(got.body, changed.body) {
			t.Errorf("the list is %s, written was %s", got.body, changed.body)
		}
		for id, position := range positions {
			if newest := s.newestOn("chat-sessions." + id); newest != position {
				t.Errorf("the newest message of %s is at %d, and the foreign one at %d", id, newest, position)
			}
		}

		// Nothing brings them back as long as that lies there.
		told := retry(t, exitFailed, flags...)
		for id := range foreign {
			if !strings.Contains(told[id].Retried, "cannot be read") {
				t.Errorf("--retry of %s: %+v", id, told[id])
			}
		}
		status, stdout, stderr := command(t, nil, append([]string{"parked", "--retry"}, flags...)...)
		if status != exitFailed || strings.Count(stdout, "cannot be read") != 2*3 || !strings.Contains(stderr, "3 of 3 sessions could not be brought back") {
			t.Errorf("exit status %d, %q, %q", status, stdout, stderr)
		}
		status, stdout, stderr = command(t, nil, append([]string{"parked", "--retry", ghost}, flags...)...)
		if status != exitFailed || strings.Count(stdout, "\n") != 2 || !strings.Contains(stderr, "1 of 1 sessions could not be brought back") {
			t.Errorf("exit status %d, %q, %q", status, stdout, stderr)
		}

		// From scratch, it is the same.
		before = s.content()
		s.stop()
		if s.flag("--redis-url") != "" {
			if err := s.openRedis().FlushAll(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
		}
		s.errors = &output{}
		s.start()
		check("after a start from scratch")
		if s.flag("--redis-url") != "" { // and where the service goes on from its checkpoint
			s.restart()
			check("after a restart")
		}

		// And after a rebuild.
		rebuilt := rebuild(t, exitDone, flags...)
		if !strings.HasPrefix(rebuilt.stdout, "A read model of 6 sessions, ") || !strings.Contains(rebuilt.stdout, ": 0 differences to the old one") ||
			strings.Count(rebuilt.stderr, "its session is parked") != len(foreign) {
			t.Errorf("told %q, %q", rebuilt.stdout, rebuilt.stderr)
		}
		check("after a rebuild")
	})
}

func TestALaterEventBringsAParkedSessionBack(t *testing.T) {
	onEveryStore(t, func(t *testing.T, s *service, flags []string) {
		before := fill(t, s, 6)
		victim := before.paths()[3]
		id := strings.TrimPrefix(victim, "/chat-sessions/")
		var newest event
		for _, e := range s.log() {
			if e.session["id"] == id {
				newest = e
			}
		}
		s.publish(&nats.Msg{Subject: newest.subject, Data: []byte("not an event")})
		awaitParked(t, s, 1)
		again := &nats.Msg{Subject: newest.subject, Data: newest.data, Header: nats.Header{}}
		for name, values := range newest.header {
			if strings.HasPrefix(name, "ce-") {
				again.Header[name] = values
			}
		}
		s.publish(again)
		awaitParked(t, s, 0)
		before.eventuallyHealed(s)
		if status, stdout, _ := command(t, nil, append([]string{"parked"}, flags...)...); status != exitDone || stdout != "No session is parked.\n" {
			t.Errorf("exit status %d, %q", status, stdout)
		}
		rebuild(t, exitDone, append(flags, "--compare-only")...).expect(t, `: 0 differences `)
	})
}

func TestARetryBringsBackWhatCanBeRead(t *testing.T) {
	onEveryStore(t, func(t *testing.T, s *service, flags []string) {
		before := fill(t, s, 6)
		rdb := s.openRedis()
		one, other := before.paths()[1], before.paths()[4]
		for _, path := range []string{one, other} {
			park(t, rdb, strings.TrimPrefix(path, "/chat-sessions/"), "an older version could not read it")
		}
		awaitParked(t, s, 2)
		before.without(one, other).check(s)
		for _, path := range []string{one, other} { // the log can tell them
			got := s.as("service-crm").expect(200, "GET", path, "")
			if want := before.sessions[path]; !bytes.Equal(got.body, want.body) || got.header.Get("Chat-Sessions-Source") != "log" {
				t.Errorf("%s is %s from %q, and was %s", path, got.body, got.header.Get("Chat-Sessions-Source"), want.body)
			}
		}

		id := strings.TrimPrefix(one, "/chat-sessions/")
		status, stdout, stderr := command(t, nil, append([]string{"parked", id, "--retry"}, flags...)...)
		if status != exitDone || stderr != "" || !regexp.MustCompile(id+` +7 +an older version could not read it +brought back\n$`).MatchString(stdout) {
			t.Errorf("exit status %d, %q, %q", status, stdout, stderr)
		}
		awaitParked(t, s, 1)
		before.without(other).check(s)
		status, stdout, stderr = command(t, nil, append([]string{"parked", id, "--retry"}, flags...)...)
		if status != exitFailed || stdout != "" || !strings.Contains(stderr, id+": the session is not parked") {
			t.Errorf("exit status %d, %q, %q", status, stdout, stderr)
		}

		told := retry(t, exitDone, flags...)
		if got := told[strings.TrimPrefix(other, "/chat-sessions/")]; len(told) != 1 || got.Retried != "brought back" {
			t.Errorf("--retry told %v", told)
		}
		awaitParked(t, s, 0)
		before.check(s)
		if told := retry(t, exitDone, flags...); len(told) != 0 {
			t.Errorf("--retry of nothing told %v", told)
		}
		rebuild(t, exitDone, append(flags, "--compare-only")...).expect(t, `: 0 differences `)
		for path := range before.sessions {
			s.as("service-crm").expect(200, "PATCH", path, `{"room": "it goes on"}`)
		}
		checkReadModel(t, s, s.log())
	})
}

func TestWithoutAReadModelThereIsNothingParkedToTell(t *testing.T) {
	t.Parallel()
	servers := startServers(t)
	s := startService(t, servers.flags()...)
	embedded := startService(t, "--dev")
	embedded.stop()
	for _, c := range []struct {
		flags []string
		says  []string
	}{
		{nil, []string{"chatsessions-data", "--data-dir", "--nats-url"}},
		{[]string{"--data-dir", embedded.flag("--data-dir")}, []string{"not running", "start it"}},
		{[]string{"--nats-url", servers.nats.URL()}, []string{"--redis-url"}},
		{append(servers.stores(), "--redis-partitions", "2"), []string{"--redis-partitions 2", "--redis-partitions 1"}},
		{append(servers.stores(), "--redis-partitions", "2", ghost), []string{"--redis-partitions 2", "--redis-partitions 1"}},
		{append(servers.stores(), ghost), []string{ghost, "not parked"}},
	} {
		status, stdout, stderr := command(t, nil, append([]string{"parked"}, c.flags...)...)
		if status != exitFailed || stdout != "" || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: exit status %d, %q, %q", c.flags, status, stdout, stderr)
		}
		for _, want := range c.says {
			if !strings.Contains(stderr, want) {
				t.Errorf("%q: %q does not say %s", c.flags, stderr, want)
			}
		}
	}
	if status, stdout, stderr := command(t, nil, append([]string{"parked", "--output", "json"}, servers.stores()...)...); status != exitDone || stdout != "" || stderr != "" {
		t.Errorf("exit status %d, %q, %q", status, stdout, stderr)
	}
	checkReadModel(t, s, s.log())
}

// A parkedSession is what --output json tells of one.
type parkedSession struct {
	SessionID, Reason, Retried string
	Position                   uint64
}

// parked runs `chatsessions parked` twice: for the table, and for the sessions by id.
func parked(t *testing.T, status int, flags ...string) (table string, sessions map[string]parkedSession) {
	t.Helper()
	got, table, stderr := command(t, nil, append([]string{"parked"}, flags...)...)
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
	got, stdout, stderr := command(t, nil, append([]string{"parked", "--output", "json"}, flags...)...)
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
func (c content) without(paths ...string) content {
	var all []json.RawMessage
	if err := json.Unmarshal([]byte(c.list), &all); err != nil {
		panic(err) // it came from the service, and was read before
	}
	rest := content{sessions: maps.Clone(c.sessions)}
	for _, path := range paths {
		delete(rest.sessions, path)
		all = slices.DeleteFunc(all, func(session json.RawMessage) bool { return bytes.Equal(session, c.sessions[path].body) })
	}
	texts := make([]string, len(all))
	for i, session := range all {
		texts[i] = string(session)
	}
	rest.list = "[" + strings.Join(texts, ",") + "]"
	return rest
}
