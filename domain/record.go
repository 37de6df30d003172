package domain

import "time"

// A Record is one event of the log with its envelope.
type Record struct {
	Position uint64 // the event's sequence in the log; 0 for a session without events
	Previous uint64 // position of the session's previous event, 0 for the first
	ID       string // UUIDv7
	Time     time.Time
	Event    Event
	Request  Request // the request that wrote the event
	// Encoded is what Event.Session.AppendJSON writes; nil where it is not at hand. It is
	// shared and must not be changed.
	Encoded []byte
}

// JSON returns the session after the event, as clients see it. The bytes may be shared
// and must not be changed.
func (r *Record) JSON() []byte {
	if r.Encoded != nil {
		return r.Encoded
	}
	return r.Event.Session.AppendJSON(make([]byte, 0, 512))
}

// An Entry is what a reader finds at one position of the log: an event, or the reason
// why the message there is not one.
type Entry struct {
	Record *Record // with Err, only its Position and Event.Session.ID are set
	// Before is the session before the event; nil where it is not at hand.
	Before *Session
	Err    error // why the message is not an event
}

// A Result is the outcome of a command.
type Result struct {
	Record *Record // the last event of the write; without a write, the session's newest event
	// Before is the session on which the write was decided; nil without a write.
	Before *Session
}

// A Request is the identity of a write: who asked, under which name the request
// is traced, and the key by which a repetition of it is recognised.
type Request struct {
	SessionID     string
	Actor         string // account of the caller
	CorrelationID string
	TraceParent   string // W3C trace context; "" for none
	// New says that the id was made for this request: there is no such session,
	// unless the request was made before.
	New bool
	// Key is the hash of caller, method, path and Idempotency-Key, "" without a
	// key; Digest is the SHA-256 of the body. Both are lower-case hex.
	Key, Digest string
}

// TimeFormat is how events write times: RFC 3339 in UTC, to the millisecond, which is
// the precision of Session.UpdatedAt.
const TimeFormat = "2006-01-02T15:04:05.000Z"
