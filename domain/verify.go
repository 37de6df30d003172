package domain

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"sync"
)

// A DefectKind names what is wrong with an event. The names are for scripts: they only
// grow.
type DefectKind string

// The kinds of defects that an event can have.
const (
	// DefectUnreadable: the message is not an event, or envelope and data are of
	// different sessions or versions.
	DefectUnreadable DefectKind = "unreadable"
	// DefectEnvelope: the envelope is not as events are written, or contradicts the data.
	DefectEnvelope DefectKind = "envelope"
	// DefectMissing: the log has nothing at a position.
	DefectMissing DefectKind = "missing"
	// DefectVersionGap: versions of the session are left out before the event.
	DefectVersionGap DefectKind = "version-gap"
	// DefectVersionRepeated: the session has had the version already.
	DefectVersionRepeated DefectKind = "version-repeated"
	// DefectPrevious: ce-previous does not lead to the session's event before.
	DefectPrevious DefectKind = "previous"
	// DefectFork: another event has followed the same one already.
	DefectFork DefectKind = "fork"
	// DefectChanges: the changes do not fold to the session.
	DefectChanges DefectKind = "changes"
	// DefectTransition: the state machine forbids it.
	DefectTransition DefectKind = "transition"
	// DefectTime: times run backwards, or lie too far ahead.
	DefectTime DefectKind = "time"
	// DefectImmutable: a member has changed that nothing may change.
	DefectImmutable DefectKind = "immutable"
	// DefectFields: a member has changed that this type of event leaves as it is.
	DefectFields DefectKind = "fields"
)

// DefectKinds lists all of them.
func DefectKinds() []DefectKind {
	return []DefectKind{
		DefectUnreadable, DefectEnvelope, DefectMissing, DefectVersionGap, DefectVersionRepeated, DefectPrevious,
		DefectFork, DefectChanges, DefectTransition, DefectTime, DefectImmutable, DefectFields,
	}
}

// A Defect is something that is wrong with an event, beyond any doubt: this service has
// not written it so.
type Defect struct {
	Kind      DefectKind
	SessionID string // as the log's subject has it; "" for a position without a message
	Position  uint64
	Detail    string // what was found, and what would be right
}

// Check says what is wrong with an event, given the session before it: the zero Session
// for the first event, nil where it is not known, and then less can be told.
//
// Where the changes do not fold to the session, folded is what they do fold to: one of
// the two was falsified, and the next event tells which.
func Check(before *Session, r *Record) (defects []Defect, folded *Session) {
	c := check{record: r, session: &r.Event.Session}
	c.envelope()
	switch {
	case before == nil:
		c.alone()
	case c.session.Version > before.Version+1:
		c.found(DefectVersionGap, "version %d follows version %d", c.session.Version, before.Version)
		c.alone()
	case c.session.Version <= before.Version:
		c.found(DefectVersionRepeated, "version %d follows version %d", c.session.Version, before.Version)
		c.alone()
	default:
		folded = c.step(before)
	}
	return c.defects, folded
}

// CheckLater is Check for an event where the session before it is not known, but an
// earlier one is: in between are so many messages that cannot be read, each of which may
// have been an event.
func CheckLater(earlier *Session, unreadable uint64, r *Record) []Defect {
	c := check{record: r, session: &r.Event.Session}
	c.envelope()
	if c.session.Version <= earlier.Version {
		c.found(DefectVersionRepeated, "version %d follows version %d", c.session.Version, earlier.Version)
		c.alone()
		return c.defects
	}
	if c.session.Version > earlier.Version+unreadable+1 {
		c.found(DefectVersionGap, "version %d follows version %d, and there are no more messages in between than %d", c.session.Version, earlier.Version, unreadable)
	}
	c.alone()
	c.lasting(earlier)
	return c.defects
}

// lasting checks what an earlier session says of every later one.
func (c *check) lasting(earlier *Session) {
	if c.session.UpdatedAt < earlier.UpdatedAt {
		c.found(DefectTime, "updatedAt (%d) is before that of version %d (%d)", c.session.UpdatedAt, earlier.Version, earlier.UpdatedAt)
	}
	if c.session.CreatedBy != earlier.CreatedBy {
		c.found(DefectImmutable, "createdBy went from %q to %q", earlier.CreatedBy, c.session.CreatedBy)
	}
}

