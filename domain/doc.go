// Package domain holds the rules of a chat session: its state, its events, the commands
// that a caller may give, and the decision what a command does.
//
// A command goes through [Decide], which returns the events to write or the reason why
// the command is refused. [Apply] folds an event into the session before it. [Check]
// finds what is wrong with an event that is already in the log.
//
// Files in reading order:
//   - session.go: the aggregate, Session, and the stamps of its transitions
//   - fsm.go: states, transitions, and the transition table: the whole life of a session
//   - event.go: Event, its fold, and Record, an event with its envelope
//   - command.go: the commands Create and Change, and their values
//   - decide.go: Decide, and the order in which a command is checked
//   - values.go: what values may not say, and who may give which
//   - builder.go: eventBuilder, which collects a command's events and checks their times
//   - limits.go: lengths and characters of values
//   - errors.go: every error that a caller can tell apart
//   - fields.go: the one table of a session's JSON fields; encoder and merge patches
//   - decode.go: the fast decoder of the JSON that the service wrote
//   - access.go: callers, and what they may do and see; filter fields, for lists
//   - defect.go: the kinds of defects that an event of the log can have
//   - check.go: the rules that an event must obey by itself
//   - checkstep.go: the rules for the step from one session to the next
//
// # Invariants
//
// The package is pure: no I/O, no clock, no randomness, no context. Time, ids, and the
// caller come in with the command. Nothing here starts a goroutine or takes a lock, and
// all functions can be called concurrently.
//
// These hold for every event that Decide returns:
//   - Session.Version is the version before plus one.
//   - Session.UpdatedAt never decreases.
//   - createdAt ≤ startedAt ≤ acceptedAt or rejectedAt ≤ finishedAt.
//   - State is the state to which the stamps lead; each step is in the transition table.
//   - Changes, applied to the session before, give Session.
//   - CreatedBy never changes.
//   - A command that is decided again on its own result leads to no event.
//
// A session is immutable once an event carries it: changes are made on a clone. Encoding
// is a storage format: fields keep their order, and a session that was decoded encodes to
// the same bytes.
package domain
