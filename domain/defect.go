package domain

// A DefectKind is a name on which scripts depend: kinds may be added, never changed.
type DefectKind string

// The kinds of defects that an event can have.
const (
	// DefectUnreadable: the message is not an event, or its envelope and its data name
	// different sessions or versions.
	DefectUnreadable DefectKind = "unreadable"
	// DefectEnvelope: the envelope is malformed or contradicts the data.
	DefectEnvelope DefectKind = "envelope"
	// DefectMissing: the log has no message at a position.
	DefectMissing DefectKind = "missing"
	// DefectVersionGap: versions of the session are missing before the event.
	DefectVersionGap DefectKind = "version-gap"
	// DefectVersionRepeated: the session already had this version.
	DefectVersionRepeated DefectKind = "version-repeated"
	// DefectPrevious: ce-previous does not point to the session's previous event.
	DefectPrevious DefectKind = "previous"
	// DefectFork: two events follow the same event.
	DefectFork DefectKind = "fork"
	// DefectChanges: applying the changes does not give the session.
	DefectChanges DefectKind = "changes"
	// DefectTransition: the state machine forbids the event.
	DefectTransition DefectKind = "transition"
	// DefectTime: times decrease, or lie too far in the future.
	DefectTime DefectKind = "time"
	// DefectImmutable: a member changed that no event may change.
	DefectImmutable DefectKind = "immutable"
	// DefectFields: a member changed that this type of event may not change.
	DefectFields DefectKind = "fields"
)

// DefectKinds lists all of them.
func DefectKinds() []DefectKind {
	return []DefectKind{
		DefectUnreadable, DefectEnvelope, DefectMissing, DefectVersionGap, DefectVersionRepeated, DefectPrevious,
		DefectFork, DefectChanges, DefectTransition, DefectTime, DefectImmutable, DefectFields,
	}
}

// A Defect is certainly wrong with an event: this service never writes such an event.
type Defect struct {
	Kind      DefectKind
	SessionID string // from the log's subject; "" for a position without a message
	Position  uint64
	Detail    string // what was found, and what would be right
}
