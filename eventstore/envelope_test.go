package eventstore

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"chatsessions/domain"

	"github.com/nats-io/nats.go"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// goldenEvents are events of each type, as the domain makes them.
func goldenEvents(t *testing.T) []domain.Event {
	const id = "0192f5c6-3c00-7000-8000-000000000001"
	who := domain.Caller{Account: "pat", Role: domain.RoleAccount}
	doc := domain.Caller{Account: "doc", Role: domain.RoleService}
	var events []domain.Event
	decide := func(s domain.Session, c domain.Command) domain.Session {
		decided, err := domain.Decide(s, c)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range decided {
			if !slices.ContainsFunc(events, func(known domain.Event) bool { return known.Type == e.Type }) {
				events = append(events, e)
			}
			s = e.Session
		}
		return s
	}
	telemed, room, started := domain.TypeTelemed, "zażółć \"7\"\n", int64(1732000001500)
	participants := []string{"pat", "doc"}
	open := decide(domain.Session{}, domain.Create{ID: id, By: who, Now: 1732000000123, Values: domain.Values{Type: &telemed, Participants: &participants}})
	open = decide(open, domain.Change{By: who, Now: 1732000001000, Values: domain.Values{Room: &room}})
	start := domain.Change{By: who, Now: 1732000002000}
	start.Directives[domain.Start].Asked = true
	open = decide(open, start)
	correct := domain.Change{By: who, Now: 1732000003000}
	correct.Values.Stamps[domain.Start].At = &started
	open = decide(open, correct)
	reject := domain.Change{By: doc, Now: 1732000004000}
	reject.Directives[domain.Reject] = domain.Directive{Asked: true, Reason: "no time"}
	decide(open, reject)
	accept := domain.Change{By: doc, Now: 1732000004000}
	accept.Directives[domain.Accept].Asked = true
	open = decide(open, accept)
	finish := domain.Change{By: doc, Now: 1732000005000}
	finish.Directives[domain.Finish] = domain.Directive{Asked: true, Reason: "done"}
	decide(open, finish)
	return events
}

// TestGolden guards the storage format: one message of each type, as it is sent.
func TestGolden(t *testing.T) {
	events := goldenEvents(t)
	if len(events) != 7 {
		t.Fatalf("%d types of events", len(events))
	}
	for _, e := range events {
		req := domain.Request{SessionID: e.Session.ID, Actor: e.Session.CreatedBy, CorrelationID: "request 1"}
		if e.Type == domain.EventCreated {
			req.Key, req.Digest = strings.Repeat("ab", 32), strings.Repeat("cd", 32)
			req.TraceParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
		}
		m, session := encode(&req, &e, "0192f5c6-3c00-7000-8000-0000000000ff", 41)
		got := text(m)
		path := filepath.Join("testdata", string(e.Type)+".golden")
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s:\n%s\nwant:\n%s", path, got, want)
		}
		// What was ever written has to stay readable.
		r, err := decode(&storedMsg{subject: m.Subject, sequence: 42, header: m.Header, data: m.Data})
		if err != nil {
			t.Fatal(err)
		}
		again, _ := r.Event.MarshalData()
		if r.Request != req || string(again) != string(m.Data) || string(session) != string(r.Event.Session.AppendJSON(nil)) || r.Event.Type != e.Type {
			t.Errorf("read %+v", r)
		}
	}
}

// text is a message for people: subject, headers in alphabetical order, data.
func text(m *nats.Msg) string {
	var lines []string
	for name, values := range m.Header {
		lines = append(lines, fmt.Sprintf("%s: %s\n", name, strings.Join(values, "|")))
	}
	slices.Sort(lines)
	return m.Subject + "\n\n" + strings.Join(lines, "") + "\n" + string(m.Data) + "\n"
}

// TestHeaderValues checks that any text comes back, and is printable on the way.
func TestHeaderValues(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.String().Draw(t, "value")
		encoded := percentEncode(value)
		for _, c := range []byte(encoded) {
			if c <= ' ' || c > '~' || c == '"' {
				t.Fatalf("%q is sent as %q", value, encoded)
			}
		}
		got, err := headerValue(nats.Header{"ce-x": {encoded}}, "ce-x")
		if utf8.ValidString(value) && (err != nil || got != value) {
			t.Fatalf("%q came back as %q, %v", value, got, err)
		}
	})
}

