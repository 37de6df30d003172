package contract

import (
	"encoding/json"
	"fmt"
	"net/url"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"chatsessions/cmd/systemtest/rig"
)

// The contract_… files test the service as a client sees it: what they expect
// is written down in docs/api.md and in the published API, not in the code.

// members are those of a JSON object; in an expectation, nil is "absent".
type members map[string]any

// has checks some members of a session.
func has(t *testing.T, session map[string]any, want members) {
	t.Helper()
	for name, value := range want {
		got, present := session[name]
		if value == nil {
			if present {
				t.Errorf("%s is %v, want it absent: %v", name, got, session)
			}
			continue
		}
		if !reflect.DeepEqual(got, asJSON(value)) {
			t.Errorf("%s is %v, want %v: %v", name, got, value, session)
		}
	}
}

// asJSON returns a value as a JSON decoder would.
func asJSON(value any) any {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	var decoded any
	if err := json.Unmarshal(text, &decoded); err != nil {
		panic(err)
	}
	return decoded
}

// number returns a member that has to be a whole number.
func number(t *testing.T, session map[string]any, name string) int64 {
	t.Helper()
	n, ok := session[name].(float64)
	if !ok || n != float64(int64(n)) {
		t.Fatalf("%s is %v, want a whole number: %v", name, session[name], session)
	}
	return int64(n)
}

// unchanged returns a check that a session is as it was when unchanged was called.
func unchanged(c *rig.Client, path string) func(after string) {
	c.T.Helper()
	before := c.Expect(200, "GET", path, "").Body
	return func(after string) {
		c.T.Helper()
		if now := c.Expect(200, "GET", path, "").Body; string(now) != string(before) {
			c.T.Errorf("after %s the session is %s; it was %s", after, now, before)
		}
	}
}

// The ids of the contract (RFC 9562).
var (
	uuidV7 = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	uuidV8 = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
)

// longAgo is a time in the past that leaves room before and after it.
const longAgo = int64(1_600_000_000_000)

func nowMillis() int64 { return time.Now().UnixMilli() }

// reach makes a session in a state, with a history that lies in the past; its
// creator is the account, its participants are bob and the account itself.
func reach(s *rig.Service, t *testing.T, account, state string) string {
	t.Helper()
	body := members{"createdBy": account, "createdAt": longAgo, "participants": []string{account, "bob"}}
	stamp := func(name string, at int64) { body[name+"At"], body[name+"By"] = at, account }
	switch state {
	case "started":
		stamp("started", longAgo+1000)
	case "accepted":
		stamp("started", longAgo+1000)
		stamp("accepted", longAgo+2000)
	case "rejected":
		stamp("started", longAgo+1000)
		stamp("rejected", longAgo+2000)
		body["rejectReason"] = "busy"
	case "finished":
		stamp("started", longAgo+1000)
		stamp("accepted", longAgo+2000)
		stamp("finished", longAgo+3000)
		body["finishReason"] = "done"
	}
	return s.As("service-crm").In(t).Create(toJSON(body))
}

var allStates = []string{"created", "started", "accepted", "rejected", "finished"}

var allDirectives = []string{"start", "accept", "reject", "finish"}

// ids lists the ids of sessions.
func ids(sessions []map[string]any) []string {
	list := []string{}
	for _, session := range sessions {
		list = append(list, fmt.Sprint(session["id"]))
	}
	return list
}

// idOf takes the id out of a session's path.
func idOf(path string) string { return strings.TrimPrefix(path, "/chat-sessions/") }

// same checks that two lists are equal.
func same[T any](t *testing.T, what string, got, want []T) {
	t.Helper()
	if len(got) == 0 && len(want) == 0 {
		return
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// escape percent-encodes a value of a query.
func escape(value string) string { return url.QueryEscape(value) }

// refused sends a request that has to be refused with the status, and returns the problem in
// the response.
func refused(c *rig.Client, status int, method, path, body string, headers ...string) map[string]any {
	c.T.Helper()
	a := c.Expect(status, method, path, body, headers...)
	sent := fmt.Sprintf("%s %s %.300s %q", method, path, body, headers)
	return problemIn(c.T, a, sent)
}

// problemIn checks that an answer speaks both error dialects, and returns its body.
func problemIn(t *testing.T, a rig.Answer, sent string) map[string]any {
	t.Helper()
	if got := a.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Fatalf("%s: %d with Content-Type %q: %s", sent, a.Status, got, a.Body)
	}
	p := a.Object(t)
	class, known := feathersClass[a.Status]
	if !known {
		t.Errorf("%s: status %d is not one of the contract's: %s", sent, a.Status, a.Body)
	}
	want := map[string]any{"status": float64(a.Status), "code": float64(a.Status), "name": class[0], "className": class[1]}
	for name, value := range want {
		if p[name] != value {
			t.Errorf("%s: %s is %v, want %v: %s", sent, name, p[name], value, a.Body)
		}
	}
	for _, name := range []string{"type", "title", "detail", "instance", "message"} {
		if text, _ := p[name].(string); text == "" {
			t.Errorf("%s: %s is not a text: %s", sent, name, a.Body)
		}
	}
	return p
}

// feathersClass is what a Feathers client throws for a status: name, className.
var feathersClass = map[int][2]string{
	400: {"BadRequest", "bad-request"},
	401: {"NotAuthenticated", "not-authenticated"},
	403: {"Forbidden", "forbidden"},
	404: {"NotFound", "not-found"},
	405: {"MethodNotAllowed", "method-not-allowed"},
	406: {"NotAcceptable", "not-acceptable"},
	409: {"Conflict", "conflict"},
	412: {"PreconditionFailed", "precondition-failed"},
	413: {"PayloadTooLarge", "payload-too-large"},
	414: {"URITooLong", "uri-too-long"},
	415: {"UnsupportedMediaType", "unsupported-media-type"},
	422: {"Unprocessable", "unprocessable"},
	429: {"TooManyRequests", "too-many-requests"},
	431: {"RequestHeaderFieldsTooLarge", "request-header-fields-too-large"},
	503: {"Unavailable", "unavailable"},
	504: {"GatewayTimeout", "gateway-timeout"},
}

// toJSON writes a request's body.
func toJSON(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// patch changes a session, and returns it.
func patch(c *rig.Client, path, body string, headers ...string) map[string]any {
	c.T.Helper()
	return c.Expect(200, "PATCH", path, body, headers...).Object(c.T)
}
