package envelope

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
	for name, spoil := range map[string]func(*Message){
		"no headers":          func(m *Message) { m.Header = nil },
		"another specversion": func(m *Message) { m.Header.Set(HeaderSpecVersion, "0.3") },
		"no id":               func(m *Message) { m.Header.Del(HeaderID) },
		"no type":             func(m *Message) { m.Header.Del(HeaderType) },
		"another subject":     func(m *Message) { m.Subject = "chat-sessions.other" },
		"another ce-subject":  func(m *Message) { m.Header.Set(HeaderSubject, "other") },
		"another version":     func(m *Message) { m.Header.Set(HeaderSessionVersion, "3") },
		"no shape":            func(m *Message) { m.Header.Del(HeaderDataSchema) },
		"a later shape": func(m *Message) {
			m.Header.Set(HeaderDataSchema, "/chat-sessions/events/schemas/chat-session.updated/2.json")
		},
		"another type's shape":  func(m *Message) { m.Header.Set(HeaderDataSchema, cloudevent.Schema(domain.EventStarted)) },
		"no previous":           func(m *Message) { m.Header.Del(HeaderPrevious) },
		"previous is itself":    func(m *Message) { m.Header.Set(HeaderPrevious, "42") },
		"previous is no number": func(m *Message) { m.Header.Set(HeaderPrevious, "-1") },
		"time is no time":       func(m *Message) { m.Header.Set(HeaderTime, "yesterday") },
		"a value is there twice": func(m *Message) {
			m.Header.Add(HeaderActor, "eve")
		},
		"a value does not decode": func(m *Message) { m.Header.Set(HeaderActor, "%") },
		"data is no JSON":         func(m *Message) { m.Data = []byte("x") },
		"data is empty":           func(m *Message) { m.Data = nil },
		"data has no session":     func(m *Message) { m.Data = []byte("{}") },
	} {
		sent, _ := Encode(&req, &e, "id", 41)
		m := &Message{Subject: sent.Subject, Sequence: 42, Header: sent.Header, Data: sent.Data}
		if _, err := Decode(m); err != nil {
			t.Fatal(err)
		}
		spoil(m)
		r, err := Decode(m)
		if !errors.Is(err, domain.ErrUnreadable) || !strings.Contains(err.Error(), "42") {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	created := goldenEvents(t)[0]
	sent, _ := Encode(&req, &created, "id", 0)
	sent.Header.Set(HeaderPrevious, "1")
	if _, err := Decode(&Message{Subject: sent.Subject, Sequence: 42, Header: sent.Header, Data: sent.Data}); err == nil {
		t.Error("a first event has one before it")
	}
}

// TestInvalidUTF8 checks that a header which a client chose cannot make an event
// that nobody can read.
func TestInvalidUTF8(t *testing.T) {
	e := goldenEvents(t)[0]
	m, _ := Encode(&domain.Request{SessionID: e.Session.ID, Actor: "pat", CorrelationID: "a\xffb"}, &e, "id", 0)
	r, err := Decode(&Message{Subject: m.Subject, Sequence: 1, Header: m.Header, Data: m.Data})
	if err != nil || r.Request.CorrelationID != "a\uFFFDb" {
		t.Errorf("%+v, %v", r, err)
	}
}
