// Package audit reads the whole log: to verify it, to find a time in it, and to publish its
// events again. Nothing here writes to the log.
//
// Read the files in this order:
//
//   - verify.go: Verify, its options and result, and its pipeline
//   - check.go: the checks of one message
//   - chain.go: the event before an event, looked up in the log if its state is unknown
//   - states.go: what a verification remembers of sessions, in bounded memory
//   - pacer.go: slows a reader while others write
//   - between.go: finds a time in the log
//   - republish.go: publishes events to another subject
//
// # Invariants
//
//   - Every defect is reported once, at the position where it is found, in the order of the
//     log.
//   - An honest log has no defect, however little memory the verification has.
//   - Memory does not grow with the log.
//   - No event is published to a subject from which it could return to the log.
//   - Confirm counts an event only when the server has it for certain.
//
// # Goroutines and locks
//
// Verify runs three goroutines (read, decode, check) and up to 32 lookups; all end before it
// returns. A verification is used by its check goroutine alone and has no lock. A Pacer has
// one lock, which it holds while it asks the log for its end.
package audit
