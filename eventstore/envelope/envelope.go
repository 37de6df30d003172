package envelope

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"chatsessions/domain"
	"chatsessions/domain/cloudevent"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
)

// SubjectPrefix and the session's id form the subject of the session's events.
const SubjectPrefix = "chat-sessions."

// Subject returns the subject of a session's events.
func Subject(sessionID string) string { return SubjectPrefix + sessionID }

// SessionID returns the id of the session whose subject this is.
func SessionID(subject string) string { return strings.TrimPrefix(subject, SubjectPrefix) }

// The headers of an event: CloudEvents 1.0 in binary mode, by the NATS protocol binding,
// with our extensions. They are a storage format.
const (
	HeaderSpecVersion     = "ce-specversion"
	HeaderID              = "ce-id"
	HeaderSource          = "ce-source"
	HeaderType            = "ce-type"
	HeaderSubject         = "ce-subject"
	HeaderTime            = "ce-time"
	HeaderDataContentType = "ce-datacontenttype"
	HeaderDataSchema      = "ce-dataschema"
	HeaderSessionVersion  = "ce-sessionversion"
	HeaderPrevious        = "ce-previous"
	HeaderActor           = "ce-actor"
	HeaderCorrelationID   = "ce-correlationid"
	HeaderRequestKey      = "ce-requestkey"
	HeaderRequestDigest   = "ce-requestdigest"
	HeaderTraceParent     = "traceparent"
)

// maxHeaders counts the headers above, and those of the expected stream and sequence.
const maxHeaders = 18

// PreviousInWrite is the value of ce-previous that stands for the message just before, in the
// same atomic write.
const PreviousInWrite = 0

// An UnreadableError is returned for a message of the log that is not an event as this
// package writes them. It is a domain.ErrUnreadable.
type UnreadableError struct {
	Position  uint64
	SessionID string // from the message's subject
	Err       error
}

func (e *UnreadableError) Error() string {
	return fmt.Sprintf("event %d of session %s cannot be read: %v", e.Position, e.SessionID, e.Err)
}

// EventPosition returns the event's position in the log.
func (e *UnreadableError) EventPosition() uint64 { return e.Position }

func (e *UnreadableError) Unwrap() []error { return []error{domain.ErrUnreadable, e.Err} }

// Encode returns the message of an event, and the part of its data that is the session.
// The first event of a session has no previous one, so previous is then ignored.
func Encode(req *domain.Request, e *domain.Event, id string, previous uint64) (m *nats.Msg, session []byte) {
	h := make(nats.Header, maxHeaders)
	values := make([]string, 0, maxHeaders) // one allocation for the values of all headers
	set := func(name, value string) {
		if value != "" { // CloudEvents has no empty attributes
			// A reader rejects a value that does not decode to UTF-8.
			values = append(values, percentEncode(strings.ToValidUTF8(value, "\uFFFD")))
			h[name] = values[len(values)-1 : len(values) : len(values)]
		}
	}
	set(HeaderSpecVersion, cloudevent.SpecVersion)
	set(HeaderID, id)
	set(HeaderSource, cloudevent.Source)
	set(HeaderType, string(e.Type))
	set(HeaderSubject, req.SessionID)
	set(HeaderTime, time.UnixMilli(e.Session.UpdatedAt).UTC().Format(domain.TimeFormat))
	set(HeaderDataContentType, cloudevent.DataType)
	set(HeaderDataSchema, cloudevent.Schema(e.Type))
	set(HeaderSessionVersion, strconv.FormatUint(e.Session.Version, 10))
	if e.Session.Version > 1 {
		set(HeaderPrevious, strconv.FormatUint(previous, 10))
	}
	set(HeaderActor, req.Actor)
	set(HeaderCorrelationID, req.CorrelationID)
	if req.Key != "" {
		set(HeaderRequestKey, req.Key)
		set(HeaderRequestDigest, req.Digest)
	}
	set(HeaderTraceParent, req.TraceParent)
	data, session := e.MarshalData()
	return &nats.Msg{Subject: Subject(req.SessionID), Header: h, Data: data}, session
}

// A Message is a message as the stream stores it, or stands for a gap in the stream.
type Message struct {
	Subject  string
	Sequence uint64 // of a gap: the last that is missing
	GapFrom  uint64 // of a gap: the first that is missing
	Header   nats.Header
	Data     []byte
}

// Decode returns the event in a message. Its error is an UnreadableError.
func Decode(m *Message) (*domain.Record, error) { return current.decode(m) }

// Entry returns the event in a message, or the reason why it contains none.
func Entry(m *Message) domain.Entry {
	r, err := Decode(m)
	if err != nil {
		session := domain.Session{ID: SessionID(m.Subject)}
		return domain.Entry{Record: &domain.Record{Event: domain.Event{Session: session}, Position: m.Sequence}, Err: err}
	}
	return domain.Entry{Record: r}
}

