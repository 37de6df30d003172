package contract

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chatsessions/cmd/systemtest/rig"
)

// TestATokenOfTheTokensFileStandsForItsAccountAndRole.
func TestATokenOfTheTokensFileStandsForItsAccountAndRole(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	var lines []string
	tokens := map[string]string{}
	for _, role := range []string{"account", "service", "auditor", "admin"} {
		_, out, _ := rig.Command(t, nil, "token", "--account", "acc "+role, "--role", role, "--output", "json")
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
		refused(&rig.Client{T: t, URL: s.URL, Token: tokens[role] + "x"}, 401, "GET", "/chat-sessions", "")
	}
	refused(s.As("account-alice"), 401, "GET", "/chat-sessions", "") // no dev tokens here
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
				p, unknown := refused(c, 404, tt.method, path, tt.body, headers...), refused(c, 404, tt.method, rig.NoSession, tt.body, headers...)
				p["instance"], unknown["instance"] = "", ""
				if toJSON(p) != toJSON(unknown) {
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
		patch(alice, path, `{"participants":["eve"]}`)
		hidden(bob)
		patch(eve, path, `{"start":true}`)
		patch(eve, path, `{"participants":[]}`) // and shuts himself out
		hidden(eve)
		patch(alice, path, `{"accept":true}`)
	})
}
