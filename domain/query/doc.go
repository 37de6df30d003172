// Package query holds the query for a list of sessions and its result. It has no behavior
// of its own: http makes queries, projections answers them.
//
// # Invariants
//
// The order of a list is (createdAt, id), so a Place is unique, and a page that starts
// after a Place neither repeats nor skips a session.
package query
