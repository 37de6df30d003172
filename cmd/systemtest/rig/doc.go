// Package rig runs the built binary for the tests under cmd/systemtest, as an operator and
// its clients would: as a process, over HTTP, and over the protocols of NATS and Redis. Only
// tests import it.
//
// Files, in reading order:
//
//   - binary.go: Main builds the service for a package of tests; Command runs it to its end
//   - service.go, ops.go: Service, a running service, and what it shows to operators
//   - setups.go: the set-ups on which most tests run, and their servers
//   - client.go: Client sends requests, Answer is a response
//   - log.go, check.go: the events in a service's log, and what must hold for them
//   - content.go: everything that a service shows, to compare it later
//   - wait.go: waiting, and many requests at once
//
// # Invariants
//
//   - The binary has the race detector if the test has it, and a data race or a panic in a
//     service fails the test that runs it.
//   - Nothing skips: a missing server or program fails the test.
//
// A Service has one goroutine, which reads the output of its process and ends with it. No
// function holds a lock while it waits.
package rig
