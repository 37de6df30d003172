package domain

import (
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"
)

// UnmarshalData reads what MarshalData wrote, and returns the part of data that is
// the session where that is as AppendJSON writes it, else nil. Unknown members are
// ignored. The event keeps data.
func (e *Event) UnmarshalData(data []byte) (session []byte, err error) {
	if changes, session, s, ok := scanEvent(data); ok {
		e.Changes, e.Session = changes, s
		return session, nil
	}
	return nil, json.Unmarshal(data, e)
}

// scanEvent reads an event's data that is exactly as MarshalData writes it, several
// times faster than encoding/json; false for any other, which is left to that.
func scanEvent(data []byte) (changes, session []byte, s Session, ok bool) {
	c := scanner{rest: string(data)}
	at := func() int { return len(data) - len(c.rest) }
	if !c.skip(`{"changes":`) {
		return nil, nil, s, false
	}
	start := at()
	if !c.object() {
		return nil, nil, s, false
	}
	changes = data[start:at():at()]
	if !c.skip(`,"session":`) {
		return nil, nil, s, false
	}
	start = at()
	c.rest = string(data[start:]) // the session's texts are parts of this, and not of the changes
	s, ok = c.session()
	session = data[start:at():at()]
	return changes, session, s, ok && c.rest == "}"
}

// A scanner reads JSON that is written without spaces, escapes and empty values; of
// everything else it says false. Its strings are parts of the whole.
type scanner struct{ rest string }

// session reads a session that is exactly as AppendJSON writes it.
func (c *scanner) session() (s Session, ok bool) {
	if !c.skip("{") {
		return s, false
	}
	created, next := false, 0
	for {
		name, ok := c.name()
		if !ok {
			return s, false
		}
		// In the order of the table, and so each once.
		for next < len(fields) && fields[next].name != name {
			next++
		}
		if next == len(fields) || !c.member(&s, name) {
			return s, false
		}
		next++
		created = created || name == "createdAt"
		if c.skip("}") {
			// What AppendJSON never leaves out; updatedAt is the last.
			return s, created && s.Exists() && name == "updatedAt"
		}
		if !c.skip(",") {
			return s, false
		}
	}
}

// member reads the value of one member of a session.
func (c *scanner) member(s *Session, name string) (ok bool) {
	switch name {
	case "id":
		s.ID, ok = c.text()
	case "createdAt":
		s.CreatedAt, ok = c.number()
	case "createdBy":
		s.CreatedBy, ok = c.text()
	case "type":
		s.Type, ok = c.text()
	case "room":
		s.Room, ok = c.text()
	case "participants":
		s.Participants, ok = c.texts()
	case "state":
		var state string
		state, ok = c.text()
		s.State = State(state)
	case "version":
		var version int64
		version, ok = c.number()
		s.Version, ok = uint64(version), ok && version > 0 //nolint:gosec // not negative
	case "updatedAt":
		s.UpdatedAt, ok = c.number()
	default:
		return c.stamp(s, name)
	}
	return ok
}

func (c *scanner) stamp(s *Session, name string) (ok bool) {
	for t := range transitionCount {
		stamp := s.Stamps[t]
		switch names := &transitionNames[t]; {
		case name == names.at:
			stamp = &Stamp{}
			s.Stamps[t] = stamp
			stamp.At, ok = c.number()
			return ok
		case stamp == nil:
		case name == names.by:
			stamp.By, ok = c.text()
			return ok
		case name == names.reason:
			stamp.Reason, ok = c.text()
			return ok
		}
	}
	return false
}

// skip reads exactly this.
func (c *scanner) skip(text string) bool {
	rest, ok := strings.CutPrefix(c.rest, text)
	if ok {
		c.rest = rest
	}
	return ok
}

// name reads the name of a member and the colon.
func (c *scanner) name() (string, bool) {
	name, ok := c.text()
	return name, ok && c.skip(":")
}

// text reads a string that is not empty.
func (c *scanner) text() (string, bool) {
	if !c.skip(`"`) {
		return "", false
	}
	ascii := true
	for i := range len(c.rest) {
		switch b := c.rest[i]; {
		case b == '"':
			text := c.rest[:i]
			c.rest = c.rest[i+1:]
			return text, i > 0 && (ascii || utf8.ValidString(text))
		case b == '\\' || b < ' ':
			return "", false
		case b >= utf8.RuneSelf:
			ascii = false
		}
	}
	return "", false
}

// texts reads an array of strings.
func (c *scanner) texts() ([]string, bool) {
	if !c.skip("[") {
		return nil, false
	}
	var texts []string
	for {
		text, ok := c.text()
		if !ok {
			return nil, false
		}
		texts = append(texts, text)
		if c.skip("]") {
			return texts, true
		}
		if !c.skip(",") {
			return nil, false
		}
	}
}

// number reads a whole number without a sign.
func (c *scanner) number() (int64, bool) {
	n := 0
	for n < len(c.rest) && '0' <= c.rest[n] && c.rest[n] <= '9' {
		n++
	}
	if n == 0 || n > 1 && c.rest[0] == '0' {
		return 0, false
	}
	value, err := strconv.ParseInt(c.rest[:n], 10, 64)
	c.rest = c.rest[n:]
	return value, err == nil
}

// object reads an object whose members are such strings, arrays of them, numbers
// and null: a merge patch of a session.
func (c *scanner) object() bool {
	if !c.skip("{") {
		return false
	}
	if c.skip("}") {
		return true
	}
	for {
		if _, ok := c.name(); !ok {
			return false
		}
		var ok bool
		switch {
		case len(c.rest) == 0:
		case c.rest[0] == '"':
			_, ok = c.text()
		case c.rest[0] == '[':
			_, ok = c.texts()
		case c.rest[0] == 'n':
			ok = c.skip("null")
		default:
			_, ok = c.number()
		}
		if !ok {
			return false
		}
		if c.skip("}") {
			return true
		}
		if !c.skip(",") {
			return false
		}
	}
}
