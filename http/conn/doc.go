// Package conn is what the service does about connections that its web framework, Fiber,
// and the server below it, fasthttp, do not do. docs/decisions/0014-what-we-add-to-fiber.md
// gives the reason for each.
//
// Files in reading order:
//
//   - server.go: [Server] serves a Fiber app on a listener and shuts it down
//   - drain.go: which connections have a request in flight, so that a shutdown closes the
//     others at once and loses no request
//   - gone.go: the context of a request, which ends when its client disconnects
//   - query.go: the query as the client sent it, with what follows a #
//   - body.go: [TakeBody] reads the body before the request is judged
//   - takeover.go: [TakeOver] gives a connection to a stream
//   - socket_linux.go, socket_other.go: system calls on a socket
//
// # Invariants
//
//   - A request that is carried out gets its response: a connection is closed for a
//     shutdown only while it is at rest, and no request begins on one that is closed.
//   - The bytes of a request's body are never read as the next request: the body is read
//     whole, or the connection ends with the response.
//   - Nothing else uses a connection that was taken over, and no set of this package
//     holds it.
//
// # Goroutines
//
// [Server.Serve] starts one, which looks for clients that disconnected. It ends with
// [Server.Shutdown] or when serving fails.
//
// # Locks
//
// There is one, of the set of open connections. Nothing that waits is done under it.
package conn
