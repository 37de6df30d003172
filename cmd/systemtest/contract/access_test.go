package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestATokenIsNeeded and is told apart from a bad one (RFC 6750, section 3).
func TestATokenIsNeeded(t *testing.T) {
	s := startService(t, "--dev")
	path := s.as("account-alice").create("{}")
	anyone := s.as("account-alice")
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
		for _, request := range [][]string{{"GET", "/chat-sessions"}, {"GET", path}, {"GET", nobody}, {"POST", "/chat-sessions"}, {"PATCH", path}, {"HEAD", path}} {
			sent := fmt.Sprintf("%s %s Authorization: %s", request[0], request[1], tt.authorization)
			a, err := anyone.do(request[0], request[1], "", "Authorization: "+tt.authorization)
			if err != nil || tt.challenge != "" && a.status != 401 || a.status >= 500 {
				t.Errorf("%s: %d %s %v, want 401", sent, a.status, a.body, err)
				continue
			}
			if got := a.header["Www-Authenticate"]; tt.challenge != "" && (len(got) != 1 || got[0] != tt.challenge) {
				t.Errorf("%s: WWW-Authenticate is %q, want %q", sent, got, tt.challenge)
			}
			if request[0] != "HEAD" && a.status == 401 {
				a.problem(t, sent)
			}
		}
	}
	for _, scheme := range []string{"bearer", "BEARER", "Bearer "} { // the scheme is case-insensitive (RFC 9110, section 11.1)
		anyone.expect(200, "GET", path, "", "Authorization: "+scheme+" dev-account-alice")
	}
}

// TestATokenOfTheTokensFileStandsForItsAccountAndRole.
func TestATokenOfTheTokensFileStandsForItsAccountAndRole(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	var lines []string
	tokens := map[string]string{}
	for _, role := range []string{"account", "service", "auditor", "admin"} {
		out := runCommand(t, "token", "--account", "acc "+role, "--role", role, "--output", "json")
		o := answer{body: []byte(out)}.object(t)
		tokens[role] = fmt.Sprint(o["token"])
		lines = append(lines, fmt.Sprint(o["line"]))
	}
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := startService(t, "--auth-tokens", file)
	for role, status := range map[string]int{"account": 200, "service": 200, "admin": 200, "auditor": 403} {
		c := &client{t, s.url, tokens[role]}
		a := c.expect(status, "POST", "/chat-sessions", "{}")
		if status == 200 {
			has(t, a.object(t), members{"createdBy": "acc " + role})
		}
		c.expect(200, "GET", "/chat-sessions", "")
		(&client{t, s.url, tokens[role] + "x"}).refused(401, "GET", "/chat-sessions", "")
	}
	s.as("account-alice").refused(401, "GET", "/chat-sessions", "") // no dev tokens here
}

// TestAnAuditorReadsEverythingAndChangesNothing.
func TestAnAuditorReadsEverythingAndChangesNothing(t *testing.T) {
	s := startService(t, "--dev")
	auditor := s.as("auditor-eve")
	path := s.as("account-alice").create(`{"participants":["eve"]}`)
	check := auditor.unchanged(path)
	for _, tt := range []struct{ method, path, body string }{
		{"POST", "/chat-sessions", "{}"}, {"POST", "/chat-sessions", "nonsense"}, {"PATCH", path, `{"start":true}`}, {"PATCH", path, `{}`},
		{"PATCH", path, `{"room":5}`}, {"PATCH", nobody, "{}"}, {"PATCH", "/chat-sessions/x", ""},
	} {
		auditor.refused(403, tt.method, tt.path, tt.body)
	}
	check("all writes")
	same(t, "what an auditor lists", ids(auditor.list("")), []string{idOf(path)})
}

// TestWhatIsNotTheCallersToSeeIsNotThere, in every endpoint, and looks like what
// does not exist.
func TestWhatIsNotTheCallersToSeeIsNotThere(t *testing.T) {
	onAllSetups(t, func(t *testing.T, s *service) {
		alice, bob, eve := s.as("account-alice"), s.as("account-bob"), s.as("account-eve")
		path := alice.create(`{"participants":["bob"],"room":"secret"}`)
		hidden := func(c *client) {
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
				p, unknown := c.refused(404, tt.method, path, tt.body, headers...), c.refused(404, tt.method, nobody, tt.body, headers...)
				p["instance"], unknown["instance"] = "", ""
				if toJSON(p) != toJSON(unknown) {
					t.Errorf("%s %s %s: told apart from what does not exist: %v and %v", tt.method, tt.body, tt.header, p, unknown)
				}
			}
			a := c.expect(404, "HEAD", path, "")
			if len(a.header["Etag"])+len(a.header["Chat-Sessions-Position"]) > 0 {
				t.Errorf("HEAD tells %v", a.header)
			}
			for _, query := range []string{"", "?room=secret", "?createdBy=alice", "?participants=bob", "?state=created", "?createdAt[$gt]=0"} {
				a := c.expect(200, "GET", "/chat-sessions"+query, "", "Prefer: count=exact")
				if len(a.list(t)) != 0 || a.header.Get("X-Total-Count") != "0" {
					t.Errorf("%s: %s, counted %s", query, a.body, a.header.Get("X-Total-Count"))
				}
			}
		}
		hidden(eve)
		for _, c := range []*client{alice, bob, s.as("service-eve"), s.as("auditor-eve"), s.as("admin-eve")} {
			c.expect(200, "GET", path, "")
			same(t, "list", ids(c.list("?room=secret")), []string{idOf(path)})
		}
		alice.patch(path, `{"participants":["eve"]}`)
		hidden(bob)
		eve.patch(path, `{"start":true}`)
		eve.patch(path, `{"participants":[]}`) // and shuts himself out
		hidden(eve)
		alice.patch(path, `{"accept":true}`)
	})
}

