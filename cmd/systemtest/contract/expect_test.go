package contract

import (
	"encoding/json"
	"fmt"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"chatsessions/cmd/systemtest/rig"
)

// The contract_… files test the service as a client sees it: what they expect
// is written down in docs/api.md and in the published API, not in the code.

// pointers lists what the errors of a problem point to, each once, sorted.
func pointers(t *testing.T, problem map[string]any) []string {
	t.Helper()
	found := []string{}
	list, _ := problem["errors"].([]any)
	for _, e := range list {
		entry, _ := e.(map[string]any)
		pointer, _ := entry["pointer"].(string)
		if detail, _ := entry["detail"].(string); detail == "" || pointer == "" {
			t.Errorf("an entry of errors lacks pointer or detail: %v", e)
		}
		found = append(found, pointer)
	}
	slices.Sort(found)
	return slices.Compact(found)
}

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
	return s.As("service-crm").In(t).Create(rig.ToJSON(body))
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
