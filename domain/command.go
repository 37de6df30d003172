package domain

import "slices"

// A Command asks to change one session: a Create or a Change, perhaps in a Parsed.
type Command interface {
	// flaws lists what is wrong with the shape of the command, given what is known to be
	// wrong already. An error comes before any flaw.
	flaws(s Session, known []FieldError) ([]FieldError, error)
	// decide returns the events of a command without flaws.
	decide(Session) ([]Event, error)
}

// Create opens a session; its stamps and reasons are the imported history.
type Create struct {
	ID     string // of the new session
	By     Caller
	Now    int64  // the time of recording, epoch milliseconds
	Values Values // CreatedBy is for callers who may act for others; nil is the caller
}

// Change changes a session: its details, its recorded stamps, its state.
type Change struct {
	By         Caller
	Now        int64 // the time of recording, epoch milliseconds
	Directives [transitionCount]Directive
	Values     Values
	// Condition reports whether the command accepts this version; nil accepts any.
	Condition func(version uint64) bool
}

// Parsed is a command with the findings of the parser that made it from a request. The
// command is refused with everything that is wrong: the findings, then its own flaws.
type Parsed struct {
	Command Command
	// Findings lists what is wrong with the request. It gets the session because a
	// client may send back the session's own values in members that it cannot set.
	Findings func(*Session) []FieldError
}

func (p Parsed) flaws(s Session, known []FieldError) ([]FieldError, error) {
	findings := p.Findings(&s)
	own, err := p.Command.flaws(s, slices.Concat(known, findings))
	return slices.Concat(findings, own), err
}

func (p Parsed) decide(s Session) ([]Event, error) { return p.Command.decide(s) }

// A Directive asks for a transition; the zero value is one that the request does not mention.
type Directive struct {
	Asked   bool
	Refused bool   // the request says `false`
	Reason  string // the reason that came with the directive, "" for none
}

// Values are the members of a session that a request names; nil for the others.
type Values struct {
	Type, Room   *string   // "" clears
	Participants *[]string // empty clears
	CreatedAt    *int64
	CreatedBy    *string
	Stamps       [transitionCount]StampValues
}

// StampValues are the members of one transition's stamp that a request names.
type StampValues struct {
	At     *int64
	By     *string
	Reason *string // "" clears
}
