// Package problem is the errors of the HTTP interface: how each one looks, which error
// becomes which response, and what of it is logged.
//
// A problem has the members of RFC 9457, and those of a Feathers error as extensions, so
// that a Feathers client throws its own class (BadRequest, NotFound, Conflict …).
//
// Files in reading order:
//
//   - problem.go: the shape, and [New], which fills it from a status
//   - table.go: [Of], the one table from errors to problems, and the problems in it
//   - send.go: a problem as the response, and as a line of the log
//
// # Invariants
//
//   - The cause of a problem is logged and never shown.
//   - A session that a caller may not see and one that does not exist give the same
//     problem.
//   - The 503 of a write reports whether the write may be in the log.
//   - An error is logged once, here. Refusals (4xx) are not logged.
//
// The package starts no goroutine and has no lock. A problem may be shared between
// requests only by code that copies it before it changes it.
package problem
