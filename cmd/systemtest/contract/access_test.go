package contract

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chatsessions/cmd/systemtest/rig"
)

// TestATokenIsNeeded and is told apart from a bad one (RFC 6750, section 3).
func TestATokenIsNeeded(t *testing.T) {
	s := rig.Start(t, "--dev")
	path := s.As("account-alice").Create("{}")
	anyone := s.As("account-alice")
	for _, tt := range []struct{ authorization, challenge string }{
		{"", "Bearer"},
		{"Basic YWxpY2U6cGFzcw==", "Bearer"},
		{"Digest x", "Bearer"},
		{"Bearer", "Bearer"},
		{"Bearer nonsense", `Bearer error="invalid_token"`},
		{"Bearer dev-nobody-alice", `Bearer error="invalid_token"`},
		{"Bearer dev-account-", `Bearer error="invalid_token"`},
		{"Bearer dev-account", `Bearer error="invalid_token"`},
		{"Bearer DEV-account-alice", `Bearer error="invalid_token"`},
		{"Bearer dev-account-alice x", ""},
		{"dev-account-alice", "Bearer"},
		{"Bearerdev-account-alice", "Bearer"},
	} {
		for _, request := range [][]string{{"GET", "/chat-sessions"}, {"GET", path}, {"GET", rig.NoSession}, {"POST", "/chat-sessions"}, {"PATCH", path}, {"HEAD", path}} {
			sent := fmt.Sprintf("%s %s Authorization: %s", request[0], request[1], tt.authorization)
			a, err := anyone.Do(request[0], request[1], "", "Authorization: "+tt.authorization)
			if err != nil || tt.challenge != "" && a.Status != 401 || a.Status >= 500 {
				t.Errorf("%s: %d %s %v, want 401", sent, a.Status, a.Body, err)
				continue
			}
			if got := a.Header["Www-Authenticate"]; tt.challenge != "" && (len(got) != 1 || got[0] != tt.challenge) {
				t.Errorf("%s: WWW-Authenticate is %q, want %q", sent, got, tt.challenge)
			}
			if request[0] != "HEAD" && a.Status == 401 {
				a.Problem(t, sent)
			}
		}
	}
	for _, scheme := range []string{"bearer", "BEARER", "Bearer "} { // the scheme is case-insensitive (RFC 9110, section 11.1)
		anyone.Expect(200, "GET", path, "", "Authorization: "+scheme+" dev-account-alice")
	}
}

// TestATokenOfTheTokensFileStandsForItsAccountAndRole.
func TestATokenOfTheTokensFileStandsForItsAccountAndRole(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	var lines []string
	tokens := map[string]string{}
	for _, role := range []string{"account", "service", "auditor", "admin"} {
		out := rig.MustCommand(t, "token", "--account", "acc "+role, "--role", role, "--output", "json")
		o := rig.Answer{Body: []byte(out)}.Object(t)
		tokens[role] = fmt.Sprint(o["token"])
		lines = append(lines, fmt.Sprint(o["line"]))
	}
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := rig.Start(t, "--auth-tokens", file)
	for role, status := range map[string]int{"account": 200, "service": 200, "admin": 200, "auditor": 403} {
		c := &rig.Client{T: t, URL: s.URL, Token: tokens[role]}
		a := c.Expect(status, "POST", "/chat-sessions", "{}")
		if status == 200 {
			has(t, a.Object(t), members{"createdBy": "acc " + role})
		}
		c.Expect(200, "GET", "/chat-sessions", "")
		(&rig.Client{T: t, URL: s.URL, Token: tokens[role] + "x"}).Refused(401, "GET", "/chat-sessions", "")
	}
	s.As("account-alice").Refused(401, "GET", "/chat-sessions", "") // no dev tokens here
}

