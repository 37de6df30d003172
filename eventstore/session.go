package eventstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"chatsessions/domain"
)

const (
	// maxWalk is how many events of a session are read one by one, wherever in the log
	// they are: 0.1 ms each. A consumer has the server look through what lies between
	// them, which holds appends up where that is much. It is for more, and for more than
	// fewEvents where one of closeBy messages, on average, is of the session (figures in
	// docs/performance.md).
	maxWalk   = 10_000
	fewEvents = 16
	closeBy   = 20
	// sessionBatch is how many events of a long history are handed over at once.
	sessionBatch = 512
	// walkPatience bounds the reading of so many where its context has no deadline.
	walkPatience = time.Minute
)

// maxWalkBytes is how much of the data of those events is held. A variable because of
// tests.
var maxWalkBytes = 32 << 20

// Session gives the events of a session to handle in their order, up to the one that is
// the newest when it begins, in one batch or several. Every message on the session's
// subject is handed over: one that is not an event as such, with an UnreadableError.
// It takes memory for 10,000 events at most, and for 32 MiB of their data.
//
// It returns domain.ErrNotFound for a session without events, domain.ErrUnavailable,
// handle's error, wrapped, and, when all was handed over, an UnreadableError for
// the first event that does not follow the one before it.
func (l *Log) Session(ctx context.Context, id string, handle func([]domain.Entry) error) error {
	reading, cancel := withPatience(ctx, readPatience)
	defer cancel()
	newest, err := l.newest(reading, id, leader)
	end := uint64(0)
	var unreadable *UnreadableError
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
	err = l.read(ctx, subjectOf(id), 0, end, sessionBatch, func(batch []domain.Entry) error {
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

// walkBack returns the events of a session along ce-previous, the oldest first; nil where
// that way does not lead past every message on the session's subject, where they are
// more than fits, and where a consumer is quicker.
func (l *Log) walkBack(ctx context.Context, newest *domain.Record) ([]domain.Entry, error) {
	ctx, cancel := withPatience(ctx, walkPatience)
	defer cancel()
	id, version := newest.Event.Session.ID, newest.Event.Session.Version
	messages, err := l.messagesOf(ctx, id)
	if err != nil || messages != version {
		return nil, err
	}
	if version > fewEvents {
		first, err := l.get(ctx, leader, `{"seq":1,"next_by_subj":"`+subjectOf(id)+`"}`)
		if err != nil {
			return nil, unavailable("first event of session "+id, err)
		}
		if newest.Position-first.sequence < closeBy*version {
			return nil, nil
		}
	}
	events := make([]domain.Entry, 0, version)
	held := 0
	for r, err := range l.walk(ctx, newest) {
		if errors.Is(err, domain.ErrUnreadable) || errors.Is(err, errNoMessage) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if held += len(r.Encoded) + len(r.Event.Changes); held > maxWalkBytes {
			return nil, nil
		}
		events = append(events, domain.Entry{Record: r})
	}
	slices.Reverse(events)
	return events, nil
}

// messagesOf counts the messages on a session's subject.
func (l *Log) messagesOf(ctx context.Context, id string) (uint64, error) {
	var info struct {
		State struct {
			Subjects map[string]uint64 `json:"subjects"`
		} `json:"state"`
	}
	request, err := json.Marshal(map[string]string{"subjects_filter": subjectOf(id)})
	if err != nil {
		return 0, err
	}
	err = l.ask(ctx, "$JS.API.STREAM.INFO."+StreamName, request, func(m *nats.Msg) error { return parseAPI(m.Data, &info) })
	if err != nil {
		return 0, unavailable("events of session "+id, err)
	}
	return info.State.Subjects[subjectOf(id)], nil
}

// A chain checks that the messages on a session's subject are its events one after the
// other.
type chain struct {
	position uint64 // of the message before
	session  *domain.Session
	broken   *UnreadableError // the first that does not follow
}

func (c *chain) add(r *domain.Entry) {
	var err error
	switch {
	case r.Err != nil:
	case r.Record.Previous != c.position:
		err = fmt.Errorf("%s leads to event %d, and the event before is %d", headerPrevious, r.Record.Previous, c.position)
	case c.session != nil && r.Record.Event.Session.Version != c.session.Version+1:
		err = fmt.Errorf("version %d comes after version %d", r.Record.Event.Session.Version, c.session.Version)
	}
	if err != nil && c.broken == nil {
		c.broken = &UnreadableError{Position: r.Record.Position, SessionID: r.Record.Event.Session.ID, Err: err}
	}
	c.position, c.session = r.Record.Position, nil
	if r.Err == nil {
		c.session = &r.Record.Event.Session
	}
}
