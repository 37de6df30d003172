package audit

import (
	"context"
	"errors"
	"fmt"

	"chatsessions/domain"
	"chatsessions/eventstore"
	"chatsessions/eventstore/envelope"

	"golang.org/x/sync/errgroup"
)

const (
	// maxLookups bounds the simultaneous requests to the log.
	maxLookups = 32
	// maxUnreadable bounds how many messages are skipped to find the event before them.
	maxUnreadable = 100
)

// A place is what the log has around an event of a session.
type place struct {
	previous *domain.Record // the event to which ce-previous leads
	err      error          // why there is none
	// rival is the position of an event of the session with the same claim: it follows the
	// same event, or comes before an event that should be the first. 0 for none.
	rival uint64
}

// lookUp asks the log for the places of the events whose sessions have no known state. It
// returns nil for each of the others.
func (v *verification) lookUp(ctx context.Context, messages []message) ([]*place, error) {
	all := make([]*place, len(messages))
	seen := map[string]bool{}
	asking, ctx := errgroup.WithContext(ctx)
	asking.SetLimit(maxLookups)
	for i := range messages {
		r := messages[i].record
		id := r.Event.Session.ID
		if messages[i].err != nil || seen[id] {
			continue
		}
		seen[id] = true
		repeated := v.claims.has(r)
		if v.states.get(id) != nil || r.Previous == 0 && !repeated {
			continue
		}
		asking.Go(func() (err error) {
			all[i], err = v.ask(ctx, r, repeated)
			return err
		})
	}
	return all, asking.Wait()
}

// ask asks the log for the place of an event, and for a rival if its claim may be repeated.
func (v *verification) ask(ctx context.Context, r *domain.Record, repeated bool) (*place, error) {
	p := &place{}
	if r.Previous > 0 {
		p.previous, p.err = v.event(ctx, r.Previous)
		if err := ignoreMissing(p.err); err != nil {
			return nil, err
		}
	}
	if !repeated {
		return p, nil
	}
	for from := r.Previous + 1; ; {
		m, err := v.log.FirstMessageFrom(ctx, r.Event.Session.ID, from)
		if err != nil {
			return nil, err
		}
		if m.Sequence >= r.Position {
			return p, nil
		}
		if other, err := envelope.Decode(m); err == nil && (r.Previous == 0 || other.Previous == r.Previous) {
			p.rival = m.Sequence
			return p, nil
		}
		from = m.Sequence + 1
	}
}

// event returns the event at a position.
func (v *verification) event(ctx context.Context, position uint64) (*domain.Record, error) {
	m, err := v.log.Message(ctx, position)
	if err != nil {
		return nil, err
	}
	return envelope.Decode(m)
}

// before returns the session before an event, nil if it is unknown, and the defect in the
// event's claim to follow it.
func (v *verification) before(ctx context.Context, r *domain.Record, known *lastState, at *place) (before *domain.Session, broken *domain.Defect, err error) {
	switch {
	case r.Previous == 0 && known.session != nil: // a second first event
		return known.session, nil, nil
	case r.Previous > 0 && r.Previous == known.position:
		return known.session, nil, nil
	case r.Previous > 0 && r.Previous == known.unreadable && known.between > 0: // reported already
		return nil, nil, nil
	}
	repeated := v.claims.has(r)
	if at == nil && (r.Previous > 0 || repeated) {
		if at, err = v.ask(ctx, r, repeated); err != nil {
			return nil, nil, err
		}
	}
	if r.Previous == 0 {
		return v.beforeFirst(ctx, r, at)
	}
	if p := at.previous; p != nil && p.Event.Session.ID == r.Event.Session.ID && p.Event.Session.Version+1 == r.Event.Session.Version {
		if at.rival > 0 {
			broken = previousDefect(domain.DefectFork, r, fmt.Sprintf("which the event at %d follows already", at.rival))
		}
		return &p.Event.Session, broken, nil // if known has another event, that was reported
	}
	return v.beforeMisled(ctx, r, known, at)
}

