package eventstore

import (
	"context"
	"fmt"
	"iter"

	"chatsessions/domain"
)

// maxKeySearch is how many events of a session are searched for a request key.
const maxKeySearch = 1000

// History returns the events of a session, the newest first. It reads one event
// for each that is consumed, from ctx's time, which has to be bounded by the
// caller. An error ends it: domain.ErrNotFound for a session without events,
// domain.ErrUnavailable, or an UnreadableError.
func (l *Log) History(ctx context.Context, id string) iter.Seq2[domain.Record, error] {
	return func(yield func(domain.Record, error) bool) {
		newest, err := l.newest(ctx, id, leader)
		if err == nil && newest.Position == 0 {
			err = domain.ErrNotFound
		}
		if err == nil {
			// The older ones were acknowledged before this one.
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
	return &UnreadableError{
		Position: r.Position, SessionID: s.ID,
		Err: fmt.Errorf("%s leads to event %d, version %d of session %s", headerPrevious, before.Position, b.Version, b.ID),
	}
}

// A keySearch looks for a request key in a session's history. It remembers how
// far it has looked, because a write that is decided again has to look again.
type keySearch struct {
	log      *Log
	key      string
	searched uint64 // up to this position the key is not there
	events   int    // how many were looked at
}

// find returns the last event of the write that carries the key, nil if there is
// none up to newest. All events of a write carry it, so the first one on the way
// back is the one that holds the answer.
func (s *keySearch) find(ctx context.Context, newest *domain.Record) (*domain.Record, error) {
	if s.key == "" || newest.Position <= s.searched {
		return nil, nil
	}
	for r, err := range s.log.walk(ctx, newest) {
		if err != nil {
			return nil, err
		}
		if r.Position <= s.searched {
			break
		}
		if s.events++; s.events > maxKeySearch {
			return s.findFirst(ctx, newest.Event.Session.ID)
		}
		if r.Request.Key == s.key {
			return r, nil
		}
	}
	s.searched = newest.Position
	return nil, nil
}

// findFirst looks for the key in the first write of a long history, the one that
// created the session: its key gave the session its id, so it is found for as long
// as the log is kept. What lies between cannot be looked through in time.
func (s *keySearch) findFirst(ctx context.Context, id string) (*domain.Record, error) {
	answer, err := s.log.firstFrom(ctx, id, 1)
	if err != nil {
		return nil, err
	}
	if answer.Request.Key != s.key {
		return nil, fmt.Errorf("session %s: %w (%d)", id, domain.ErrHistoryTooLong, maxKeySearch)
	}
	for { // the events of a write are adjacent
		next, err := s.log.at(ctx, answer.Position+1)
		if err != nil {
			return nil, err
		}
		if next.Request.SessionID != id || next.Request.Key != s.key {
			return answer, nil
		}
		answer = next
	}
}

// before returns the session that the write which ends with an event was decided
// on: the zero Session for one that created it.
func (s *keySearch) before(ctx context.Context, answer *domain.Record) (*domain.Session, error) {
	for r, err := range s.log.walk(ctx, answer) {
		if err != nil {
			return nil, err
		}
		if r.Request.Key != s.key {
			return &r.Event.Session, nil
		}
	}
	return &domain.Session{}, nil
}