// TestForeignHeaderValues are forms that we do not write, from the protocol
// binding.
func TestForeignHeaderValues(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"},
		{"%e2%82%ac", "€"},
		{"%41", "A"},
		{`"quoted \"text\" with a \\"`, `quoted "text" with a \`},
		{`"%20"`, " "},
		{"", ""},
	} {
		got, err := headerValue(nats.Header{"ce-x": {test.in}}, "ce-x")
		if err != nil || got != test.want {
			t.Errorf("%q: %q, %v; want %q", test.in, got, err, test.want)
		}
	}
	for _, bad := range []string{"%C0%A0", "%", "%4", "%zz", "%+1"} {
		if got, err := headerValue(nats.Header{"ce-x": {bad}}, "ce-x"); err == nil {
			t.Errorf("%q was read as %q", bad, got)
		}
	}
}

// TestUnreadable checks that a message which is not our event is named, and never
// taken for one.
func TestUnreadable(t *testing.T) {
	e := goldenEvents(t)[1]
	req := domain.Request{SessionID: e.Session.ID, Actor: "pat"}
	for name, spoil := range map[string]func(*storedMsg){
		"no headers":            func(m *storedMsg) { m.header = nil },
		"another specversion":   func(m *storedMsg) { m.header.Set(headerSpecVersion, "0.3") },
		"no id":                 func(m *storedMsg) { m.header.Del(headerID) },
		"no type":               func(m *storedMsg) { m.header.Del(headerType) },
		"another subject":       func(m *storedMsg) { m.subject = "chat-sessions.other" },
		"another ce-subject":    func(m *storedMsg) { m.header.Set(headerSubject, "other") },
		"another version":       func(m *storedMsg) { m.header.Set(headerSessionVersion, "3") },
		"no previous":           func(m *storedMsg) { m.header.Del(headerPrevious) },
		"previous is itself":    func(m *storedMsg) { m.header.Set(headerPrevious, "42") },
		"previous is no number": func(m *storedMsg) { m.header.Set(headerPrevious, "-1") },
		"time is no time":       func(m *storedMsg) { m.header.Set(headerTime, "yesterday") },
		"a value is there twice": func(m *storedMsg) {
			m.header.Add(headerActor, "eve")
		},
		"a value does not decode": func(m *storedMsg) { m.header.Set(headerActor, "%") },
		"data is no JSON":         func(m *storedMsg) { m.data = []byte("x") },
		"data is empty":           func(m *storedMsg) { m.data = nil },
		"data has no session":     func(m *storedMsg) { m.data = []byte("{}") },
	} {
		sent, _ := encode(&req, &e, "id", 41)
		m := &storedMsg{subject: sent.Subject, sequence: 42, header: sent.Header, data: sent.Data}
		if _, err := decode(m); err != nil {
			t.Fatal(err)
		}
		spoil(m)
		r, err := decode(m)
		if !errors.Is(err, domain.ErrUnreadable) || !strings.Contains(err.Error(), "42") {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	created := goldenEvents(t)[0]
	sent, _ := encode(&req, &created, "id", 0)
	sent.Header.Set(headerPrevious, "1")
	if _, err := decode(&storedMsg{subject: sent.Subject, sequence: 42, header: sent.Header, data: sent.Data}); err == nil {
		t.Error("a first event has one before it")
	}
}

// TestInvalidUTF8 checks that a header which a client chose cannot make an event
// that nobody can read.
func TestInvalidUTF8(t *testing.T) {
	e := goldenEvents(t)[0]
	m, _ := encode(&domain.Request{SessionID: e.Session.ID, Actor: "pat", CorrelationID: "a\xffb"}, &e, "id", 0)
	r, err := decode(&storedMsg{subject: m.Subject, sequence: 1, header: m.Header, data: m.Data})
	if err != nil || r.Request.CorrelationID != "a\uFFFDb" {
		t.Errorf("%+v, %v", r, err)
	}
}
