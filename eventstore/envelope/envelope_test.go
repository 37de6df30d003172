package eventstore

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"chatsessions/domain"
	"chatsessions/domain/cloudevent"

	"github.com/nats-io/nats.go"
	"pgregory.net/rapid"
)

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
		"no headers":          func(m *storedMsg) { m.header = nil },
		"another specversion": func(m *storedMsg) { m.header.Set(headerSpecVersion, "0.3") },
		"no id":               func(m *storedMsg) { m.header.Del(headerID) },
		"no type":             func(m *storedMsg) { m.header.Del(headerType) },
		"another subject":     func(m *storedMsg) { m.subject = "chat-sessions.other" },
		"another ce-subject":  func(m *storedMsg) { m.header.Set(headerSubject, "other") },
		"another version":     func(m *storedMsg) { m.header.Set(headerSessionVersion, "3") },
		"no shape":            func(m *storedMsg) { m.header.Del(headerDataSchema) },
		"a later shape": func(m *storedMsg) {
			m.header.Set(headerDataSchema, "/chat-sessions/events/schemas/chat-session.updated/2.json")
		},
		"another type's shape":  func(m *storedMsg) { m.header.Set(headerDataSchema, cloudevent.Schema(domain.EventStarted)) },
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
