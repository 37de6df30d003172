package eventstore

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"chatsessions/domain"
	"chatsessions/domain/cloudevent"

	"github.com/nats-io/nats.go"
)

// The headers of an event: CloudEvents 1.0 in binary mode, as the NATS protocol
// binding says, with our extensions. They are a storage format.
const (
	headerSpecVersion     = "ce-specversion"
	headerID              = "ce-id"
	headerSource          = "ce-source"
	headerType            = "ce-type"
	headerSubject         = "ce-subject"
	headerTime            = "ce-time"
	headerDataContentType = "ce-datacontenttype"
	headerDataSchema      = "ce-dataschema"
	headerSessionVersion  = "ce-sessionversion"
	headerPrevious        = "ce-previous"
	headerActor           = "ce-actor"
	headerCorrelationID   = "ce-correlationid"
	headerRequestKey      = "ce-requestkey"
	headerRequestDigest   = "ce-requestdigest"
	headerTraceParent     = "traceparent"
)

// maxHeaders is how many headers a message is sent with: those above, and what is
// expected of the stream.
const maxHeaders = 18

const (
	// previousInBatch as ce-previous stands for the message just before this one,
	// in the same atomic write: its sequence is not known when it is sent.
	previousInBatch = 0
)

// An UnreadableError is returned for a message of the log that is not an event
// as this package writes them. It is a domain.ErrUnreadable.
type UnreadableError struct {
	Position  uint64
	SessionID string // as the message's subject has it
	Err       error
}

func (e *UnreadableError) Error() string {
	return fmt.Sprintf("event %d of session %s cannot be read: %v", e.Position, e.SessionID, e.Err)
}

// EventPosition is where in the log the event is.
func (e *UnreadableError) EventPosition() uint64 { return e.Position }

func (e *UnreadableError) Unwrap() []error { return []error{domain.ErrUnreadable, e.Err} }

// encode makes the message of an event, and returns the part of it that is the
// session. The position of the session's event before is left out for its first.
func encode(req *domain.Request, e *domain.Event, id string, previous uint64) (m *nats.Msg, session []byte) {
	h := make(nats.Header, maxHeaders)
	values := make([]string, 0, maxHeaders) // of all headers, so that they are allocated once
	set := func(name, value string) {
		if value != "" { // CloudEvents knows no empty attributes
			// What does not decode to UTF-8 could not be read again.
			values = append(values, percentEncode(strings.ToValidUTF8(value, "\uFFFD")))
			h[name] = values[len(values)-1 : len(values) : len(values)]
		}
	}
	set(headerSpecVersion, cloudevent.SpecVersion)
	set(headerID, id)
	set(headerSource, cloudevent.Source)
	set(headerType, string(e.Type))
	set(headerSubject, req.SessionID)
	set(headerTime, time.UnixMilli(e.Session.UpdatedAt).UTC().Format(domain.TimeFormat))
	set(headerDataContentType, cloudevent.DataType)
	set(headerDataSchema, cloudevent.Schema(e.Type))
	set(headerSessionVersion, strconv.FormatUint(e.Session.Version, 10))
	if e.Session.Version > 1 {
		set(headerPrevious, strconv.FormatUint(previous, 10))
	}
	set(headerActor, req.Actor)
	set(headerCorrelationID, req.CorrelationID)
	if req.Key != "" {
		set(headerRequestKey, req.Key)
		set(headerRequestDigest, req.Digest)
	}
	set(headerTraceParent, req.TraceParent)
	data, session := e.MarshalData()
	return &nats.Msg{Subject: subjectOf(req.SessionID), Header: h, Data: data}, session
}

// A storedMsg is a message as the stream has it.
type storedMsg struct {
	subject  string
	sequence uint64
	header   nats.Header
	data     []byte
}

// decode reads the event out of a message. Its errors are UnreadableErrors.
func decode(m *storedMsg) (*domain.Record, error) { return lifts.decode(m) }

func (u upcaster) decode(m *storedMsg) (*domain.Record, error) {
	r, err := m.record(u)
	if err != nil {
		return nil, &UnreadableError{Position: m.sequence, SessionID: strings.TrimPrefix(m.subject, subjectPrefix), Err: err}
	}
	return r, nil
}