// A check is that of one event.
type check struct {
	record  *Record
	session *Session // after the event
	defects []Defect
}

func (c *check) found(kind DefectKind, format string, args ...any) {
	c.defects = append(c.defects, Defect{kind, c.session.ID, c.record.Position, fmt.Sprintf(format, args...)})
}

// envelope checks what the event says of itself.
func (c *check) envelope() {
	r := c.record
	if at := r.Time.UnixMilli(); at != c.session.UpdatedAt {
		c.found(DefectEnvelope, "ce-time is %s (%d), and updatedAt is %d", r.Time.UTC().Format(TimeFormat), at, c.session.UpdatedAt)
	}
	if r.Request.Actor == "" {
		c.found(DefectEnvelope, "ce-actor is missing: nobody can tell who did it")
	}
	if (r.Request.Key == "") != (r.Request.Digest == "") {
		c.found(DefectEnvelope, "of ce-requestkey and ce-requestdigest one is missing")
	}
	switch r.Event.Type {
	case EventCreated, EventUpdated, EventCorrected:
	default:
		if _, ok := r.Event.Type.transition(); !ok {
			c.found(DefectEnvelope, "the type %q is not known", r.Event.Type)
		}
	}
}

// transition returns the transition that events of the type record.
func (t EventType) transition() (Transition, bool) {
	for tr := range transitionCount {
		if tr.EventType() == t {
			return tr, true
		}
	}
	return 0, false
}

// alone checks the event for itself.
func (c *check) alone() {
	s := c.session
	if way := s.way(); way != s.State {
		c.found(DefectTransition, "the stamps lead to state %q, and the session is %s", way, s.State)
	} else if t, ok := c.record.Event.Type.transition(); ok && s.Stamps[t] == nil {
		c.found(DefectTransition, "the event is %s, and the session has no %s", c.record.Event.Type, t.AtField())
	}
	if wrong := s.disorder(); wrong != "" {
		c.found(DefectTime, "%s", wrong)
	}
}

// way is the state to which the session's stamps lead, StateNone if the machine allows
// no such life.
func (s *Session) way() State {
	state := StateCreated
	for t, stamp := range s.Stamps {
		if stamp == nil {
			continue
		}
		after, ok := state.after(Transition(t))
		if !ok {
			return StateNone
		}
		state = after
	}
	return state
}

// disorder says what is wrong with the order of the session's times, "" for nothing.
func (s *Session) disorder() string {
	earlier, at := "createdAt", s.CreatedAt
	for t, stamp := range s.Stamps {
		if stamp == nil {
			continue
		}
		name := Transition(t).AtField()
		if stamp.At < at {
			return fmt.Sprintf("%s (%d) is before %s (%d)", name, stamp.At, earlier, at)
		}
		earlier, at = name, stamp.At
	}
	return ""
}

// step checks the step from the session before, and returns what Check does.
func (c *check) step(before *Session) (folded *Session) {
	after := c.session
	wrong, folded := c.fold(before)
	if folded != nil {
		after = folded // what falsifies the session is told once
	}
	known := len(c.defects)
	c.transition(before, after)
	legal := len(c.defects) == known
	if c.session.UpdatedAt < before.UpdatedAt {
		c.found(DefectTime, "updatedAt (%d) is before that of version %d (%d)", c.session.UpdatedAt, before.Version, before.UpdatedAt)
	}
	if detail := after.disorder(); detail != "" && before.disorder() == "" {
		c.found(DefectTime, "%s", detail)
	}
	c.ahead(before, after)
	if before.Exists() && after.CreatedBy != before.CreatedBy {
		c.found(DefectImmutable, "createdBy went from %q to %q", before.CreatedBy, after.CreatedBy)
	}
	if before.Exists() && legal { // what an illegal one may change is no question
		c.members(before, after)
	}
	if wrong != "" {
		c.found(DefectChanges, "%s", wrong)
	}
	return folded
}

