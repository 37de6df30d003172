package contract

import (
	"fmt"
	"strings"
	"testing"

	"chatsessions/cmd/systemtest/rig"
)

// A draft is a request that is being made wrong.
type draft struct {
	method, path, token, contentType, ifMatch string
	members                                   []string // of the body
	behind                                    string   // what follows the body
}

// A fault is one way to be wrong. Each comes in the contract's order.
type fault struct {
	name   string
	status int
	make   func(d *draft)
	// says is a part of the detail by which this refusal is told from another of
	// the same status.
	says string
}

var faults = []fault{
	{"the method", 405, func(d *draft) { d.method = "PUT" }, ""},
	{"the token", 401, func(d *draft) { d.token = "nonsense" }, ""},
	{"the role", 403, func(d *draft) { d.token = "dev-auditor-alice" }, "role"},
	{"the size", 413, func(d *draft) { d.members = append(d.members, `"title":"`+strings.Repeat("x", 64<<10)+`"`) }, ""},
	{"the media type", 415, func(d *draft) { d.contentType = "text/plain" }, ""},
	{"the JSON", 400, func(d *draft) { d.behind = "}" }, ""},
	{"the session", 404, func(d *draft) { d.path = rig.NoSession }, ""},
	{"the shape", 422, func(d *draft) { d.members = append(d.members, `"room":5`) }, "room"},
	{"the condition", 412, func(d *draft) { d.ifMatch = `"99"` }, ""},
	{"a field of another's", 403, func(d *draft) { d.members = append(d.members, `"acceptedBy":"bob"`) }, "acceptedBy"},
	{"the transition", 409, func(d *draft) { d.members = append(d.members, `"accept":true`) }, ""},
	{"the time", 422, func(d *draft) {
		d.members = append(d.members, fmt.Sprintf(`"createdAt":%d`, nowMillis()+3_600_000))
	}, "createdAt"},
}

// TestWhatIsWrongFirstIsSaidFirst sends every request that is wrong in two ways.
func TestWhatIsWrongFirstIsSaidFirst(t *testing.T) {
	s := rig.Start(t, "--dev")
	path := s.As("account-alice").Create("{}")
	for i, first := range faults {
		for _, second := range faults[i:] { // with itself: wrong in one way
			d := draft{method: "PATCH", path: path, token: "dev-account-alice", contentType: "application/json"}
			second.make(&d)
			first.make(&d)
			if first.name == "the token" && second.name == "the role" {
				continue // a token has one role, or none
			}
			t.Run(first.name+", "+second.name, func(t *testing.T) {
				c := &rig.Client{T: t, URL: s.URL, Token: d.token}
				headers := []string{"Content-Type: " + d.contentType}
				if d.ifMatch != "" {
					headers = append(headers, "If-Match: "+d.ifMatch)
				}
				// A body that is wrong twice in the same member would not be JSON.
				members := d.members
				if first.name == second.name && len(members) > 1 {
					members = members[:1]
				}
				p := c.Refused(first.status, d.method, d.path, "{"+strings.Join(members, ",")+"}"+d.behind, headers...)
				if !strings.Contains(fmt.Sprint(p["detail"]), first.says) {
					t.Errorf("refused with %v, want the word %q in it", p["detail"], first.says)
				}
				if second.says != "" && second.says != first.says && strings.Contains(fmt.Sprint(p["detail"]), second.says) {
					t.Errorf("refused with %v; that has its turn later", p["detail"])
				}
			})
		}
	}
	has(t, s.As("account-alice").Get(path), members{"version": 1})
}

// TestTheOrderOfFaultsOfAPost and of the reads.
func TestTheOrderOfFaultsOfAPostAndOfReads(t *testing.T) {
	s := rig.Start(t, "--dev")
	alice, nobodyKnown, auditor := s.As("account-alice"), &rig.Client{T: t, URL: s.URL, Token: "nonsense"}, s.As("auditor-alice")
	large := `{"title":"` + strings.Repeat("x", 64<<10) + `"}`
	for _, tt := range []struct {
		c                  *rig.Client
		status             int
		method, path, body string
		headers            []string
	}{
		{nobodyKnown, 405, "DELETE", "/chat-sessions", "", nil},
		{nobodyKnown, 405, "PATCH", "/chat-sessions", large, nil},
		{nobodyKnown, 405, "POST", rig.NoSession, "nonsense", nil},
		{nobodyKnown, 401, "POST", "/chat-sessions", large, nil},
		{nobodyKnown, 401, "POST", "/chat-sessions", "x", []string{"Content-Type: text/plain"}},
		{nobodyKnown, 401, "GET", rig.NoSession, "", nil},
		{nobodyKnown, 401, "GET", "/chat-sessions?$foo=1", "", nil},
		{nobodyKnown, 401, "GET", "/chat-sessions", "", []string{"Chat-Sessions-Position: x"}},
		{auditor, 403, "POST", "/chat-sessions", large, nil},
		{auditor, 403, "POST", "/chat-sessions", "x", []string{"Content-Type: text/plain"}},
		{auditor, 403, "POST", "/chat-sessions", "{", nil},
		{alice, 413, "POST", "/chat-sessions", large, []string{"Content-Type: text/plain"}},
		{alice, 413, "POST", "/chat-sessions", large[1:], nil},
		{alice, 415, "POST", "/chat-sessions", "{", []string{"Content-Type: text/plain"}},
		{alice, 400, "POST", "/chat-sessions", "{", []string{"Prefer: handling=strict"}},
		{alice, 400, "POST", "/chat-sessions", `{"room":5}`, []string{"Idempotency-Key: "}},
		{alice, 422, "POST", "/chat-sessions", `{"room":5,"startedBy":"bob"}`, nil},
		{alice, 422, "POST", "/chat-sessions", `{"acceptedBy":"bob"}`, nil}, // a gap is of the shape
		{alice, 403, "POST", "/chat-sessions", `{"createdAt":5000,"startedBy":"bob","startedAt":1}`, nil},
		{alice, 400, "GET", rig.NoSession + "?$foo=1", "", nil},
		{alice, 400, "GET", rig.NoSession, "", []string{"If-Match: x"}},
		{alice, 400, "PATCH", rig.NoSession, "{}", []string{"If-Match: x"}},
		{alice, 404, "GET", rig.NoSession, "", []string{`If-Match: "1"`}},
		{alice, 404, "GET", "/chat-sessions/not-an-id", "", nil},
		{alice, 404, "PATCH", "/chat-sessions/not-an-id", `{"room":5}`, nil},
	} {
		t.Run(fmt.Sprintf("%s %s %s %.20s %q", tt.c.Token, tt.method, tt.path, tt.body, tt.headers), func(t *testing.T) {
			tt.c.In(t).Refused(tt.status, tt.method, tt.path, tt.body, tt.headers...)
		})
	}
	same(t, "sessions", alice.List(""), nil)
}
