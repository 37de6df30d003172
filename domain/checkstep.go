package domain

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"sync"
)

// step checks the step from the session before, and returns folded as Check does.
func (c *check) step(before *Session) (folded *Session) {
	after := c.session
	problem, folded := c.changes(before)
	if folded != nil {
		after = folded // so that a falsified session is reported only once
	}
	known := len(c.defects)
	c.stateChange(before, after)
	legal := len(c.defects) == known
	c.recordedAfter(before)
	if detail := after.timesOutOfOrder(); detail != "" && before.timesOutOfOrder() == "" {
		c.report(DefectTime, "%s", detail)
	}
	c.notInTheFuture(before, after)
	if before.Exists() {
		c.sameCreator(before, after)
		if legal { // an illegal event has no fields that it may change
			c.changedFields(before, after)
		}
	}
	if problem != "" {
		c.report(DefectChanges, "%s", problem)
	}
	return folded
}

// changes describes how the changes fail to lead to the session. If they lead to it, the
// problem is "" and folded is nil.
func (c *check) changes(before *Session) (problem string, folded *Session) {
	e := &c.record.Event
	if isDiff(e.Changes, before, &e.Session) {
		return "", nil
	}
	after, err := Apply(*before, *e)
	if err != nil {
		return fmt.Sprintf("the changes cannot be applied to version %d: %v", before.Version, err), nil
	}
	value := func(f *field, s *Session) string {
		if text := f.append(nil, s); len(text) > 0 {
			return string(text)
		}
		return "nothing"
	}
	var differences []string
	for i := range fields {
		if f := &fields[i]; !f.equal(&after, &e.Session) {
			differences = append(differences, fmt.Sprintf("%s %s, but the session has %s", f.name, value(f, &after), value(f, &e.Session)))
		}
	}
	if len(differences) == 0 {
		return "", nil
	}
	return "the changes lead to " + strings.Join(differences, "; "), &after
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

// stateChange checks the step against the state machine.
func (c *check) stateChange(before, after *Session) {
	typ, t := c.record.Event.Type, c.transition
	switch {
	case c.isTransition:
		to, legal := before.State.after(t)
		switch {
		case !legal && !before.Exists():
			c.report(DefectTransition, "%s is not possible: the session does not exist", t)
		case !legal:
			c.report(DefectTransition, "%s is not possible: the session is %s", t, before.State)
		case after.State != to:
			c.report(DefectTransition, "%s leads to %s, but the session is %s", t, to, after.State)
		case after.Stamps[t] == nil:
			c.report(DefectTransition, "the event is %s, but the session has no %s", typ, t.AtField())
		}
	case !before.Exists() && typ != EventCreated:
		c.report(DefectTransition, "the first event is %s", typ)
	case !before.Exists() && (after.State != StateCreated || after.stateByStamps() != StateCreated):
		c.report(DefectTransition, "a session begins as created, but this one is %s", after.State)
	case before.Exists() && typ == EventCreated:
		c.report(DefectTransition, "the session is created again: it is already %s", before.State)
	case before.Exists() && after.State != before.State:
		c.report(DefectTransition, "%s does not change the state, but it went from %s to %s", typ, before.State, after.State)
	}
}

// notInTheFuture checks how far the times that the event set are ahead of its recording.
func (c *check) notInTheFuture(before, after *Session) {
	check := func(name string, at int64) {
		// A falsified time may be any number, so the subtraction must not overflow.
		if at > math.MinInt64+MaxAhead && at-MaxAhead > after.UpdatedAt {
			c.report(DefectTime, "%s (%d) is more than 5 minutes after its recording (%d)", name, at, after.UpdatedAt)
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

// changedFields checks that the event changed only what its type may change.
func (c *check) changedFields(before, after *Session) {
	typ := c.record.Event.Type
	if !c.isTransition && typ != EventUpdated && typ != EventCorrected {
		return // envelope and stateChange report such types
	}
	var wrong []string
	if typ != EventUpdated {
		for i := range detailFields {
			if f := &detailFields[i]; !f.equal(before, after) {
				wrong = append(wrong, f.name)
			}
		}
	}
	for t := range transitionCount {
		was, is := before.Stamps[t], after.Stamps[t]
		switch {
		case equalStamps(was, is):
		case c.isTransition && t == c.transition && was == nil:
		case typ == EventCorrected && was != nil && is != nil:
		default:
			wrong = append(wrong, "the stamp of "+t.String())
		}
	}
	if len(wrong) > 0 {
		c.report(DefectFields, "%s may not change %s", typ, strings.Join(wrong, ", "))
	}
}
