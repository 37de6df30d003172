package domain

import (
	"bytes"
	"strconv"
	"unicode/utf8"
)

// A field is one member of the session's JSON form.
type field struct {
	name string
	// value appends the member's JSON value; nothing where the session has none.
	value func(b []byte, s *Session) []byte
}

// fields is the JSON form of a session, in the order in which it is written.
// Encoding, merge patches and $select all go by this one table.
var fields = []field{
	{"id", func(b []byte, s *Session) []byte { return appendText(b, s.ID) }},
	{"createdAt", func(b []byte, s *Session) []byte {
		if !s.Exists() {
			return b
		}
		return strconv.AppendInt(b, s.CreatedAt, 10)
	}},
	{"createdBy", func(b []byte, s *Session) []byte { return appendText(b, s.CreatedBy) }},
	{"type", func(b []byte, s *Session) []byte { return appendText(b, s.Type) }},
	{"room", func(b []byte, s *Session) []byte { return appendText(b, s.Room) }},
	{"startedAt", stampAt(Start)},
	{"startedBy", stampBy(Start)},
	{"acceptedAt", stampAt(Accept)},
	{"acceptedBy", stampBy(Accept)},
	{"rejectedAt", stampAt(Reject)},
	{"rejectedBy", stampBy(Reject)},
	{"rejectReason", stampReason(Reject)},
	{"finishedAt", stampAt(Finish)},
	{"finishedBy", stampBy(Finish)},
	{"finishReason", stampReason(Finish)},
	{"participants", func(b []byte, s *Session) []byte {
		if len(s.Participants) == 0 {
			return b
		}
		for i, uid := range s.Participants {
			b = append(b, "[,"[min(i, 1)])
			b = AppendQuoted(b, uid)
		}
		return append(b, ']')
	}},
	{"state", func(b []byte, s *Session) []byte { return appendText(b, string(s.State)) }},
	{"version", func(b []byte, s *Session) []byte {
		if !s.Exists() {
			return b
		}
		return strconv.AppendUint(b, s.Version, 10)
	}},
	{"updatedAt", func(b []byte, s *Session) []byte {
		if !s.Exists() {
			return b
		}
		return strconv.AppendInt(b, s.UpdatedAt, 10)
	}},
}

func stampAt(t Transition) func([]byte, *Session) []byte {
	return func(b []byte, s *Session) []byte {
		if s.Stamps[t] == nil {
			return b
		}
		return strconv.AppendInt(b, s.Stamps[t].At, 10)
	}
}

func stampBy(t Transition) func([]byte, *Session) []byte {
	return func(b []byte, s *Session) []byte {
		if s.Stamps[t] == nil {
			return b
		}
		return appendText(b, s.Stamps[t].By)
	}
}

func stampReason(t Transition) func([]byte, *Session) []byte {
	return func(b []byte, s *Session) []byte {
		if s.Stamps[t] == nil {
			return b
		}
		return appendText(b, s.Stamps[t].Reason)
	}
}

// FieldNames lists the members of a session's JSON form, in their order.
func FieldNames() []string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	return names
}

// AppendJSON appends the session as clients see it: members in a fixed order,
// those without a value absent.
func (s *Session) AppendJSON(b []byte) []byte {
	b = append(b, '{')
	first := true
	for _, f := range fields {
		start := len(b)
		b = appendMember(b, f.name, first)
		value := len(b)
		if b = f.value(b, s); len(b) == value {
			b = b[:start]
			continue
		}
		first = false
	}
	return append(b, '}')
}

// appendDiff appends the JSON merge patch (RFC 7396) that leads from one
// session to the other: only the members that differ, null for those that went.
func appendDiff(b []byte, from, to *Session) []byte {
	b = append(b, '{')
	first := true
	old := make([]byte, 0, 128)
	for _, f := range fields {
		start := len(b)
		b = appendMember(b, f.name, first)
		value := len(b)
		old = f.value(old[:0], from)
		b = f.value(b, to)
		if bytes.Equal(old, b[value:]) {
			b = b[:start]
			continue
		}
		if len(b) == value {
			b = append(b, "null"...)
		}
		first = false
	}
	return append(b, '}')
}

func appendMember(b []byte, name string, first bool) []byte {
	if !first {
		b = append(b, ',')
	}
	b = append(b, '"')
	b = append(b, name...)
	return append(b, '"', ':')
}

// appendText appends s as a JSON string, nothing when it is empty.
func appendText(b []byte, s string) []byte {
	if s == "" {
		return b
	}
	return AppendQuoted(b, s)
}

// AppendQuoted appends s as a JSON string (RFC 8259, section 7). Invalid UTF-8 becomes
// U+FFFD; the HTTP interface refuses it long before.
func AppendQuoted(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, '\\', 'n')
		case r == '\r':
			b = append(b, '\\', 'r')
		case r == '\t':
			b = append(b, '\\', 't')
		case r < 0x20:
			b = append(b, '\\', 'u', '0', '0', hex[r>>4], hex[r&0xf])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}
