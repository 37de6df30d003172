package domain

// A Command is a request to change one session: Create or Change.
type Command interface {
	decide(Session) ([]Event, error)
}

// Create opens a session. Stamps and reasons in it are the history that the
// session is imported with.
type Create struct {
	ID     string // of the session to be
	By     Caller
	Now    int64  // the time of recording, epoch milliseconds
	Values Values // CreatedBy is for callers that may act for others; nil is the caller
	// Problems are what the parser of the request found wrong already. The command
	// is refused with all that is wrong with it, theirs and its own.
	Problems []FieldError
}

// Change changes a session: its details, its recorded stamps, its state.
type Change struct {
	By         Caller
	Now        int64 // the time of recording, epoch milliseconds
	Directives [transitionCount]Directive
	Values     Values
	// Condition says whether the command was made for this version of the
	// session; nil is for any version.
	Condition func(version uint64) bool
	// Problems are what the parser of the request found wrong already.
	Problems []FieldError
}

// A Directive says whether a transition was asked for. The zero value is a
// directive that was not mentioned.
type Directive struct {
	Asked   bool
	Refused bool   // `false` was said in so many words: not asked for
	Reason  string // the reason that the directive brought, "" for none
}

// Values are the members of a session that a request names; nil where it does not.
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
