// Package feathers parses query strings in the syntax of Feathers: $limit, $skip, $sort,
// $select, field=value, and field[$operator]=value.
//
// It is a pure parser: a string goes in; a query, a selection, or a problem (400) comes
// out. Numbers may be tagged (%2310, and #10 from clients that do not encode it), because
// Feathers clients send them so.
//
// Files in reading order:
//
//   - params.go: [Params], a query string as parameters with their brackets
//   - list.go: [ParseList], the query of a list
//   - session.go: [ParseSession] and [ParseSelect], the query of a single session
//   - select.go: [Selection], which members of a session a client asked for
//   - number.go: whole numbers as JSON writes them, also for bodies
//
// # Invariants
//
//   - Whatever is not understood is refused with a 400 that names the parameter, never
//     ignored: a filter that is dropped would show more than was asked for.
//   - Numbers are exact. No float is involved.
//
// The package starts no goroutine and has no lock.
package feathers
