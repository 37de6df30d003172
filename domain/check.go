package domain

import "fmt"

// Check returns what is wrong with an event, given the session before it: the zero
// Session for the first event, nil if it is not known. Without it, only the rules for the
// event by itself are checked.
//
// If the changes do not lead to the session in the event, folded is the session to which
// they lead. One of the two was falsified, and the next event shows which.
func Check(before *Session, r *Record) (defects []Defect, folded *Session) {
	c := newCheck(r)
	c.envelope()
	switch {
	case before == nil:
		c.selfConsistent()
	case c.session.Version > before.Version+1:
		c.report(DefectVersionGap, "version %d follows version %d", c.session.Version, before.Version)
		c.selfConsistent()
	case c.session.Version <= before.Version:
		c.report(DefectVersionRepeated, "version %d follows version %d", c.session.Version, before.Version)
		c.selfConsistent()
	default:
		folded = c.step(before)
	}
	return c.defects, folded
}

// CheckLater is Check for an event whose predecessor is unknown, given an earlier session. The
// number of unreadable messages in between bounds how many events may be missing.
func CheckLater(earlier *Session, unreadable uint64, r *Record) []Defect {
	c := newCheck(r)
	c.envelope()
	repeated := c.session.Version <= earlier.Version
	switch {
	case repeated:
		c.report(DefectVersionRepeated, "version %d follows version %d", c.session.Version, earlier.Version)
	case c.session.Version > earlier.Version+unreadable+1:
		c.report(DefectVersionGap, "version %d follows version %d, with no more than %d messages in between",
			c.session.Version, earlier.Version, unreadable)
	}
	c.selfConsistent()
	if !repeated {
		c.recordedAfter(earlier)
		c.sameCreator(earlier, c.session)
	}
	return c.defects
}

// A check collects the defects of one event.
type check struct {
	record  *Record
	session *Session // after the event
	defects []Defect
	// transition is the one that the event records; isTransition is false for other types.
	transition   Transition
	isTransition bool
}

func newCheck(r *Record) check {
	c := check{record: r, session: &r.Event.Session}
	c.transition, c.isTransition = r.Event.Type.transition()
	return c
}

func (c *check) report(kind DefectKind, format string, args ...any) {
	c.defects = append(c.defects, Defect{kind, c.session.ID, c.record.Position, fmt.Sprintf(format, args...)})
}

// envelope checks that the envelope is complete and agrees with the data.
func (c *check) envelope() {
	r := c.record
	if at := r.Time.UnixMilli(); at != c.session.UpdatedAt {
		c.report(DefectEnvelope, "ce-time is %s (%d), but updatedAt is %d", r.Time.UTC().Format(TimeFormat), at, c.session.UpdatedAt)
	}
	if r.Request.Actor == "" {
		c.report(DefectEnvelope, "ce-actor is missing")
	}
	if (r.Request.Key == "") != (r.Request.Digest == "") {
		c.report(DefectEnvelope, "only one of ce-requestkey and ce-requestdigest is set")
	}
	if typ := r.Event.Type; !c.isTransition && typ != EventCreated && typ != EventUpdated && typ != EventCorrected {
		c.report(DefectEnvelope, "unknown type %q", typ)
	}
}

// selfConsistent checks that the event agrees with itself.
func (c *check) selfConsistent() {
	s := c.session
	if state := s.stateByStamps(); state != s.State {
		c.report(DefectTransition, "the stamps lead to state %q, but the session is %s", state, s.State)
	} else if c.isTransition && s.Stamps[c.transition] == nil {
		c.report(DefectTransition, "the event is %s, but the session has no %s", c.record.Event.Type, c.transition.AtField())
	}
	if problem := s.timesOutOfOrder(); problem != "" {
		c.report(DefectTime, "%s", problem)
	}
}

// stateByStamps returns the state to which the stamps lead, StateNone if that is illegal.
func (s *Session) stateByStamps() State {
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

// timesOutOfOrder describes the first time that is before its predecessor; "" for none.
func (s *Session) timesOutOfOrder() string {
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

// recordedAfter checks that the event was not recorded before an earlier one.
func (c *check) recordedAfter(earlier *Session) {
	if c.session.UpdatedAt < earlier.UpdatedAt {
		c.report(DefectTime, "updatedAt (%d) is before that of version %d (%d)", c.session.UpdatedAt, earlier.Version, earlier.UpdatedAt)
	}
}

// sameCreator checks the one member that no event may change.
func (c *check) sameCreator(earlier, later *Session) {
	if later.CreatedBy != earlier.CreatedBy {
		c.report(DefectImmutable, "createdBy changed from %q to %q", earlier.CreatedBy, later.CreatedBy)
	}
}
