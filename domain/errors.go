package domain

import (
	"errors"
	"fmt"
	"strings"
)

// Errors that the log and the read model return, besides their own failures.
var (
	// ErrNotFound is returned for a session that is missing or hidden from the caller.
	ErrNotFound = errors.New("no such session")
	// ErrUnavailable is returned when the log or the read model cannot be reached or
	// trusted now. A write that returns it was not written.
	ErrUnavailable = errors.New("unavailable")
	// ErrNotWritable is returned, together with ErrUnavailable, for a write that the log
	// refused and would refuse again: somebody has to change the log, or make room for it.
	ErrNotWritable = errors.New("the log takes no such write until an operator has acted")
	// ErrOutcomeUnknown is returned when a sent write has an unknown outcome.
	ErrOutcomeUnknown = errors.New("the change may or may not have been written")
	// ErrKeyReused is returned when a request key was used before with another body.
	ErrKeyReused = errors.New("the request key was used with another body")
	// ErrHistoryTooLong is returned for a request with a key when the session has too
	// many events to search them for the key in time.
	ErrHistoryTooLong = errors.New("the session has too many events to look for the request key")
	// ErrUnreadable is returned for a session that has a message in the log that is not
	// an event. Its state is unknown until the log is repaired.
	ErrUnreadable = errors.New("the session cannot be read")
	// ErrBusy is returned for a list that would have to wait too long for its turn.
	ErrBusy = errors.New("too many other requests")
	// ErrTooExpensive is returned for a list that would have to look at too many sessions.
	ErrTooExpensive = errors.New("the query would have to look at too many sessions")
)

// IsRefusal reports whether a rule refused the command, not a failure or a defect.
func IsRefusal(err error) bool {
	var (
		invalid   *InvalidError
		forbidden *ForbiddenError
		stale     *PreconditionError
		illegal   *IllegalTransitionError
	)
	return errors.Is(err, ErrNotFound) || errors.Is(err, ErrKeyReused) ||
		errors.As(err, &invalid) || errors.As(err, &forbidden) || errors.As(err, &stale) || errors.As(err, &illegal)
}

// A FieldError describes what is wrong with one member of a request's body.
type FieldError struct {
	Pointer string // JSON pointer (RFC 6901) to the member, such as "/participants/3"
	Detail  string // what is wrong and what would be right
}

// An InvalidError lists everything that is wrong with the values of a command.
type InvalidError struct{ Fields []FieldError }

func (e *InvalidError) Error() string { return joinFields(e.Fields) }

// A ForbiddenError lists the members that the caller may not set or change.
type ForbiddenError struct{ Fields []FieldError }

func (e *ForbiddenError) Error() string { return joinFields(e.Fields) }

func joinFields(fields []FieldError) string {
	details := make([]string, len(fields))
	for i, f := range fields {
		details[i] = f.Detail
	}
	return strings.Join(details, "; ")
}

// A PreconditionError is returned when the command was made for another version of the
// session. Version is the current one.
type PreconditionError struct{ Version uint64 }

func (e *PreconditionError) Error() string {
	return fmt.Sprintf("the session is at version %d", e.Version)
}

// An IllegalTransitionError is returned when the state machine forbids a directive in the
// session's state.
type IllegalTransitionError struct {
	Directive Transition
	State     State // the state in which it is illegal
	// Session is from before the command; after other directives, State may be later.
	Session Session
}

func (e *IllegalTransitionError) Error() string {
	if e.State != e.Session.State {
		return fmt.Sprintf("%s is not possible: the session would be %s by then", e.Directive, e.State)
	}
	return fmt.Sprintf("%s is not possible: the session is %s", e.Directive, e.State)
}
