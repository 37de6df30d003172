// Command chatsessions runs the life of chat and telemedicine sessions: an HTTP API over an
// event log in NATS JetStream and a read model in Redis. This package is the command line.
// It wires the other packages and holds no rules of its own.
//
// Files, in reading order:
//
//   - main.go: the commands, their exit statuses, and how a command line is run
//   - flags.go: the flags that say where log and read model are
//   - serve.go, service.go: the service; service.go shows how requests and events flow
//   - stores.go, connection.go: opening the log and Redis, or starting them in this process
//   - servers.go: whether the servers of an external log acknowledge only what is on disk
//   - outside.go: how the other commands reach log and read model
//   - history.go, replay.go: show the log (package replay does the work)
//   - rebuild.go, parked.go, verify.go: the read model, compared and repaired
//   - token.go, version.go
//   - metrics.go, ops.go, runtime.go: what operators see, memory and processors
//   - progress.go, nice_linux.go: for commands that take long
//   - faults.go: a build for tests that can be made to fail
//
// # Invariants
//
//   - Exit status 0: done. 1: failed, or found a defect. 2: wrong usage, and nothing was done.
//   - Standard output holds results, standard error everything else. An error is printed once,
//     in run.
//   - Only serve creates a log; other commands open one that exists, or say where they looked.
//   - A command shows only what is on disk, even from a running embedded service.
//   - The password of an embedded server is only in connection.json (0600) and in memory.
//
// # Goroutines
//
// service.run owns those of a service, in one errgroup; the first error ends all. When ctx
// ends, the API drains, and the read model and the projector end after it. opsServer.Close
// and stores.Close wait for what they have started. The one lock is in verify.go: log and read
// model are verified at the same time and print to the same output.
package main