// TestAnAuditorReadsEverythingAndChangesNothing.
func TestAnAuditorReadsEverythingAndChangesNothing(t *testing.T) {
	s := rig.Start(t, "--dev")
	auditor := s.As("auditor-eve")
	path := s.As("account-alice").Create(`{"participants":["eve"]}`)
	check := unchanged(auditor, path)
	for _, tt := range []struct{ method, path, body string }{
		{"POST", "/chat-sessions", "{}"}, {"POST", "/chat-sessions", "nonsense"}, {"PATCH", path, `{"start":true}`}, {"PATCH", path, `{}`},
		{"PATCH", path, `{"room":5}`}, {"PATCH", rig.NoSession, "{}"}, {"PATCH", "/chat-sessions/x", ""},
	} {
		auditor.Refused(403, tt.method, tt.path, tt.body)
	}
	check("all writes")
	same(t, "what an auditor lists", ids(auditor.List("")), []string{idOf(path)})
}

// TestWhatIsNotTheCallersToSeeIsNotThere, in every endpoint, and looks like what
// does not exist.
func TestWhatIsNotTheCallersToSeeIsNotThere(t *testing.T) {
	rig.OnAllSetups(t, func(t *testing.T, s *rig.Service) {
		alice, bob, eve := s.As("account-alice"), s.As("account-bob"), s.As("account-eve")
		path := alice.Create(`{"participants":["bob"],"room":"secret"}`)
		hidden := func(c *rig.Client) {
			t.Helper()
			for _, tt := range []struct{ method, body, header string }{
				{"GET", "", ""}, {"GET", "", "If-None-Match: *"}, {"GET", "", `If-Match: "99"`}, {"PATCH", "{}", ""}, {"PATCH", `{"start":true}`, ""},
				{"PATCH", `{"accept":true}`, ""}, {"PATCH", `{"room":5}`, ""}, {"PATCH", `{"strt":1}`, "Prefer: handling=strict"},
				{"PATCH", `{"room":"x"}`, `If-Match: "99"`}, {"PATCH", `{"startedBy":"bob"}`, ""}, {"PATCH", `{"createdAt":8640000000000000}`, ""},
				{"PATCH", `{"start":true}`, "Idempotency-Key: k"},
			} {
				headers := []string{}
				if tt.header != "" {
					headers = append(headers, tt.header)
				}
				p, unknown := c.Refused(404, tt.method, path, tt.body, headers...), c.Refused(404, tt.method, rig.NoSession, tt.body, headers...)
				p["instance"], unknown["instance"] = "", ""
				if rig.ToJSON(p) != rig.ToJSON(unknown) {
					t.Errorf("%s %s %s: told apart from what does not exist: %v and %v", tt.method, tt.body, tt.header, p, unknown)
				}
			}
			a := c.Expect(404, "HEAD", path, "")
			if len(a.Header["Etag"])+len(a.Header["Chat-Sessions-Position"]) > 0 {
				t.Errorf("HEAD tells %v", a.Header)
			}
			for _, query := range []string{"", "?room=secret", "?createdBy=alice", "?participants=bob", "?state=created", "?createdAt[$gt]=0"} {
				a := c.Expect(200, "GET", "/chat-sessions"+query, "", "Prefer: count=exact")
				if len(a.List(t)) != 0 || a.Header.Get("X-Total-Count") != "0" {
					t.Errorf("%s: %s, counted %s", query, a.Body, a.Header.Get("X-Total-Count"))
				}
			}
		}
		hidden(eve)
		for _, c := range []*rig.Client{alice, bob, s.As("service-eve"), s.As("auditor-eve"), s.As("admin-eve")} {
			c.Expect(200, "GET", path, "")
			same(t, "list", ids(c.List("?room=secret")), []string{idOf(path)})
		}
		alice.Patch(path, `{"participants":["eve"]}`)
		hidden(bob)
		eve.Patch(path, `{"start":true}`)
		eve.Patch(path, `{"participants":[]}`) // and shuts himself out
		hidden(eve)
		alice.Patch(path, `{"accept":true}`)
	})
}