// TestAnAccountActsInItsOwnNameOnly, with any directive, in what it created or
// takes part in.
func TestAnAccountActsInItsOwnNameOnly(t *testing.T) {
	s := startService(t, "--dev")
	alice, bob := s.as("account-alice"), s.as("account-bob")
	for _, c := range []*client{alice, bob} { // the creator, a participant
		name := strings.TrimPrefix(c.token, "dev-account-")
		path := alice.create(`{"participants":["bob"]}`)
		for _, body := range []string{`{"start":true}`, `{"accept":true}`, `{"finish":true}`} {
			c.patch(path, body)
		}
		has(t, alice.get(path), members{"startedBy": name, "acceptedBy": name, "finishedBy": name})
		path = alice.create(`{"participants":["bob"]}`)
		has(t, c.patch(path, fmt.Sprintf(`{"startedBy":%q,"reject":"x","rejectedBy":%[1]q}`, name)), members{"startedBy": name, "rejectedBy": name})
		has(t, c.patch(path, `{"room":"theirs","type":"telemed"}`), members{"room": "theirs"})
	}
	for _, field := range []string{"startedBy", "acceptedBy", "rejectedBy", "finishedBy"} {
		history := map[string]string{"startedBy": "", "acceptedBy": `"startedAt":1,`, "rejectedBy": `"startedAt":1,`, "finishedBy": `"startedAt":1,"acceptedAt":1,`}[field]
		p := alice.refused(403, "POST", "/chat-sessions", `{"createdAt":1,`+history+`"`+field+`":"bob"}`)
		same(t, "pointers", pointers(t, p), []string{"/" + field})
		state := map[string]string{"startedBy": "created", "acceptedBy": "started", "rejectedBy": "started", "finishedBy": "accepted"}[field]
		path := s.reach(t, "alice", state)
		check := alice.unchanged(path)
		p = alice.refused(403, "PATCH", path, `{"`+field+`":"bob","room":"x"}`)
		same(t, "pointers", pointers(t, p), []string{"/" + field})
		check(field)
		for _, role := range []string{"service", "admin"} {
			has(t, s.as(role+"-x").patch(s.reach(t, "alice", state), `{"`+field+`":"bob"}`), members{field: "bob"})
		}
	}
}

// TestAnAccountCorrectsOnlyItsOwnStamps, and none after the end.
func TestAnAccountCorrectsOnlyItsOwnStamps(t *testing.T) {
	s := startService(t, "--dev")
	alice, bob := s.as("account-alice"), s.as("account-bob") // the stamps are alice's
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
		path := s.reach(t, "alice", tt.state)
		check := bob.unchanged(path)
		same(t, "pointers", pointers(t, bob.refused(403, "PATCH", path, tt.body)), tt.pointers)
		check(tt.body)
		if !strings.Contains(tt.body, "bob") {
			alice.patch(path, tt.body)
		}
	}
	alice.refused(403, "PATCH", s.reach(t, "alice", "started"), `{"startedBy":"bob"}`)

	for _, body := range []string{`{"startedAt":1600000000500}`, `{"finishedAt":1600000003500}`, `{"finishReason":"x"}`, `{"finishReason":""}`} {
		path := s.reach(t, "alice", "finished")
		check := alice.unchanged(path)
		alice.refused(403, "PATCH", path, body)
		bob.refused(403, "PATCH", path, body)
		check(body)
		for _, role := range []string{"service", "admin"} {
			s.as(role+"-x").patch(s.reach(t, "alice", "finished"), body)
		}
	}
	path := s.reach(t, "alice", "finished")
	for _, directive := range allDirectives {
		for _, c := range []*client{alice, bob, s.as("service-x")} {
			c.refused(409, "PATCH", path, `{"`+directive+`":true}`)
		}
	}
}
