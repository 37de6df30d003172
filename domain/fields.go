package domain

import (
	"slices"
	"strconv"
	"unicode/utf8"
)

// A field is one member of the session's JSON form.
type field struct {
	name string
	key  string // the name as JSON, with the colon
	// filter is the place among the filter fields, from 1; 0 if no list can be filtered by it.
	filter int
	// detail marks what an EventUpdated may change.
	detail bool
	// stamp is the transition whose stamp has the field; transitionCount for other fields.
	stamp Transition
	// append appends the member's JSON value; nothing if the session has none.
	append func(b []byte, s *Session) []byte
	// set reads the value as append wrote it, and returns the decoder behind it.
	set   func(s *Session, d decoder) (rest decoder, ok bool)
	equal func(a, b *Session) bool
	// text returns a text's place, nil for none. Fields that are not texts have no text.
	text func(*Session) *string
}

// fields is the JSON form of a session, in the order in which it is written. Encoder, fast
// decoder, merge patches, filters, $select, and verification use this table.
// Session.UnmarshalJSON, which reads any formatting, lists the fields once more; property
// tests compare it with the encoder and with the fast decoder.
var fields = []field{
	textField("id", func(s *Session) *string { return &s.ID },
		func(a, b *Session) bool { return a.ID == b.ID }),
	timeField("createdAt", func(s *Session) *int64 { return &s.CreatedAt },
		func(a, b *Session) bool {
			return a.Exists() == b.Exists() && (a.CreatedAt == b.CreatedAt || !a.Exists())
		}).asDetail(),
	textField("createdBy", func(s *Session) *string { return &s.CreatedBy },
		func(a, b *Session) bool { return a.CreatedBy == b.CreatedBy }).asFilter(5),
	textField("type", func(s *Session) *string { return &s.Type },
		func(a, b *Session) bool { return a.Type == b.Type }).asFilter(2).asDetail(),
	textField("room", func(s *Session) *string { return &s.Room },
		func(a, b *Session) bool { return a.Room == b.Room }).asFilter(3).asDetail(),
	stampedAt(Start),
	stampedBy(Start).asFilter(6),
	stampedAt(Accept),
	stampedBy(Accept).asFilter(7),
	stampedAt(Reject),
	stampedBy(Reject).asFilter(8),
	stampedReason(Reject),
	stampedAt(Finish),
	stampedBy(Finish).asFilter(9),
	stampedReason(Finish),
	{
		name: "participants", key: key("participants"), filter: 4, detail: true, stamp: transitionCount,
		append: func(b []byte, s *Session) []byte {
			if len(s.Participants) == 0 {
				return b
			}
			for i, uid := range s.Participants {
				b = append(b, "[,"[min(i, 1)])
				b = AppendQuoted(b, uid)
			}
			return append(b, ']')
		},
		set: func(s *Session, d decoder) (rest decoder, ok bool) {
			s.Participants, ok = d.texts()
			return d, ok
		},
		equal: func(a, b *Session) bool { return slices.Equal(a.Participants, b.Participants) },
	},
	textField("state", func(s *Session) *string { return (*string)(&s.State) },
		func(a, b *Session) bool { return a.State == b.State }).asFilter(1),
	{
		name: "version", key: key("version"), stamp: transitionCount,
		append: func(b []byte, s *Session) []byte {
			if !s.Exists() {
				return b
			}
			return strconv.AppendUint(b, s.Version, 10)
		},
		set: func(s *Session, d decoder) (rest decoder, ok bool) {
			version, ok := d.number()
			s.Version = uint64(version) //nolint:gosec // not negative
			return d, ok
		},
		equal: func(a, b *Session) bool { return a.Version == b.Version },
	},
	timeField("updatedAt", func(s *Session) *int64 { return &s.UpdatedAt },
		func(a, b *Session) bool {
			return a.Exists() == b.Exists() && (a.UpdatedAt == b.UpdatedAt || !a.Exists())
		}),
}

func key(name string) string { return `"` + name + `":` }

func (f field) asFilter(place int) field { f.filter = place; return f }

func (f field) asDetail() field { f.detail = true; return f }

// textField is a member that is absent when its text is empty or has no place.
func textField(name string, of func(*Session) *string, equal func(a, b *Session) bool) field {
	return field{
		name: name, key: key(name), stamp: transitionCount, text: of, equal: equal,
		append: func(b []byte, s *Session) []byte {
			if text := of(s); text != nil && *text != "" {
				return AppendQuoted(b, *text)
			}
			return b
		},
		set: func(s *Session, d decoder) (rest decoder, ok bool) {
			text := of(s)
			if text != nil {
				*text, ok = d.text()
			}
			return d, ok
		},
	}
}

