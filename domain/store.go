package domain

import "math"

// A Request is the identity of a write: who asked, under which name the request
// is traced, and the key by which a repetition of it is recognised.
type Request struct {
	SessionID     string
	Actor         string // account of the caller
	CorrelationID string
	TraceParent   string // W3C trace context; "" for none
	// Key is the hash of caller, method, path and Idempotency-Key, "" without a
	// key; Digest is the SHA-256 of the body. Both are lower-case hex.
	Key, Digest string
}

// Recorded is a session as the log has it after one of its events.
type Recorded struct {
	Session  Session
	Position uint64 // the event's place in the log; 0 for a session without events
	// Before is the session that a repeated request was first decided on; nil for
	// any other.
	Before *Session
}

// A Document is a session as the read model holds it.
type Document struct {
	JSON    []byte // the bytes that a client gets
	Version uint64
	Readers []string // accounts that may see it: the creator and the participants
}

// A Query asks for a list of sessions, ordered by (createdAt, id).
type Query struct {
	VisibleTo string // only sessions that this account may see; "" for all
	Filters   []Filter
	// MinCreatedAt and MaxCreatedAt bound createdAt, both inclusive.
	MinCreatedAt, MaxCreatedAt int64
	Ascending                  bool   // oldest first; the default is newest first
	After                      *Place // only what follows this place in the order
	Skip, Limit                int
	Count                      bool // count the whole result, whatever After, Skip and Limit say
}

// A Filter keeps the sessions whose field has one of the values; a field with
// several values, participants, has to have one of them among its own.
type Filter struct {
	Field  string // one of FilterFields
	Values []string
}

// FilterFields lists the fields by which a list can be filtered.
func FilterFields() []string {
	return []string{"state", "type", "room", "participants", "createdBy", "startedBy", "acceptedBy", "rejectedBy", "finishedBy"}
}

// FilterValues returns the session's values of a filter field; none where the
// field is absent.
func (s *Session) FilterValues(field string) []string {
	var value string
	switch field {
	case "state":
		value = string(s.State)
	case "type":
		value = s.Type
	case "room":
		value = s.Room
	case "participants":
		return s.Participants
	case "createdBy":
		value = s.CreatedBy
	default:
		for _, t := range Transitions() {
			if field == t.ByField() && s.Stamps[t] != nil {
				value = s.Stamps[t].By
			}
		}
	}
	if value == "" {
		return nil
	}
	return []string{value}
}

// Readers lists the accounts that may see the session: its creator and its
// participants, each once.
func (s *Session) Readers() []string {
	readers := []string{s.CreatedBy}
	for _, uid := range s.Participants {
		if uid != s.CreatedBy {
			readers = append(readers, uid)
		}
	}
	return readers
}

// MaxTime is the largest time that a stamp can hold: 8.64·10¹⁵ ms, the end of
// ECMAScript's time (ECMA-262, section 21.4.1.1).
const MaxTime int64 = 8_640_000_000_000_000

// Everything is the query for all sessions, newest first.
func Everything(limit int) Query {
	return Query{MinCreatedAt: 0, MaxCreatedAt: math.MaxInt64, Limit: limit}
}

// A Place is a session's place in the order of lists.
type Place struct {
	CreatedAt int64
	ID        string
}

// A Page is one part of a list.
type Page struct {
	Documents [][]byte // each session as the client gets it
	Next      *Place   // where the next page starts after; nil on the last page
	Total     *int64   // size of the whole result; nil when not counted
}
