package contract

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"chatsessions/cmd/systemtest/rig"
)

func TestEventsOnTheWireAreAsTheContractSays(t *testing.T) {
	s := rig.Start(t, "--dev")
	nc, err := nats.Connect(s.Connection().NATSURL)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	live := make(chan *nats.Msg, 100)
	if _, err := nc.ChanSubscribe("chat-sessions.>", live); err != nil {
		t.Fatal(err)
	}
	if err := nc.FlushTimeout(rig.Patience); err != nil {
		t.Fatal(err)
	}

	// What a client sends, and the events that it leads to.
	const trace = "0af7651916cd43dd8448eb211c80319c"
	zoe := s.As("account-Zoë 50%")
	writes := []struct {
		method, body string
		key          string
		types        []string
	}{
		{"POST", `{"room": "Grüße", "participants": ["bob"], "createdAt": 1000}`, "k1", []string{"created"}},
		{"PATCH", `{"start": true, "startedAt": 2000}`, "", []string{"started"}},
		{"PATCH", `{"startedAt": 1500, "room": null, "type": "telemed", "accept": true}`, "k2", []string{"corrected", "updated", "accepted"}},
		{"PATCH", `{"finish": "<done> & gone"}`, "", []string{"finished"}},
		{"POST", `{"createdAt": 1, "startedAt": 2, "rejectedAt": 3, "rejectReason": "busy", "finishedAt": 4}`, "", []string{"created", "started", "rejected", "finished"}},
	}
	path, wanted := "", []rig.Event{}
	for i, w := range writes {
		headers := []string{"X-Request-Id: request-" + strconv.Itoa(i), "Traceparent: 00-" + trace + "-b7ad6b7169203331-01"}
		if w.key != "" {
			headers = append(headers, "Idempotency-Key: "+w.key)
		}
		target := "/chat-sessions"
		if w.method == "PATCH" {
			target = path
		}
		a := zoe.Expect(200, w.method, target, w.body, headers...)
		if w.method == "POST" {
			path = a.Header.Get("Location")
		}
		for n, typ := range w.types {
			e := rig.Event{Subject: "chat-sessions." + strings.TrimPrefix(path, "/chat-sessions/"), Header: nats.Header{
				"ce-type":          {"chat-session." + typ},
				"ce-correlationid": {"request-" + strconv.Itoa(i)},
			}}
			if w.key != "" {
				e.Header["ce-requestdigest"] = []string{fmt.Sprintf("%x", sha256.Sum256([]byte(w.body)))}
			}
			if n == len(w.types)-1 { // the answer is the session after the last event
				e.Session = a.Object(t)
			}
			wanted = append(wanted, e)
		}
	}

	events := s.Log()
	if len(events) != len(wanted) {
		t.Fatalf("the log has %d events, want %d", len(events), len(wanted))
	}
	s.Verify()
	ids := map[string]bool{}
	for i, e := range events {
		checkEnvelope(t, e, wanted[i], trace)
		if id := e.Header["ce-id"][0]; ids[id] {
			t.Errorf("event %d: ce-id %s is there twice", e.Sequence, id)
		} else {
			ids[id] = true
		}
		if want := wanted[i].Session; want != nil && !reflect.DeepEqual(e.Session, want) {
			t.Errorf("event %d has %v, the client was answered %v", e.Sequence, e.Session, want)
		}
		select {
		case m := <-live:
			if m.Subject != e.Subject || m.Header["ce-id"][0] != e.Header["ce-id"][0] || string(m.Data) != string(e.Data) {
				t.Errorf("event %d: a subscriber got %s %v", e.Sequence, m.Subject, m.Header)
			}
		case <-time.After(rig.Patience):
			t.Fatalf("event %d did not reach the subscriber", e.Sequence)
		}
	}
	if key := func(i int) []string { return events[i].Header["ce-requestkey"] }; !reflect.DeepEqual(key(2), key(3)) ||
		!reflect.DeepEqual(key(3), key(4)) || reflect.DeepEqual(key(0), key(2)) {
		t.Errorf("request keys %v, %v, %v, %v: one for each keyed write", key(0), key(2), key(3), key(4))
	}
}

// envelopeNames are the headers of every event.
var envelopeNames = []string{
	"ce-specversion", "ce-id", "ce-source", "ce-type", "ce-subject", "ce-time", "ce-datacontenttype",
	"ce-dataschema", "ce-sessionversion", "ce-actor", "ce-correlationid", "traceparent",
}

func checkEnvelope(t *testing.T, e, want rig.Event, trace string) {
	t.Helper()
	wrong := func(format string, args ...any) {
		t.Helper()
		t.Errorf("event %d: %s: %v", e.Sequence, fmt.Sprintf(format, args...), e.Header)
	}
	header := func(name string) string {
		if len(e.Header[name]) != 1 { // not Get: the names are lower case
			return ""
		}
		value, err := url.PathUnescape(e.Header[name][0])
		if err != nil {
			wrong("%s: %v", name, err)
		}
		return value
	}
	names := slices.Clone(envelopeNames)
	if e.Session["version"] != 1.0 {
		names = append(names, "ce-previous")
	}
	if want.Header["ce-requestdigest"] != nil {
		names = append(names, "ce-requestkey", "ce-requestdigest")
	}
	for name := range e.Header {
		if lower := strings.ToLower(name); (strings.HasPrefix(lower, "ce-") || lower == "traceparent") && !slices.Contains(names, name) {
			wrong("%s does not belong there", name)
		}
	}
	for _, name := range names {
		if header(name) == "" {
			wrong("%s is missing", name)
		}
	}
	expected := map[string]string{
		"ce-specversion": "1.0", "ce-source": "/chat-sessions", "ce-datacontenttype": "application/json",
		"ce-type": want.Header["ce-type"][0], "ce-correlationid": want.Header["ce-correlationid"][0],
		"ce-subject": e.Session["id"].(string), "ce-sessionversion": fmt.Sprint(e.Session["version"]),
		"ce-actor": "Zoë 50%", "ce-requestdigest": strings.Join(want.Header["ce-requestdigest"], ""),
	}
	for name, value := range expected {
		if header(name) != value {
			wrong("%s is %q, want %q", name, header(name), value)
		}
	}
	if raw := e.Header["ce-actor"]; len(raw) != 1 || raw[0] != "Zo%C3%AB%2050%25" {
		wrong("ce-actor is not percent-encoded")
	}
	if e.Subject != want.Subject || e.Subject != "chat-sessions."+header("ce-subject") {
		wrong("subject %s, want %s", e.Subject, want.Subject)
	}
	if !eventID.MatchString(header("ce-id")) {
		wrong("ce-id is not a UUIDv7")
	}
	at, err := time.Parse(time.RFC3339, header("ce-time"))
	if err != nil || float64(at.UnixMilli()) != e.Session["updatedAt"] {
		wrong("ce-time is not updatedAt, %v", e.Session["updatedAt"])
	}
	parent := strings.Split(header("traceparent"), "-")
	if len(parent) != 4 || parent[1] != trace || parent[2] == "b7ad6b7169203331" || len(parent[2]) != 16 {
		wrong("the trace of the client is not continued")
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(e.Data, &members); err != nil || len(members) != 2 || members["changes"] == nil || members["session"] == nil {
		wrong("the data is %s", e.Data)
	}
	for _, name := range []string{"version", "updatedAt"} {
		if e.Changes[name] == nil && !(name == "updatedAt" && e.Session["version"] != 1.0) {
			wrong("changes lack %s", name)
		}
	}
}

var eventID = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