// timeField is a time that every existing session has.
func timeField(name string, of func(*Session) *int64, equal func(a, b *Session) bool) field {
	return field{
		name: name, key: key(name), stamp: transitionCount, equal: equal,
		append: func(b []byte, s *Session) []byte {
			if !s.Exists() {
				return b
			}
			return strconv.AppendInt(b, *of(s), 10)
		},
		set: func(s *Session, d decoder) (rest decoder, ok bool) {
			*of(s), ok = d.number()
			return d, ok
		},
	}
}

// stampedAt is written first of a stamp, so reading it creates the stamp.
func stampedAt(t Transition) field {
	return field{
		name: t.AtField(), key: key(t.AtField()), stamp: t,
		append: func(b []byte, s *Session) []byte {
			if s.Stamps[t] == nil {
				return b
			}
			return strconv.AppendInt(b, s.Stamps[t].At, 10)
		},
		set: func(s *Session, d decoder) (rest decoder, ok bool) {
			at, ok := d.number()
			s.Stamps[t] = &Stamp{At: at}
			return d, ok
		},
		equal: func(a, b *Session) bool {
			x, y := a.Stamps[t], b.Stamps[t]
			return x == y || x != nil && y != nil && x.At == y.At
		},
	}
}

func stampedBy(t Transition) field {
	return stampText(t, t.ByField(), func(s *Session) *string {
		if s.Stamps[t] == nil {
			return nil
		}
		return &s.Stamps[t].By
	})
}

func stampedReason(t Transition) field {
	return stampText(t, t.ReasonField(), func(s *Session) *string {
		if s.Stamps[t] == nil {
			return nil
		}
		return &s.Stamps[t].Reason
	})
}

func stampText(t Transition, name string, of func(*Session) *string) field {
	f := textField(name, of, func(a, b *Session) bool { return valueOr(of(a), "") == valueOr(of(b), "") })
	f.stamp = t
	return f
}

// detailFields are the fields that an EventUpdated may change.
var detailFields = slices.DeleteFunc(slices.Clone(fields), func(f field) bool { return !f.detail })

// FieldNames lists the members of a session's JSON form, in their order.
func FieldNames() []string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	return names
}

// AppendJSON appends the session as clients see it: members with a value, in a fixed order.
func (s *Session) AppendJSON(b []byte) []byte {
	b = append(b, '{')
	first := true
	for i := range fields {
		f := &fields[i]
		if f.text != nil {
			if text := f.text(s); text != nil && *text != "" {
				b = AppendQuoted(appendKey(b, f.key, first), *text)
				first = false
			}
			continue
		}
		start := len(b)
		b = appendKey(b, f.key, first)
		value := len(b)
		if b = f.append(b, s); len(b) == value {
			b = b[:start]
			continue
		}
		first = false
	}
	return append(b, '}')
}

// appendDiff appends the JSON merge patch (RFC 7396) that leads from one session to the
// other: only the members that differ, null for those that are gone.
func appendDiff(b []byte, from, to *Session) []byte {
	b = append(b, '{')
	first := true
	var same [transitionCount + 1]bool // half of the fields are of stamps, and few stamps differ
	for t := range transitionCount {
		same[t] = equalStamps(from.Stamps[t], to.Stamps[t])
	}
	for i := range fields {
		f := &fields[i]
		if same[f.stamp] || f.equal(from, to) {
			continue
		}
		b = appendKey(b, f.key, first)
		first = false
		value := len(b)
		if b = f.append(b, to); len(b) == value {
			b = append(b, "null"...)
		}
	}
	return append(b, '}')
}

func appendKey(b []byte, key string, first bool) []byte {
	if !first {
		b = append(b, ',')
	}
	return append(b, key...)
}

// AppendQuoted appends s as a JSON string (RFC 8259, section 7), invalid UTF-8 as U+FFFD.
func AppendQuoted(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	plain := 0 // most texts consist only of characters that stand for themselves
	for plain < len(s) && s[plain] >= ' ' && s[plain] < utf8.RuneSelf && s[plain] != '"' && s[plain] != '\\' {
		plain++
	}
	b = append(append(b, '"'), s[:plain]...)
	for _, r := range s[plain:] {
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
