package eventstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"chatsessions/domain"
	"chatsessions/eventstore/envelope"
)

const (
	// A session of up to maxWalk events is read event by event, at 0.1 ms each. A consumer,
	// for which the server looks through all messages in between, is for longer sessions, and
	// for more than fewEvents that are one in closeBy messages (docs/performance.md).
	maxWalk   = 10_000
	fewEvents = 16
	closeBy   = 20
	// maxWalkBytes bounds the data of the events that are read event by event.
	maxWalkBytes = 32 << 20
	// sessionBatch is how many events of a long history are handed over at once.
	sessionBatch = 512
	// walkPatience bounds reading event by event if the context has no deadline.
	walkPatience = time.Minute
)

// Session gives the events of a session to handle in their order, up to the one that is the
// newest when it begins. Every message on the session's subject is handed over; one that is
// not an event comes with an UnreadableError. Session holds 10,000 events and 32 MiB at most.
//
// It returns domain.ErrNotFound, domain.ErrUnavailable, and handle's error, wrapped; at the
// end, an UnreadableError for the first event that does not follow the one before it.
func (l *Log) Session(ctx context.Context, id string, handle func([]domain.Entry) error) error {
	reading, cancel := withPatience(ctx, readPatience)
	defer cancel()
	newest, err := l.newest(reading, id, leader)
	end := uint64(0)
	var unreadable *envelope.UnreadableError
	switch {
	case errors.As(err, &unreadable):
		end = unreadable.Position
	case err != nil:
		return err
	case newest.Position == 0:
		return domain.ErrNotFound
	default:
		end = newest.Position
	}
	if err := l.Durable(reading, end); err != nil {
		return unavailable("session "+id, err)
	}
	if unreadable == nil && newest.Event.Session.Version <= maxWalk {
		whole, err := l.walkBack(ctx, newest)
		if err != nil {
			return err
		}
		if whole != nil {
			return handle(whole)
		}
	}
	chain := chain{}
	err = l.read(ctx, envelope.Subject(id), 0, end, sessionBatch, func(batch []domain.Entry) error {
		for i := range batch {
			chain.add(&batch[i])
		}
		return handle(batch)
	})
	if err != nil {
		return err
	}
	if chain.broken != nil {
		return chain.broken
	}
	return nil
}

// walkBack returns the events of a session along ce-previous, the oldest first; nil if that
// way misses a message, if the events are too many, or if a consumer is quicker.
func (l *Log) walkBack(ctx context.Context, newest *domain.Record) ([]domain.Entry, error) {
	ctx, cancel := withPatience(ctx, walkPatience)
	defer cancel()
	id, version := newest.Event.Session.ID, newest.Event.Session.Version
	messages, err := l.messagesOf(ctx, id)
	if err != nil || messages != version {
		return nil, err
	}
	if version > fewEvents {
		first, err := l.FirstMessageFrom(ctx, id, 1)
		if err != nil {
			return nil, err
		}
		if newest.Position-first.Sequence < closeBy*version {
			return nil, nil
		}
	}
	events := make([]domain.Entry, 0, version)
	bytes := 0
	for r, err := range l.walk(ctx, newest) {
		if errors.Is(err, domain.ErrUnreadable) || errors.Is(err, ErrNoMessage) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if bytes += len(r.Encoded) + len(r.Event.Changes); bytes > l.maxWalkBytes {
			return nil, nil
		}
		events = append(events, domain.Entry{Record: r})
	}
	slices.Reverse(events)
	return events, nil
}

// A chain checks that each message on a session's subject follows the one before it.
type chain struct {
	position uint64 // of the message before
	session  *domain.Session
	broken   *envelope.UnreadableError // the first that does not follow
}

func (c *chain) add(r *domain.Entry) {
	var err error
	switch {
	case r.Err != nil:
	case r.Record.Previous != c.position:
		err = fmt.Errorf("%s leads to event %d, and the event before is %d", envelope.HeaderPrevious, r.Record.Previous, c.position)
	case c.session != nil && r.Record.Event.Session.Version != c.session.Version+1:
		err = fmt.Errorf("version %d comes after version %d", r.Record.Event.Session.Version, c.session.Version)
	}
	if err != nil && c.broken == nil {
		c.broken = &envelope.UnreadableError{Position: r.Record.Position, SessionID: r.Record.Event.Session.ID, Err: err}
	}
	c.position, c.session = r.Record.Position, nil
	if r.Err == nil {
		c.session = &r.Record.Event.Session
	}
}
