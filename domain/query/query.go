package query

import "math"

// A Document is a session as the read model has it.
type Document struct {
	JSON    string // the session as the client gets it
	Version uint64
	Visible bool // to the account that asked
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
	Count                      bool // count the whole result, regardless of After, Skip, and Limit
}

// A Filter keeps the sessions whose field has one of the values among its own.
type Filter struct {
	Field  string // one of domain.FilterFields
	Values []string
}

// Everything is the query for all sessions, newest first.
func Everything(limit int) Query {
	return Query{MinCreatedAt: 0, MaxCreatedAt: math.MaxInt64, Limit: limit}
}

// A Place is a session's place in the order of lists.
type Place struct {
	CreatedAt int64 // epoch milliseconds
	ID        string
}

// A Page is one part of a list.
type Page struct {
	Documents []string // each session as the client gets it
	Next      *Place   // the next page starts after it; nil on the last page
	Total     *int64   // size of the whole result; nil when not counted
}
