package eventstore

import (
	"context"
	"errors"
	"fmt"

	"chatsessions/domain"
	"chatsessions/eventstore/envelope"

	"github.com/nats-io/nats.go"
)

// Load returns a session's newest event as the leader has it. It returns domain.ErrNotFound
// for a session without events, domain.ErrUnavailable, and an UnreadableError.
func (l *Log) Load(ctx context.Context, id string) (*domain.Record, error) {
	ctx, cancel := withPatience(ctx, readPatience)
	defer cancel()
	newest, err := l.newest(ctx, id, leader)
	if err != nil {
		return nil, err
	}
	if newest.Position == 0 {
		return nil, domain.ErrNotFound
	}
	if err := l.Durable(ctx, newest.Position); err != nil {
		return nil, unavailable("load", err)
	}
	return newest, nil
}

// Event returns domain.ErrUnreadable, and domain.ErrUnavailable also when there is no message.
func (l *Log) Event(ctx context.Context, position uint64) (*domain.Record, error) {
	ctx, cancel := withPatience(ctx, readPatience)
	defer cancel()
	return l.at(ctx, position)
}

// EventID returns the id of the event at a position, as the leader has it; "" if there is no
// readable event. It returns domain.ErrUnavailable.
func (l *Log) EventID(ctx context.Context, position uint64) (string, error) {
	ctx, cancel := withPatience(ctx, readPatience)
	defer cancel()
	m, err := l.get(ctx, leader, apiRequest{Sequence: position})
	if errors.Is(err, ErrNoMessage) {
		return "", nil
	}
	if err != nil {
		return "", unavailable(fmt.Sprintf("event %d", position), err)
	}
	return envelope.Entry(m).Record.ID, nil
}

// newest returns the newest event of a session, the zero Record for a session without
// events. The event may not be durable yet.
func (l *Log) newest(ctx context.Context, id string, from source) (*domain.Record, error) {
	if !validID(id) {
		return &domain.Record{}, nil
	}
	m, err := l.get(ctx, from, apiRequest{LastFor: envelope.Subject(id)})
	if errors.Is(err, ErrNoMessage) {
		return &domain.Record{}, nil
	}
	if err != nil {
		return nil, unavailable("newest event of session "+id, err)
	}
	return envelope.Decode(m)
}

// firstFrom returns a session's first event at or after a position, which has to exist. The
// server walks the log to it.
func (l *Log) firstFrom(ctx context.Context, id string, position uint64) (*domain.Record, error) {
	m, err := l.FirstMessageFrom(ctx, id, position)
	if err != nil {
		return nil, err
	}
	return envelope.Decode(m)
}

// at returns the event at a position.
func (l *Log) at(ctx context.Context, position uint64) (*domain.Record, error) {
	m, err := l.Message(ctx, position)
	if err != nil {
		return nil, err
	}
	return envelope.Decode(m)
}

// The reads of raw messages below are for checking and copying the log, perhaps not durable
// yet. They retry until ctx ends, and return ErrNoMessage and domain.ErrUnavailable.

// Message returns the message at a position, asking the leader if a replica lacks it.
func (l *Log) Message(ctx context.Context, position uint64) (*envelope.Message, error) {
	request := apiRequest{Sequence: position}
	m, err := l.get(ctx, anyReplica, request)
	if errors.Is(err, ErrNoMessage) {
		m, err = l.get(ctx, leader, request)
	}
	if err != nil {
		return nil, unavailable(fmt.Sprintf("event %d", position), err)
	}
	return m, nil
}

// NewestMessage returns the last message of the log.
func (l *Log) NewestMessage(ctx context.Context) (*envelope.Message, error) {
	m, err := l.get(ctx, leader, apiRequest{LastFor: allSubjects})
	if err != nil {
		return nil, unavailable("newest event", err)
	}
	return m, nil
}

// FirstMessageFrom returns a session's first message at or after a position.
func (l *Log) FirstMessageFrom(ctx context.Context, id string, position uint64) (*envelope.Message, error) {
	m, err := l.get(ctx, leader, apiRequest{Sequence: position, NextFor: envelope.Subject(id)})
	if err != nil {
		return nil, unavailable(fmt.Sprintf("event of session %s from position %d", id, position), err)
	}
	return m, nil
}

// LastMessageBefore returns a session's last message before a position, of any replica.
func (l *Log) LastMessageBefore(ctx context.Context, id string, position uint64) (*envelope.Message, error) {
	m, err := l.get(ctx, anyReplica, apiRequest{LastForEach: []string{envelope.Subject(id)}, UpTo: position - 1})
	if err != nil {
		return nil, unavailable(fmt.Sprintf("session %s before position %d", id, position), err)
	}
	return m, nil
}

// Conn returns the connection over which the log was opened.
func (l *Log) Conn() *nats.Conn { return l.nc }