func (m *storedMsg) record(u upcaster) (*domain.Record, error) {
	var wrong error
	get := func(name string) string {
		value, err := headerValue(m.header, name)
		if err != nil && wrong == nil {
			wrong = err
		}
		return value
	}
	r := &domain.Record{
		Position: m.sequence,
		ID:       get(headerID),
		Request: domain.Request{
			SessionID:     get(headerSubject),
			Actor:         get(headerActor),
			CorrelationID: get(headerCorrelationID),
			TraceParent:   get(headerTraceParent),
			Key:           get(headerRequestKey),
			Digest:        get(headerRequestDigest),
		},
	}
	spec, typ, at, version, previous := get(headerSpecVersion), get(headerType), get(headerTime), get(headerSessionVersion), get(headerPrevious)
	schema := get(headerDataSchema)
	if wrong != nil {
		return nil, wrong
	}
	data, err := u.upcast(domain.EventType(typ), schema, m.data)
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
		return nil, fmt.Errorf("%s is %q, not %q", headerSpecVersion, spec, cloudevent.SpecVersion)
	case r.ID == "":
		return nil, errors.New(headerID + " is missing")
	case typ == "":
		return nil, errors.New(headerType + " is missing")
	case m.subject != subjectOf(session.ID) || r.Request.SessionID != session.ID:
		return nil, fmt.Errorf("the event is of session %q on subject %q with %s %q", session.ID, m.subject, headerSubject, r.Request.SessionID)
	case version != strconv.FormatUint(session.Version, 10) || session.Version == 0:
		return nil, fmt.Errorf("%s is %q and the session has version %d", headerSessionVersion, version, session.Version)
	}
	if r.Time, err = time.Parse(time.RFC3339, at); err != nil {
		return nil, fmt.Errorf("%s: %w", headerTime, err)
	}
	if r.Previous, err = previousPosition(previous, session.Version, m.sequence); err != nil {
		return nil, fmt.Errorf("%s: %w", headerPrevious, err)
	}
	return r, nil
}

// previousPosition says where the session's event before is, 0 for none.
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
	if position == previousInBatch {
		position = sequence - 1
	}
	if position == 0 || position >= sequence {
		return 0, fmt.Errorf("%d is not before %d", position, sequence)
	}
	return position, nil
}

// percentEncode encodes a header's value as the NATS protocol binding of
// CloudEvents says (section 3.1.3.2): space, double quote, percent and whatever
// is not printable ASCII.
func percentEncode(s string) string {
	const hex = "0123456789ABCDEF"
	plain := func(c byte) bool { return c > ' ' && c <= '~' && c != '"' && c != '%' }
	i := 0
	for i < len(s) && plain(s[i]) {
		i++
	}
	if i == len(s) {
		return s
	}
	b := append(make([]byte, 0, len(s)+16), s[:i]...)
	for ; i < len(s); i++ {
		if c := s[i]; plain(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return string(b)
}

// headerValue returns a header's value decoded, "" where it is missing. A value
// in double quotes is unquoted first, as the binding asks of readers.
func headerValue(h nats.Header, name string) (string, error) {
	values := h[name]
	switch {
	case len(values) == 0:
		return "", nil
	case len(values) > 1:
		return "", fmt.Errorf("%s is there %d times", name, len(values))
	}
	value := values[0]
	if len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"' {
		value = unquote(value[1 : len(value)-1])
	}
	value, err := percentDecode(value)
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return value, nil
}

// unquote resolves the backslashes of a quoted string (RFC 7230, section 3.2.6).
func unquote(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b = append(b, s[i])
	}
	return string(b)
}

func percentDecode(s string) (string, error) {
	if !strings.Contains(s, "%") {
		return s, nil
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b = append(b, s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", fmt.Errorf("%q ends within a percent-encoded byte", s)
		}
		c, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return "", fmt.Errorf("%q has a percent sign without two hexadecimal digits", s)
		}
		b = append(b, byte(c))
		i += 2
	}
	if !utf8.Valid(b) {
		return "", fmt.Errorf("%q does not decode to UTF-8", s)
	}
	return string(b), nil
}
