package audit

import (
	"context"
	"errors"
	"fmt"

	"chatsessions/domain"
	"chatsessions/eventstore/envelope"
)

// check checks the next messages of the log.
func (v *verification) check(ctx context.Context, messages []message) error {
	places, err := v.lookUp(ctx, messages)
	if err != nil {
		return err
	}
	for i := range messages {
		m := &messages[i]
		stray, err := v.checkSequence(m)
		if err != nil {
			return err
		}
		known := v.states.get(m.record.Event.Session.ID)
		if known == nil {
			known = &lastState{}
		}
		if m.err != nil {
			err = v.checkUnreadable(ctx, m, known)
		} else {
			err = v.checkEvent(ctx, m, stray, known, places[i])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkSequence checks that nothing is missing between the message before and this one. It
// reports whether ce-previous refers to a message in the same write that is not there.
func (v *verification) checkSequence(m *message) (stray bool, err error) {
	position := m.record.Position
	if position > v.read+1 {
		if err := v.reportMissing(v.read+1, position-1); err != nil {
			return false, err
		}
	}
	if v.openID != "" && v.openID != m.writeID && !v.completes(m) {
		if err := v.reportTorn(); err != nil {
			return false, err
		}
	}
	stray = m.previousInWrite && (m.writeID == "" || m.writeID != v.openID || position != v.read+1)
	v.read, v.openID = position, ""
	if m.writeContinues {
		v.openID, v.openRequest = m.writeID, m.record.Request.CorrelationID
	}
	return stray, nil
}

// completes reports whether a message is of the same request as the atomic write before it,
// whose end is missing: a start after a crash has appended the rest.
func (v *verification) completes(m *message) bool {
	return m.err == nil && m.record.Position == v.read+1 && m.record.Previous == v.read && m.record.Request.CorrelationID == v.openRequest
}

func (v *verification) checkUnreadable(ctx context.Context, m *message, known *lastState) error {
	cause := m.err
	var unreadable *envelope.UnreadableError
	if errors.As(cause, &unreadable) {
		cause = unreadable.Err
	}
	id, position := m.record.Event.Session.ID, m.record.Position
	if err := v.report(domain.Defect{Kind: domain.DefectUnreadable, SessionID: id, Position: position, Detail: cause.Error()}); err != nil {
		return err
	}
	known.unreadable, known.between = position, known.between+1
	return v.reportSessions(ctx, v.states.put(id, known))
}

// checkEvent checks a readable event against the known state of its session.
func (v *verification) checkEvent(ctx context.Context, m *message, stray bool, known *lastState, at *place) error {
	r := m.record
	id := r.Event.Session.ID
	v.result.Events++
	var defects []domain.Defect
	for _, detail := range m.wrongHeaders {
		defects = append(defects, domain.Defect{Kind: domain.DefectEnvelope, SessionID: id, Position: r.Position, Detail: detail})
	}
	before, broken, err := v.before(ctx, r, known, at)
	if err != nil {
		return err
	}
	if broken == nil && stray {
		broken = &domain.Defect{
			Kind: domain.DefectPrevious, SessionID: id, Position: r.Position,
			Detail: fmt.Sprintf("%s is %d, and the message before is not part of the same atomic write", envelope.HeaderPrevious, envelope.PreviousInWrite),
		}
	}
	if broken != nil {
		defects = append(defects, *broken)
	}
	if before != nil && !before.Exists() {
		v.result.Sessions++
	}
	more, folded, err := v.checkAgainst(ctx, before, r, known)
	if err != nil {
		return err
	}
	for _, d := range append(defects, more...) {
		if err := v.report(d); err != nil {
			return err
		}
	}
	v.claims.add(r)
	session := r.Event.Session
	return v.reportSessions(ctx, v.states.put(id, &lastState{position: r.Position, session: &session, folded: folded, unreadable: known.unreadable}))
}

// checkAgainst returns the defects of an event that follows a session, nil for an unknown
// one, and the session to which the event's changes fold if that differs from its own.
func (v *verification) checkAgainst(ctx context.Context, before *domain.Session, r *domain.Record, known *lastState) ([]domain.Defect, *domain.Session, error) {
	defects, folded := domain.Check(before, r)
	if before == nil {
		earlier, err := v.lastReadable(ctx, r, known)
		if err != nil {
			return nil, nil, err
		}
		if earlier.session != nil {
			defects = domain.CheckLater(earlier.session, earlier.between, r)
		}
		return defects, folded, nil
	}
	if len(defects) > 0 && r.Previous > 0 {
		// The event before may have been falsified, and this one follows from the original.
		original, err := v.foldedAt(ctx, r.Previous, known)
		if err != nil {
			return nil, nil, err
		}
		if original != nil {
			if fewer, other := domain.Check(original, r); len(fewer) < len(defects) {
				return fewer, other, nil
			}
		}
	}
	return defects, folded, nil
}