// TestAnAccountActsInItsOwnNameOnly, with any directive, in what it created or
// takes part in.
func TestAnAccountActsInItsOwnNameOnly(t *testing.T) {
	s := rig.Start(t, "--dev")
	alice, bob := s.As("account-alice"), s.As("account-bob")
	for _, c := range []*rig.Client{alice, bob} { // the creator, a participant
		name := strings.TrimPrefix(c.Token, "dev-account-")
		path := alice.Create(`{"participants":["bob"]}`)
		for _, body := range []string{`{"start":true}`, `{"accept":true}`, `{"finish":true}`} {
			c.Patch(path, body)
		}
		has(t, alice.Get(path), members{"startedBy": name, "acceptedBy": name, "finishedBy": name})
		path = alice.Create(`{"participants":["bob"]}`)
		has(t, c.Patch(path, fmt.Sprintf(`{"startedBy":%q,"reject":"x","rejectedBy":%[1]q}`, name)), members{"startedBy": name, "rejectedBy": name})
		has(t, c.Patch(path, `{"room":"theirs","type":"telemed"}`), members{"room": "theirs"})
	}
	for _, field := range []string{"startedBy", "acceptedBy", "rejectedBy", "finishedBy"} {
		history := map[string]string{"startedBy": "", "acceptedBy": `"startedAt":1,`, "rejectedBy": `"startedAt":1,`, "finishedBy": `"startedAt":1,"acceptedAt":1,`}[field]
		p := alice.Refused(403, "POST", "/chat-sessions", `{"createdAt":1,`+history+`"`+field+`":"bob"}`)
		same(t, "pointers", pointers(t, p), []string{"/" + field})
		state := map[string]string{"startedBy": "created", "acceptedBy": "started", "rejectedBy": "started", "finishedBy": "accepted"}[field]
		path := reach(s, t, "alice", state)
		check := unchanged(alice, path)
		p = alice.Refused(403, "PATCH", path, `{"`+field+`":"bob","room":"x"}`)
		same(t, "pointers", pointers(t, p), []string{"/" + field})
		check(field)
		for _, role := range []string{"service", "admin"} {
			has(t, s.As(role+"-x").Patch(reach(s, t, "alice", state), `{"`+field+`":"bob"}`), members{field: "bob"})
		}
	}
}

// TestAnAccountCorrectsOnlyItsOwnStamps, and none after the end.
func TestAnAccountCorrectsOnlyItsOwnStamps(t *testing.T) {
	s := rig.Start(t, "--dev")
	alice, bob := s.As("account-alice"), s.As("account-bob") // the stamps are alice's
	for _, tt := range []struct {
		state, body string
		pointers    []string
	}{
		{"started", `{"startedAt":1600000000500}`, []string{"/startedAt"}},
		{"started", `{"startedBy":"bob"}`, []string{"/startedBy"}},
		{"accepted", `{"acceptedAt":1600000002500,"startedAt":1600000000500}`, []string{"/acceptedAt", "/startedAt"}},
		{"rejected", `{"rejectReason":"x"}`, []string{"/rejectReason"}},
		{"rejected", `{"rejectReason":null}`, []string{"/rejectReason"}},
	} {
		path := reach(s, t, "alice", tt.state)
		check := unchanged(bob, path)
		same(t, "pointers", pointers(t, bob.Refused(403, "PATCH", path, tt.body)), tt.pointers)
		check(tt.body)
		if !strings.Contains(tt.body, "bob") {
			alice.Patch(path, tt.body)
		}
	}
	alice.Refused(403, "PATCH", reach(s, t, "alice", "started"), `{"startedBy":"bob"}`)

	for _, body := range []string{`{"startedAt":1600000000500}`, `{"finishedAt":1600000003500}`, `{"finishReason":"x"}`, `{"finishReason":""}`} {
		path := reach(s, t, "alice", "finished")
		check := unchanged(alice, path)
		alice.Refused(403, "PATCH", path, body)
		bob.Refused(403, "PATCH", path, body)
		check(body)
		for _, role := range []string{"service", "admin"} {
			s.As(role+"-x").Patch(reach(s, t, "alice", "finished"), body)
		}
	}
	path := reach(s, t, "alice", "finished")
	for _, directive := range allDirectives {
		for _, c := range []*rig.Client{alice, bob, s.As("service-x")} {
			c.Refused(409, "PATCH", path, `{"`+directive+`":true}`)
		}
	}
}
