package domain

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// An EventType is the `ce-type` of an event. The names are a storage format.
type EventType string

// The types of events, each with what it records.
const (
	EventCreated   EventType = "chat-session.created"
	EventStarted   EventType = "chat-session.started"
	EventAccepted  EventType = "chat-session.accepted"
	EventRejected  EventType = "chat-session.rejected"
	EventFinished  EventType = "chat-session.finished"
	EventUpdated   EventType = "chat-session.updated"   // details changed
	EventCorrected EventType = "chat-session.corrected" // a recorded stamp or reason was corrected
)

// EventTypes lists all types of events.
func EventTypes() []EventType {
	return []EventType{EventCreated, EventStarted, EventAccepted, EventRejected, EventFinished, EventUpdated, EventCorrected}
}

// An Event is a fact about a session. It carries what it changed and the whole
// session after it, so that a reader of one event needs no second look.
type Event struct {
	Type EventType `json:"-"`
	// Changes is the JSON merge patch (RFC 7396) from the session before to the
	// session after.
	Changes json.RawMessage `json:"changes"`
	Session Session         `json:"session"`
}

// newEvent records the step from one session to the next.
func newEvent(typ EventType, before, after *Session) Event {
	return Event{Type: typ, Changes: appendDiff(make([]byte, 0, 256), before, after), Session: *after}
}

// MarshalData returns the event's data, {"changes": …, "session": …}, and the part
// of it that is the session.
func (e *Event) MarshalData() (data, session []byte) {
	b := make([]byte, 0, 1024)
	b = append(b, `{"changes":`...)
	b = append(b, e.Changes...)
	b = append(b, `,"session":`...)
	start := len(b)
	b = e.Session.AppendJSON(b)
	end := len(b)
	b = append(b, '}')
	return b, b[start:end:end]
}

// Apply folds an event's changes into the session before it. The result is the
// event's Session, unless the event contradicts itself; readers that trust the
// log take that one, and verification compares the two.
func Apply(s Session, e Event) (Session, error) {
	members := map[string]json.RawMessage{}
	if s.Exists() {
		if err := json.Unmarshal(s.AppendJSON(nil), &members); err != nil {
			return Session{}, err
		}
	}
	var changes map[string]json.RawMessage
	if err := json.Unmarshal(e.Changes, &changes); err != nil {
		return Session{}, fmt.Errorf("changes of %s: %w", e.Type, err)
	}
	for name, value := range changes {
		if bytes.Equal(value, []byte("null")) {
			delete(members, name)
			continue
		}
		members[name] = value // no member of a session is an object, so nothing merges deeper
	}
	folded, err := json.Marshal(members)
	if err != nil {
		return Session{}, err
	}
	var after Session
	if err := json.Unmarshal(folded, &after); err != nil {
		return Session{}, fmt.Errorf("session after %s: %w", e.Type, err)
	}
	return after, nil
}
