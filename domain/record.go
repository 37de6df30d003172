package domain

import (
	"strconv"
	"time"
)

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

// What every event of the log says of itself (CloudEvents 1.0, section 3.1).
const (
	EventSpecVersion = "1.0"
	EventSource      = "/chat-sessions"
	EventDataType    = "application/json"
	// EventTimeFormat is RFC 3339 in UTC, to the millisecond, as Session.UpdatedAt.
	EventTimeFormat = "2006-01-02T15:04:05.000Z"
)

// Schema names the shape of the type's data: an absolute URI, as CloudEvents asks for.
// The service does not know under which host it is reached, so it is no address.
func (t EventType) Schema() string { return "urn:chat-sessions:events/schemas/" + string(t) + ".json" }

// SchemaPath is where the service has the JSON Schema of that name.
func (t EventType) SchemaPath() string { return "/chat-sessions/events/schemas/" + string(t) + ".json" }

// AppendCloudEvent writes the event in the JSON format of CloudEvents 1.0, with the
// attributes of the log's envelope, and its position. Position and previous are decimal
// strings: an Integer of CloudEvents has 32 bits only.
func (r *Record) AppendCloudEvent(b []byte) []byte {
	b = append(b, '{')
	b = appendMemberText(b, "specversion", EventSpecVersion)
	b = appendMemberText(b, "id", r.ID)
	b = appendMemberText(b, "source", EventSource)
	b = appendMemberText(b, "type", string(r.Event.Type))
	b = appendMemberText(b, "subject", r.Event.Session.ID)
	b = appendMemberText(b, "time", r.Time.UTC().Format(EventTimeFormat))
	b = appendMemberText(b, "datacontenttype", EventDataType)
	b = appendMemberText(b, "dataschema", r.Event.Type.Schema())
	b = strconv.AppendUint(append(b, `"sessionversion":`...), r.Event.Session.Version, 10)
	b = append(b, ',')
	b = appendMemberText(b, "position", strconv.FormatUint(r.Position, 10))
	if r.Previous > 0 {
		b = appendMemberText(b, "previous", strconv.FormatUint(r.Previous, 10))
	}
	b = appendMemberText(b, "actor", r.Request.Actor)
	b = appendMemberText(b, "correlationid", r.Request.CorrelationID)
	b = appendMemberText(b, "requestkey", r.Request.Key)
	b = appendMemberText(b, "requestdigest", r.Request.Digest)
	b = appendMemberText(b, "traceparent", r.Request.TraceParent)
	b = append(b, `"data":{`...)
	return append(r.appendData(b), "}}"...)
}

// AppendJSON writes the event as a history shows it: who, when, what changed, and
// where the log has it.
func (r *Record) AppendJSON(b []byte) []byte {
	b = strconv.AppendUint(append(b, `{"position":`...), r.Position, 10)
	b = append(b, ',')
	b = appendMemberText(b, "id", r.ID)
	b = appendMemberText(b, "type", string(r.Event.Type))
	b = appendMemberText(b, "time", r.Time.UTC().Format(EventTimeFormat))
	b = appendMemberText(b, "actor", r.Request.Actor)
	b = appendMemberText(b, "correlationId", r.Request.CorrelationID)
	b = strconv.AppendUint(append(b, `"version":`...), r.Event.Session.Version, 10)
	b = append(b, ',')
	return append(r.appendData(b), '}')
}

// appendData writes the members of the event's data.
func (r *Record) appendData(b []byte) []byte {
	b = append(append(b, `"changes":`...), r.Event.Changes...)
	b = append(b, `,"session":`...)
	if r.Encoded != nil {
		return append(b, r.Encoded...)
	}
	return r.Event.Session.AppendJSON(b)
}

// appendMemberText appends a member and a comma, nothing for "".
func appendMemberText(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	b = appendQuoted(appendMember(b, name, true), value)
	return append(b, ',')
}