// fold says how the changes do not lead to the session, "" when they do, and then
// folded is nil.
func (c *check) fold(before *Session) (wrong string, folded *Session) {
	e := &c.record.Event
	if isDiff(e.Changes, before, &e.Session) {
		return "", nil
	}
	after, err := Apply(*before, *e)
	if err != nil {
		return fmt.Sprintf("the changes cannot be applied to version %d: %v", before.Version, err), nil
	}
	var differ []string
	for _, f := range fields {
		if !f.equal(&after, &e.Session) {
			differ = append(differ, fmt.Sprintf("%s %s, and the session has %s",
				f.name, orNone(f.append(nil, &after)), orNone(f.append(nil, &e.Session))))
		}
	}
	if len(differ) == 0 {
		return "", nil
	}
	return "the changes lead to " + strings.Join(differ, "; "), &after
}

// isDiff reports whether the patch is exactly what appendDiff writes, as in every event
// of this service. Then it leads from one session to the other by construction.
func isDiff(patch []byte, from, to *Session) bool {
	buffer := diffBuffers.Get().(*[]byte)
	defer diffBuffers.Put(buffer)
	*buffer = appendDiff((*buffer)[:0], from, to)
	return bytes.Equal(patch, *buffer)
}

var diffBuffers = sync.Pool{New: func() any { return new([]byte) }}

func orNone(value []byte) string {
	if len(value) == 0 {
		return "nothing"
	}
	return string(value)
}

// transition checks the step by the machine.
func (c *check) transition(before, after *Session) {
	typ := c.record.Event.Type
	t, ok := typ.transition()
	switch {
	case ok:
		to, legal := before.State.after(t)
		switch {
		case !legal:
			c.found(DefectTransition, "%s is not possible: the session is %s", t, orNotThere(before.State))
		case after.State != to:
			c.found(DefectTransition, "%s leads to %s, and the session is %s", t, to, after.State)
		case after.Stamps[t] == nil:
			c.found(DefectTransition, "the event is %s, and the session has no %s", typ, t.AtField())
		}
	case !before.Exists() && typ != EventCreated:
		c.found(DefectTransition, "the first event is %s", typ)
	case !before.Exists() && (after.State != StateCreated || after.way() != StateCreated):
		c.found(DefectTransition, "a session begins as created, and is %s", after.State)
	case before.Exists() && typ == EventCreated:
		c.found(DefectTransition, "the session is created once more: it is %s", before.State)
	case before.Exists() && after.State != before.State:
		c.found(DefectTransition, "%s leaves the state as it is, and it went from %s to %s", typ, before.State, after.State)
	}
}

func orNotThere(s State) State {
	if s == StateNone {
		return "not there"
	}
	return s
}

// ahead checks that what the event gives of times does not lie too far ahead of its
// recording.
func (c *check) ahead(before, after *Session) {
	check := func(name string, at int64) {
		// A falsified time may be any number, and must not overflow.
		if at > math.MinInt64+MaxAhead && at-MaxAhead > after.UpdatedAt {
			c.found(DefectTime, "%s (%d) is more than 5 minutes after its recording (%d)", name, at, after.UpdatedAt)
		}
	}
	if after.CreatedAt != before.CreatedAt {
		check("createdAt", after.CreatedAt)
	}
	for t, stamp := range after.Stamps {
		if stamp != nil && (before.Stamps[t] == nil || before.Stamps[t].At != stamp.At) {
			check(Transition(t).AtField(), stamp.At)
		}
	}
}

// members checks that the event has changed only what its type may.
func (c *check) members(before, after *Session) {
	typ := c.record.Event.Type
	own, isTransition := typ.transition()
	if !isTransition && typ != EventUpdated && typ != EventCorrected {
		return // of a later version, or told by transition
	}
	var strange []string
	if typ != EventUpdated {
		for i := range detailFields {
			if f := &detailFields[i]; !f.equal(before, after) {
				strange = append(strange, f.name)
			}
		}
	}
	for t := range transitionCount {
		was, is := before.Stamps[t], after.Stamps[t]
		switch {
		case was == is, was != nil && is != nil && *was == *is:
		case isTransition && t == own && was == nil:
		case typ == EventCorrected && was != nil && is != nil:
		default:
			strange = append(strange, "what is recorded of "+t.String())
		}
	}
	if len(strange) > 0 {
		c.found(DefectFields, "%s has changed %s, which it leaves as it is", typ, strings.Join(strange, ", "))
	}
}
