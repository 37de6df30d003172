package eventstore

import (
	"context"
	"fmt"
	"iter"

	"chatsessions/domain"
	"chatsessions/eventstore/envelope"
)

// History returns the events of a session, the newest first. It reads one event for each
// that is consumed, so the caller has to bound ctx. An error ends it: domain.ErrNotFound for
// a session without events, domain.ErrUnavailable, or an UnreadableError.
func (l *Log) History(ctx context.Context, id string) iter.Seq2[domain.Record, error] {
	return func(yield func(domain.Record, error) bool) {
		newest, err := l.newest(ctx, id, leader)
		if err == nil && newest.Position == 0 {
			err = domain.ErrNotFound
		}
		if err == nil {
			// The older events were written before this one.
			if err = l.Durable(ctx, newest.Position); err != nil {
				err = unavailable("history", err)
			}
		}
		if err != nil {
			yield(domain.Record{}, err)
			return
		}
		for r, err := range l.walk(ctx, newest) {
			if err != nil {
				yield(domain.Record{}, err)
				return
			}
			if !yield(*r, nil) {
				return
			}
		}
	}
}

// walk returns an event of a session and those before it, along ce-previous.
func (l *Log) walk(ctx context.Context, from *domain.Record) iter.Seq2[*domain.Record, error] {
	return func(yield func(*domain.Record, error) bool) {
		for r := from; ; {
			if !yield(r, nil) || r.Previous == 0 {
				return
			}
			before, err := l.at(ctx, r.Previous)
			if err == nil {
				err = follows(before, r)
			}
			if err != nil {
				yield(nil, err)
				return
			}
			r = before
		}
	}
}

// follows checks that an event's ce-previous leads to the event before it.
func follows(before, r *domain.Record) error {
	b, s := &before.Event.Session, &r.Event.Session
	if b.ID == s.ID && b.Version+1 == s.Version {
		return nil
	}
	return &envelope.UnreadableError{
		Position: r.Position, SessionID: s.ID,
		Err: fmt.Errorf("%s leads to event %d, version %d of session %s", envelope.HeaderPrevious, before.Position, b.Version, b.ID),
	}
}
