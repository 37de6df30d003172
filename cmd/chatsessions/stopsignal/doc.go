// Package stopsignal catches the signals that ask the process to end, SIGINT and SIGTERM,
// before anything else runs. Read [Context].
//
// The packages that the program is made of take tens of milliseconds to initialize, hundreds
// on a busy machine. A signal in that time would kill the process before main could ask for
// it. So this package asks in its own initialization, an exception to the rule that there is
// none with effects. Go initializes the packages whose imports are ready in the order of
// their paths, so this one comes before all others outside the standard library, as long as
// it imports nothing but os/signal and what that needs. What is left is the start of Go's
// runtime, about a millisecond; a signal then ends a process that has done nothing.
//
// # Invariants
//
//   - After the initialization, none of the signals ends the process by itself, at any time.
//
// # Goroutines and locks
//
// Context starts one goroutine, which ends with the first signal or the process. There is no
// lock.
package stopsignal
