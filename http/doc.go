// Package http is the REST interface of the service. It turns requests into commands and
// queries, and their outcomes into responses. It is imported as chathttp. What clients
// see is in docs/api.md.
//
// Files in reading order:
//
//   - server.go: [Server], its [Config], and the routes; the interfaces [Log] and [ReadModel]
//   - request.go: what every request passes first: its name, the limits of its head, its body
//   - sessions.go: POST, PATCH, and GET of a session
//   - body.go: a JSON body as the values of a command, and what is wrong with it
//   - conditions.go, key.go: If-Match, Prefer, positions; Idempotency-Key
//   - list.go, cursor.go: lists and their pages
//   - past.go, at.go, history.go, accept.go: what is read from the log: a session as it was,
//     and its events
//   - admission.go: the limit of commands in flight
//   - fail.go: an error as a response
//   - observe.go, static.go: metrics, and documents that do not change
//
// The packages below, none of which imports a later one: problem (errors), conn (what is done
// outside the framework), feathers (query syntax), auth (callers), feed (server-sent events).
//
// # Invariants
//
//   - No response shows what is not durable or may be older than an answered write.
//   - A response is sent only when the read model shows what it shows, or readers know that
//     it does not yet.
//   - What a caller may not see does not exist for them, in any response.
//   - Of several errors, the first in the order of the contract is reported.
//   - A string that outlives its handler is a copy: fasthttp reuses the memory of a request.
//   - The 503 of a write reports whether the write may be in the log.
//
// # Goroutines
//
// A handler runs in the goroutine of its connection, and starts none. Those of package conn
// and package feed end with [Server.Shutdown].
//
// # Locks
//
// The package has none: admission counts atomically, and long histories take places in a
// channel.
package http