// beforeFirst is before for an event without a previous one, of an unknown session.
func (v *verification) beforeFirst(ctx context.Context, r *domain.Record, at *place) (*domain.Session, *domain.Defect, error) {
	if at == nil || at.rival == 0 {
		return &domain.Session{}, nil, nil
	}
	id := r.Event.Session.ID
	known, err := v.stateBefore(ctx, id, r.Position)
	if err != nil || known.session != nil {
		return known.session, nil, err
	}
	return nil, &domain.Defect{
		Kind: domain.DefectVersionRepeated, SessionID: id, Position: r.Position,
		Detail: fmt.Sprintf("the session was created at %d already", at.rival),
	}, nil
}

// beforeMisled is before for an event whose ce-previous does not lead to the event before it.
func (v *verification) beforeMisled(ctx context.Context, r *domain.Record, known *lastState, at *place) (*domain.Session, *domain.Defect, error) {
	id := r.Event.Session.ID
	known, err := v.lastReadable(ctx, r, known)
	if err != nil {
		return nil, nil, err
	}
	var unreadable *envelope.UnreadableError
	if errors.As(at.err, &unreadable) && unreadable.SessionID == id &&
		(known.position < r.Previous || known.session.Version >= r.Event.Session.Version) {
		return nil, nil, nil // reported when it was read
	}
	isOwn := at.previous != nil && at.previous.Event.Session.ID == id
	if isOwn && known.position == r.Previous {
		return known.session, nil, nil // the version is wrong
	}
	var target string
	switch {
	case isOwn:
		target = fmt.Sprintf("version %d of the session", at.previous.Event.Session.Version)
	case at.previous != nil:
		target = "an event of session " + at.previous.Event.Session.ID
	case unreadable != nil:
		target = "a message that is not an event"
	default:
		target = "where there is no message"
	}
	instead := "and the session has no event before"
	if known.session != nil {
		instead = fmt.Sprintf("and the session's event before is at %d", known.position)
	}
	broken := previousDefect(domain.DefectPrevious, r, target+", "+instead)
	if known.between > 0 {
		return nil, broken, nil
	}
	return known.session, broken, nil
}

func previousDefect(kind domain.DefectKind, r *domain.Record, detail string) *domain.Defect {
	return &domain.Defect{
		Kind: kind, SessionID: r.Event.Session.ID, Position: r.Position,
		Detail: fmt.Sprintf("%s leads to position %d, %s", envelope.HeaderPrevious, r.Previous, detail),
	}
}

// foldedAt returns what the event at a position folds to, nil if that is its own session.
func (v *verification) foldedAt(ctx context.Context, position uint64, known *lastState) (*domain.Session, error) {
	if position == known.position {
		return known.folded, nil
	}
	r, err := v.event(ctx, position)
	if err != nil || r.Previous == 0 {
		return nil, ignoreMissing(err)
	}
	before, err := v.event(ctx, r.Previous)
	if err != nil {
		return nil, ignoreMissing(err)
	}
	_, folded := domain.Check(&before.Event.Session, r)
	return folded, nil
}

// ignoreMissing returns nil for an error that says that there is no such event.
func ignoreMissing(err error) error {
	if errors.Is(err, eventstore.ErrNoMessage) || errors.Is(err, domain.ErrUnreadable) {
		return nil
	}
	return err
}

// lastReadable returns a session's known state before an event, read again if evicted.
func (v *verification) lastReadable(ctx context.Context, r *domain.Record, known *lastState) (*lastState, error) {
	if known.session != nil {
		return known, nil
	}
	return v.stateBefore(ctx, r.Event.Session.ID, r.Position)
}

// stateBefore returns the session after its newest readable event before a position.
func (v *verification) stateBefore(ctx context.Context, id string, position uint64) (*lastState, error) {
	s := &lastState{}
	for s.between < maxUnreadable && position > 1 {
		m, err := v.log.LastMessageBefore(ctx, id, position)
		if errors.Is(err, eventstore.ErrNoMessage) {
			break
		}
		if err != nil {
			return nil, err
		}
		if r, err := envelope.Decode(m); err == nil {
			s.position, s.session = r.Position, &r.Event.Session
			break
		}
		s.unreadable, s.between = max(s.unreadable, m.Sequence), s.between+1 // reported when it was read
		position = m.Sequence
	}
	return s, nil
}
