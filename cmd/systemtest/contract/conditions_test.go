package contract

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"chatsessions/cmd/systemtest/rig"
)

// TestIfMatchGuardsAgainstALostUpdate (RFC 9110, section 13.1.1).
func TestIfMatchGuardsAgainstALostUpdate(t *testing.T) {
	rig.OnAllSetups(t, func(t *testing.T, s *rig.Service) {
		alice := s.As("account-alice")
		path := alice.Create("{}")
		alice.Patch(path, `{"room":"v2"}`) // version 2
		version := 2
		for _, tt := range []struct {
			ifMatch string // %d is the version
			status  int
		}{
			{`"%d"`, 200}, {`*`, 200}, {`"x", "%d"`, 200}, {`"x","%d","y"`, 200}, {`W/"x", "%d"`, 200},
			{`"1"`, 412}, {`"99"`, 412}, {`"1", "99"`, 412}, {`""`, 412}, {`"0"`, 412}, {`"+%d"`, 412},
			{`W/"%d"`, 412}, // If-Match compares strongly
			{`%d`, 400}, {`"%d`, 400}, {`W/%d`, 400}, {`"1" "%d"`, 400}, {`'%d'`, 400}, {`*, "%d"`, 400},
			{``, 400}, {`,`, 400}, // not the same as no condition
		} {
			value := strings.ReplaceAll(tt.ifMatch, "%d", strconv.Itoa(version))
			body := fmt.Sprintf(`{"room":%q}`, "after "+value)
			check := unchanged(alice, path)
			if tt.status != 200 {
				alice.Refused(tt.status, "PATCH", path, body, "If-Match: "+value)
				check("If-Match: " + value)
				continue
			}
			version++
			a := alice.Expect(200, "PATCH", path, body, "If-Match: "+value)
			if got := a.Header.Get("ETag"); got != fmt.Sprintf(`"%d"`, version) {
				t.Errorf("If-Match: %s: ETag %s, want version %d", value, got, version)
			}
		}
		// Also what would change nothing, and what the machine forbids, is judged by it first.
		alice.Refused(412, "PATCH", path, `{}`, `If-Match: "1"`)
		alice.Refused(412, "PATCH", path, `{"finish":true}`, `If-Match: "1"`)
		alice.Refused(412, "GET", path, "", `If-Match: "1"`)
		alice.Expect(200, "GET", path, "", fmt.Sprintf(`If-Match: "%d"`, version))
	})
}

// TestIfNoneMatchSparesTheBody (RFC 9110, section 13.1.2).
func TestIfNoneMatchSparesTheBody(t *testing.T) {
	rig.OnAllSetups(t, func(t *testing.T, s *rig.Service) {
		alice := s.As("account-alice")
		path := alice.Create("{}")
		for _, method := range []string{"GET", "HEAD"} {
			for _, value := range []string{`"1"`, `W/"1"`, `*`, `"x", "1"`, `"x",W/"1"`} {
				a := alice.Expect(304, method, path, "", "If-None-Match: "+value)
				if len(a.Body) != 0 || a.Header.Get("ETag") != `"1"` {
					t.Errorf("If-None-Match: %s: body %q, ETag %s", value, a.Body, a.Header.Get("ETag"))
				}
			}
			for _, value := range []string{`"2"`, `"x"`, `"0", "2"`, `""`} {
				alice.Expect(200, method, path, "", "If-None-Match: "+value)
			}
		}
		alice.Refused(400, "GET", path, "", "If-None-Match: 1")
		alice.Patch(path, `{"start":true}`)
		alice.Expect(200, "GET", path, "", `If-None-Match: "1"`)
		alice.Expect(304, "GET", path, "", `If-None-Match: "2"`)
		s.As("account-eve").Refused(404, "GET", path, "", "If-None-Match: *")
		s.As("account-eve").Refused(404, "GET", path, "", `If-Match: "1"`)
		alice.Refused(412, "PATCH", path, `{"room":"x"}`, "If-None-Match: *")
	})
}

// TestAListOfTagsMayComeInSeveralLines (RFC 9110, section 5.3).
func TestAListOfTagsMayComeInSeveralLines(t *testing.T) {
	s := rig.Start(t, "--dev")
	path := s.As("account-alice").Create("{}")
	for _, tt := range []struct {
		sent   string
		status int
	}{
		{raw("GET", path, "", `If-None-Match: "9"`, `If-None-Match: "1"`), 304},
		{raw("GET", path, "", `If-None-Match: "9"`, `If-None-Match: "8"`), 200},
		{raw("PATCH", path, "{}", `If-Match: "9"`, `If-Match: "1"`), 200},
		{raw("PATCH", path, "{}", `If-Match: "9"`, `If-Match: "8"`), 412},
	} {
		if a := mustExchange(s, t, tt.sent)[0]; a.Status != tt.status {
			t.Errorf("sent %q\ncame %d %s, want %d", tt.sent, a.Status, a.Body, tt.status)
		}
	}
}

// TestAGetWaitsForThePositionThatItNames, and is told when it does not come.
func TestAGetWaitsForThePositionThatItNames(t *testing.T) {
	rig.OnAllSetups(t, func(t *testing.T, s *rig.Service) {
		alice := s.As("account-alice")
		a := alice.Expect(200, "POST", "/chat-sessions", "{}")
		path := a.Header.Get("Location")
		last := uint64(0)
		for i := range 5 {
			a = alice.Expect(200, "PATCH", path, fmt.Sprintf(`{"room":"r%d"}`, i))
			position := a.Header.Get("Chat-Sessions-Position")
			n, err := strconv.ParseUint(position, 10, 64)
			if err != nil || n <= last {
				t.Fatalf("Chat-Sessions-Position %q after %d", position, last)
			}
			last = n
			header := "Chat-Sessions-Position: " + position
			has(t, alice.Expect(200, "GET", path, "", header).Object(t), members{"room": fmt.Sprintf("r%d", i)})
			has(t, alice.Expect(200, "GET", "/chat-sessions", "", header).List(t)[0], members{"room": fmt.Sprintf("r%d", i)})
		}
		alice.Expect(200, "GET", path, "", "Chat-Sessions-Position: 0")
		future := "Chat-Sessions-Position: " + strconv.FormatUint(last+1000, 10)
		wait := sync.WaitGroup{} // each takes as long as a GET waits
		for _, path := range []string{path, "/chat-sessions"} {
			wait.Go(func() {
				a, err := alice.Do("GET", path, "", future)
				if err != nil || a.Status != 504 {
					t.Errorf("GET %s with %s: %d %s %v, want 504", path, future, a.Status, a.Body, err)
					return
				}
				a.Problem(t, "GET "+path+" with "+future)
			})
		}
		wait.Wait()
	})
}

// TestAMalformedPositionIsRefused before anything is waited for.
func TestAMalformedPositionIsRefused(t *testing.T) {
	s := rig.Start(t, "--dev")
	alice := s.As("account-alice")
	path := alice.Create("{}")
	for _, value := range []string{"x", "-1", "+1", "1.0", "1e3", "0x1", "1,2", "1 2", "18446744073709551616", "١"} {
		alice.Refused(400, "GET", path, "", "Chat-Sessions-Position: "+value)
		alice.Refused(400, "GET", "/chat-sessions", "", "Chat-Sessions-Position: "+value)
	}
}
