package domain

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
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

// transition returns the transition that events of the type record.
func (t EventType) transition() (Transition, bool) {
	for tr := range transitionCount {
		if tr.EventType() == t {
			return tr, true
		}
	}
	return 0, false
}

// An Event is a fact about a session. It carries what it changed and the whole session
// after it, so that a reader of one event needs no other.
type Event struct {
	Type EventType `json:"-"`
	// Changes is the JSON merge patch (RFC 7396) from the session before.
	Changes json.RawMessage `json:"changes"`
	Session Session         `json:"session"`
}

// newEvent records the step from one session to the next.
func newEvent(typ EventType, before, after *Session) Event {
	return Event{Type: typ, Changes: appendDiff(make([]byte, 0, 256), before, after), Session: *after}
}

// MarshalData returns {"changes": …, "session": …}, and the part of it that is the session.
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

// Apply folds an event's changes into the session before it, for verification. The result
// equals Event.Session unless the event contradicts itself.
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

// A Record is one event of the log with its envelope.
type Record struct {
	Position uint64 // the event's sequence in the log; 0 for a session without events
	Previous uint64 // position of the session's previous event, 0 for the first
	ID       string // UUIDv7
	Time     time.Time
	Event    Event
	Request  Request // the request that wrote the event
	// Encoded is Event.Session by AppendJSON, shared and not to be changed; nil if unknown.
	Encoded []byte
}

// JSON returns the session as clients see it. The bytes may be shared; do not change them.
func (r *Record) JSON() []byte {
	if r.Encoded != nil {
		return r.Encoded
	}
	return r.Event.Session.AppendJSON(make([]byte, 0, 512))
}

// An Entry is one position of the log: an event, or the reason why its message is none.
type Entry struct {
	Record *Record // with Err, only its Position and Event.Session.ID are set
	// Before is the session before the event; nil if the reader does not have it.
	Before *Session
	Err    error // why the message is not an event
}

// A Result is the outcome of a command.
type Result struct {
	Record *Record // the last event of the write; without a write, the session's newest event
	// Before is the session on which the write was decided; nil without a write.
	Before *Session
}

// A Request identifies a write: its author, its name in traces, and its idempotency key.
type Request struct {
	SessionID     string
	Actor         string // account of the caller
	CorrelationID string
	TraceParent   string // W3C trace context; "" for none
	// New marks an id made for this request; the session exists only if this is a repetition.
	New bool
	// Key is the hash of caller, method, path, and Idempotency-Key; "" without a key.
	// Digest is the SHA-256 of the body. Both are lower-case hex.
	Key, Digest string
}

// TimeFormat is RFC 3339 in UTC, to the millisecond, the precision of Session.UpdatedAt.
const TimeFormat = "2006-01-02T15:04:05.000Z"
