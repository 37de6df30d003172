package envelope

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"chatsessions/domain"
	"chatsessions/domain/cloudevent"
)

// An example of a shape that came before today's, in which participants were objects.
// There never was such a shape; this is how it would be read.
const (
	exampleShape = "/chat-sessions/events/schemas/chat-session.updated/0.json"
	exampleData  = `{"changes":{"participants":[{"uid":"pat"},{"uid":"doc"}],"version":2},` +
		`"session":{"id":"0192f5c6-3c00-7000-8000-000000000001","createdAt":1732000000123,"createdBy":"pat",` +
		`"participants":[{"uid":"pat"},{"uid":"doc"}],"state":"created","version":2,"updatedAt":1732000001000}}`
	exampleUpcast = `{"changes":{"participants":["pat","doc"],"version":2},` +
		`"session":{"id":"0192f5c6-3c00-7000-8000-000000000001","createdAt":1732000000123,"createdBy":"pat",` +
		`"participants":["pat","doc"],"state":"created","version":2,"updatedAt":1732000001000}}`
)

// plainParticipants is the upcaster from the example's shape.
var plainParticipants = upcaster{to: cloudevent.Schema(domain.EventUpdated), data: func(old []byte) ([]byte, error) {
	var halves map[string]map[string]json.RawMessage
	if err := json.Unmarshal(old, &halves); err != nil {
		return nil, err
	}
	for _, half := range halves {
		given, ok := half["participants"]
		if !ok || string(given) == "null" {
			continue
		}
		var participants []struct {
			UID string `json:"uid"`
		}
		if err := json.Unmarshal(given, &participants); err != nil {
			return nil, err
		}
		uids := make([]string, len(participants))
		for i, p := range participants {
			if uids[i] = p.UID; p.UID == "" {
				return nil, fmt.Errorf("participant %d has no uid", i)
			}
		}
		half["participants"], _ = json.Marshal(uids)
	}
	return json.Marshal(halves)
}}

// exampleMessage is an event of the example's shape, as the stream would have it.
func exampleMessage(t testing.TB) *Message {
	for _, e := range goldenEvents(t) {
		if e.Type == domain.EventUpdated {
			m, _ := Encode(&domain.Request{SessionID: e.Session.ID, Actor: "pat"}, &e, "0192f5c6-3c00-7000-8000-0000000000ff", 41)
			m.Header[HeaderDataSchema] = []string{exampleShape}
			return &Message{Subject: m.Subject, Sequence: 42, Header: m.Header, Data: []byte(exampleData)}
		}
	}
	t.Fatal("no such event")
	return nil
}

func checkSameJSON(t *testing.T, got []byte, want string) {
	t.Helper()
	var g, w any
	if err := errors.Join(json.Unmarshal(got, &g), json.Unmarshal([]byte(want), &w)); err != nil || !reflect.DeepEqual(g, w) {
		t.Errorf("%s\nwant\n%s\n%v", got, want, err)
	}
}

// TestAnOldShapeIsUpcast reads an event of an old shape from the log.
func TestAnOldShapeIsUpcast(t *testing.T) {
	m := exampleMessage(t)
	if r, err := Decode(m); !errors.Is(err, domain.ErrUnreadable) {
		t.Errorf("without the upcaster it is read as %+v, %v", r, err)
	}
	r, err := upcasters{exampleShape: plainParticipants}.decode(m)
	if err != nil {
		t.Fatal(err)
	}
	data, _ := r.Event.MarshalData()
	checkSameJSON(t, data, exampleUpcast)
	if r.Event.Type != domain.EventUpdated || r.Position != 42 || r.Previous != 41 || strings.Join(r.Event.Session.Participants, " ") != "pat doc" {
		t.Errorf("read %+v", r)
	}
	// Later readers cannot see that the event was upcast.
	if wrong := Published(t, "schemas/chat-session.updated.json").Check(data); wrong != nil {
		t.Error(wrong)
	}
	if !strings.Contains(string(cloudevent.Append(nil, r)), `"dataschema":"`+cloudevent.Schema(domain.EventUpdated)+`"`) {
		t.Error("the event is shown with the name of the old shape")
	}
	if string(m.Data) != exampleData {
		t.Errorf("the message itself was changed to %s", m.Data)
	}
}

// TestUpcastersAreChained: a shape older than the last one takes every step.
func TestUpcastersAreChained(t *testing.T) {
	const older = "/chat-sessions/events/schemas/chat-session.updated/older.json"
	steps := upcasters{
		older: {to: exampleShape, data: func(old []byte) ([]byte, error) {
			return []byte(strings.ReplaceAll(string(old), `"people"`, `"participants"`)), nil
		}},
		exampleShape: plainParticipants,
	}
	m := exampleMessage(t)
	m.Header[HeaderDataSchema] = []string{older}
	m.Data = []byte(strings.ReplaceAll(exampleData, `"participants"`, `"people"`))
	r, err := steps.decode(m)
	if err != nil {
		t.Fatal(err)
	}
	data, _ := r.Event.MarshalData()
	checkSameJSON(t, data, exampleUpcast)
}

// TestAFailedUpcastIsUnreadable: no part of the message is used as the event.
func TestAFailedUpcastIsUnreadable(t *testing.T) {
	steps := upcasters{exampleShape: plainParticipants}
	for name, spoil := range map[string]func(*Message){
		"data that is not of the shape": func(m *Message) {
			m.Data = []byte(strings.ReplaceAll(exampleData, `{"uid":"doc"}`, `"doc"`))
		},
		"data that lacks what the upcaster needs": func(m *Message) { m.Data = []byte(strings.ReplaceAll(exampleData, `"doc"`, `""`)) },
		"a later shape": func(m *Message) {
			m.Header[HeaderDataSchema] = []string{cloudevent.Schema(domain.EventUpdated) + "/2"}
		},
		"the shape of another type": func(m *Message) { m.Header[HeaderType] = []string{string(domain.EventCreated)} },
	} {
		m := exampleMessage(t)
		spoil(m)
		if r, err := steps.decode(m); !errors.Is(err, domain.ErrUnreadable) || !strings.Contains(err.Error(), "event 42 of session") {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

// TestEveryUpcasterLeadsToToday checks the upcasters that the service has.
func TestEveryUpcasterLeadsToToday(t *testing.T) {
	for from := range current {
		schema := from
		for range len(current) {
			if u, old := current[schema]; old {
				schema = u.to
			}
		}
		if today[schema] == "" {
			t.Errorf("the upcaster from %s leads to %s, which is not written today", from, schema)
		}
	}
}

// BenchmarkDecode measures reading one event, with the check for old shapes.
func BenchmarkDecode(b *testing.B) {
	e := goldenEvents(b)[3]
	req := domain.Request{
		SessionID: e.Session.ID, Actor: "pat", CorrelationID: "0192f5c6-3c00-7000-8000-0000000000fe",
		TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
	}
	sent, _ := Encode(&req, &e, "0192f5c6-3c00-7000-8000-0000000000ff", 41)
	m := &Message{Subject: sent.Subject, Sequence: 42, Header: sent.Header, Data: sent.Data}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(m); err != nil {
			b.Fatal(err)
		}
	}
}
