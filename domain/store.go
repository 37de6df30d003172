package domain

import (
	"iter"
	"math"
)

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

// Recorded is a session as the log has it after one of its events.
type Recorded struct {
	Session  Session
	Position uint64 // the event's place in the log; 0 for a session without events
	EventID  string // the event's own; "" where there is none that can be read
	// Before is the session before that: of an answered write, the one that it was
	// decided on; of an event, the one that it changed. nil where it is not at hand.
	Before *Session
	// Encoded is what Session.AppendJSON writes, nil where it is not at hand. It is
	// shared and must not be changed.
	Encoded []byte
	// Record is the event; nil where it is not at hand.
	Record *Record
	// Unreadable is why the message at this position is no event; nil for one that is.
	// Then of the session only the ID is known.
	Unreadable error
}

// JSON returns the session as clients see it. The bytes may be shared and must not
// be changed.
func (r *Recorded) JSON() []byte {
	if r.Encoded != nil {
		return r.Encoded
	}
	return r.Session.AppendJSON(make([]byte, 0, 512))
}

// A Document is a session as the read model holds it.
type Document struct {
	JSON    string // what a client gets
	Version uint64
	Visible bool // to the account for which it was asked
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

// FilterFields lists the fields by which a list can be filtered; see Filterable.
func FilterFields() []string {
	return []string{"state", "type", "room", "participants", "createdBy", "startedBy", "acceptedBy", "rejectedBy", "finishedBy"}
}

// Filterable returns the session's filter fields with their values: participants
// once for each, absent fields not at all.
func (s *Session) Filterable() iter.Seq2[string, string] {
	return func(yield func(field, value string) bool) {
		present := func(field, value string) bool { return value == "" || yield(field, value) }
		if !present("state", string(s.State)) || !present("type", s.Type) || !present("room", s.Room) {
			return
		}
		for _, uid := range s.Participants {
			if !yield("participants", uid) {
				return
			}
		}
		if !present("createdBy", s.CreatedBy) {
			return
		}
		for t, stamp := range s.Stamps {
			if stamp != nil && !present(Transition(t).ByField(), stamp.By) {
				return
			}
		}
	}
}

// FilterValues returns the session's values of a filter field; none where the
// field is absent.
func (s *Session) FilterValues(field string) []string {
	var values []string
	for f, value := range s.Filterable() {
		if f == field {
			values = append(values, value)
		}
	}
	return values
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
	Documents []string // each session as the client gets it
	Next      *Place   // where the next page starts after; nil on the last page
	Total     *int64   // size of the whole result; nil when not counted
}