func (u upcasters) decode(m *Message) (*domain.Record, error) {
	r, err := m.record(u)
	if err != nil {
		return nil, &UnreadableError{Position: m.Sequence, SessionID: SessionID(m.Subject), Err: err}
	}
	return r, nil
}

func (m *Message) record(u upcasters) (*domain.Record, error) {
	if m.GapFrom > 0 {
		if m.GapFrom == m.Sequence {
			return nil, fmt.Errorf("there is no message at position %d", m.Sequence)
		}
		return nil, fmt.Errorf("there are no messages at positions %d to %d", m.GapFrom, m.Sequence)
	}
	var invalid error // the first header that does not decode
	get := func(name string) string {
		value, err := headerValue(m.Header, name)
		if err != nil && invalid == nil {
			invalid = err
		}
		return value
	}
	r := &domain.Record{
		Position: m.Sequence,
		ID:       get(HeaderID),
		Request: domain.Request{
			SessionID:     get(HeaderSubject),
			Actor:         get(HeaderActor),
			CorrelationID: get(HeaderCorrelationID),
			TraceParent:   get(HeaderTraceParent),
			Key:           get(HeaderRequestKey),
			Digest:        get(HeaderRequestDigest),
		},
	}
	spec, typ, at, version, previous := get(HeaderSpecVersion), get(HeaderType), get(HeaderTime), get(HeaderSessionVersion), get(HeaderPrevious)
	schema := get(HeaderDataSchema)
	if invalid != nil {
		return nil, invalid
	}
	data, err := u.upcast(domain.EventType(typ), schema, m.Data)
	if err != nil {
		return nil, err
	}
	if r.Encoded, err = r.Event.UnmarshalData(data); err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	r.Event.Type = domain.EventType(typ)
	session := &r.Event.Session
	switch {
	case spec != cloudevent.SpecVersion:
		return nil, fmt.Errorf("%s is %q, not %q", HeaderSpecVersion, spec, cloudevent.SpecVersion)
	case r.ID == "":
		return nil, errors.New(HeaderID + " is missing")
	case typ == "":
		return nil, errors.New(HeaderType + " is missing")
	case m.Subject != Subject(session.ID) || r.Request.SessionID != session.ID:
		return nil, fmt.Errorf("the event is of session %q on subject %q with %s %q", session.ID, m.Subject, HeaderSubject, r.Request.SessionID)
	case version != strconv.FormatUint(session.Version, 10) || session.Version == 0:
		return nil, fmt.Errorf("%s is %q and the session has version %d", HeaderSessionVersion, version, session.Version)
	}
	if r.Time, err = time.Parse(time.RFC3339, at); err != nil {
		return nil, fmt.Errorf("%s: %w", HeaderTime, err)
	}
	if r.Previous, err = previousPosition(previous, session.Version, m.Sequence); err != nil {
		return nil, fmt.Errorf("%s: %w", HeaderPrevious, err)
	}
	return r, nil
}

// previousPosition returns the position of the session's previous event, 0 for the first.
func previousPosition(previous string, version, sequence uint64) (uint64, error) {
	if version == 1 {
		if previous != "" {
			return 0, fmt.Errorf("%q in the first event of a session", previous)
		}
		return 0, nil
	}
	position, err := strconv.ParseUint(previous, 10, 64)
	if err != nil {
		return 0, err
	}
	if position == PreviousInWrite {
		position = sequence - 1
	}
	if position == 0 || position >= sequence {
		return 0, fmt.Errorf("%d is not before %d", position, sequence)
	}
	return position, nil
}

// HasPreviousInWrite reports whether ce-previous is PreviousInWrite.
func (m *Message) HasPreviousInWrite() bool {
	previous, err := headerValue(m.Header, HeaderPrevious)
	return err == nil && previous == strconv.Itoa(PreviousInWrite)
}

// CheckHeaders lists what is wrong with the headers that are not in a Record, and with the
// form of the event's id.
func (m *Message) CheckHeaders() (wrong []string) {
	for _, header := range []struct{ name, want string }{
		{HeaderSource, cloudevent.Source},
		{HeaderDataContentType, cloudevent.DataType},
	} {
		if got, err := headerValue(m.Header, header.name); err != nil || got != header.want {
			wrong = append(wrong, fmt.Sprintf("%s is %q, not %q", header.name, got, header.want))
		}
	}
	id, _ := headerValue(m.Header, HeaderID)
	if parsed, err := uuid.Parse(id); err != nil || parsed.Version() != 7 {
		wrong = append(wrong, fmt.Sprintf("%s is %q, not a UUIDv7", HeaderID, id))
	}
	return wrong
}
