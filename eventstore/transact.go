package eventstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"chatsessions/domain"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// writePatience bounds a write where its context has no deadline.
const writePatience = 10 * time.Second

// Transact decides on the newest state of the request's session and appends what
// was decided, all events or none. Where another writer was quicker it decides
// again, until ctx ends (10 s without a deadline); so decide may be called
// several times, and the session it gets may be stale: then its answer is not
// used. decide gets the zero Session where there is none.
//
// It returns the session after the newest of the events and its position. When
// decide returns an error or no events, nothing is appended and Transact returns
// the session as the leader has it, and that error as it is.
//
// A request whose key was used before, with the same digest, is answered with
// what that write was answered; decide is not asked, or not heard. With another
// digest the answer is domain.ErrKeyReused.
//
// Errors of the log: domain.ErrUnavailable when nothing was written,
// domain.ErrHistoryTooLong when it cannot be told whether the key was used,
// domain.ErrOutcomeUnknown when it may have been, and UnreadableError. They wrap
// what happened.
func (l *Log) Transact(ctx context.Context, req domain.Request, decide func(domain.Session) ([]domain.Event, error)) (domain.Result, error) {
	ctx, cancel := withPatience(ctx, writePatience)
	defer cancel()
	connection := l.Connections()
	current, cached := l.cache.get(req.SessionID, connection)
	switch {
	case cached:
		l.counters.cacheHits.Add(1)
	case req.New:
		current = &domain.Record{} // if not, the log will say so
	default:
		l.counters.cacheMisses.Add(1)
		var err error
		if current, err = l.newest(ctx, req.SessionID, anyReplica); err != nil {
			return domain.Result{}, err
		}
	}
	keys := keySearch{log: l, key: req.Key}
	confirmed := false // current is the leader's newest
	pause := backoff{jitter: l.jitter}
	for {
		answer, err := keys.find(ctx, current)
		if err != nil {
			return domain.Result{}, err
		}
		var events []domain.Event
		if answer == nil {
			events, err = decide(current.Event.Session)
		}
		if answer != nil || err != nil || len(events) == 0 {
			// Nothing will be appended, so nothing but the leader can tell whether
			// this was decided on the newest state.
			if !confirmed {
				latest, failed := l.newest(ctx, req.SessionID, leader)
				if failed != nil {
					return domain.Result{}, failed
				}
				if latest.Position < current.Position {
					// A leader that was replaced, and does not know it yet.
					if failed := pause.wait(ctx); failed != nil {
						return domain.Result{}, unavailable("session "+req.SessionID, failed)
					}
					continue
				}
				confirmed = true
				if latest.Position > current.Position {
					current = latest
					continue
				}
			}
			if failed := l.Durable(ctx, current.Position); failed != nil {
				return domain.Result{}, unavailable("session "+req.SessionID, failed)
			}
			if current.Position > 0 {
				l.cache.put(current, connection)
			}
			if answer == nil {
				return domain.Result{Record: current}, err
			}
			if answer.Request.Digest != req.Digest {
				return domain.Result{}, domain.ErrKeyReused
			}
			before, err := keys.before(ctx, answer)
			l.counters.replays.Add(1)
			return domain.Result{Record: answer, Before: before}, err
		}
		w, err := l.newWrite(req, current, events)
		if err != nil {
			return domain.Result{}, err
		}
		w.connection = connection
		recorded, latest, err := w.run(ctx, &pause)
		if err != nil || latest == nil {
			return recorded, err
		}
		current, confirmed = latest, true
		l.counters.conflicts.Add(1)
	}
}

// A write is the attempts to append certain events after a certain one.
type write struct {
	log      *Log
	req      *domain.Request
	after    *domain.Record // the session's newest event, as far as we know
	events   []domain.Event
	msgs     []*nats.Msg      // as they are sent; their ids stay the same in all attempts
	records  []*domain.Record // what they say; positions come last
	lastID   string
	position uint64 // of the last event, once it is known to be in the log
	// connection is the one over which the session was read; see Log.Connections.
	connection uint64
	// loose says that an attempt may have been written, or may still be.
	loose bool
}

func (l *Log) newWrite(req domain.Request, after *domain.Record, events []domain.Event) (*write, error) {
	if !validID(req.SessionID) {
		return nil, fmt.Errorf("append: %q cannot be the id of a session", req.SessionID)
	}
	w := &write{log: l, req: &req, after: after, events: events}
	version := after.Event.Session.Version
	previous := after.Position
	for i := range events {
		version++
		if s := &events[i].Session; s.ID != req.SessionID || s.Version != version {
			return nil, fmt.Errorf("append: event %d is of session %q, version %d; expected session %q, version %d", i+1, s.ID, s.Version, req.SessionID, version)
		}
		id, err := uuid.NewV7()
		if err != nil {
			return nil, fmt.Errorf("append: %w", err)
		}
		w.lastID = id.String()
		m, encoded := encode(&req, &events[i], w.lastID, previous)
		w.msgs = append(w.msgs, m)
		w.records = append(w.records, &domain.Record{
			ID: w.lastID, Time: time.UnixMilli(events[i].Session.UpdatedAt).UTC(), Event: events[i], Request: req, Encoded: encoded,
		})
		previous = previousInBatch
	}
	first := w.msgs[0].Header
	first.Set(jetstream.ExpectedStreamHeader, StreamName)
	first.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(after.Position, 10))
	return w, nil
}

// run publishes until it is known what became of the events. They are in the
// log: it returns them recorded. Another writer was quicker, so they never will
// be: it returns the session's newest event. Otherwise it returns an error that
// says whether they may have been written.
func (w *write) run(ctx context.Context, pause *backoff) (domain.Result, *domain.Record, error) {
	e := w.log.options.Embedded
	if e == nil || len(w.msgs) == 1 {
		return w.attempt(ctx, pause)
	}
	intent, err := e.intend(w.after.Position, w.msgs)
	if err != nil {
		return domain.Result{}, nil, w.failed(err)
	}
	recorded, latest, err := w.attempt(ctx, pause)
	switch {
	case err == nil || !w.loose:
		intent.settled()
	case w.position > 0:
		intent.written(w.position)
	}
	return recorded, latest, err
}

func (w *write) attempt(ctx context.Context, pause *backoff) (domain.Result, *domain.Record, error) {
	for {
		sequence, outcome, err := w.log.publish(ctx, w.msgs)
		if outcome == acknowledged {
			recorded, err := w.recorded(ctx, sequence)
			return recorded, nil, err
		}
		// A message that was delivered twice is in conflict with itself.
		w.loose = w.loose || outcome == unknown || outcome == broken || outcome == conflict
		if outcome == refused || outcome == broken || pause.wait(ctx) != nil {
			return domain.Result{}, nil, w.failed(err)
		}
		if outcome != conflict {
			continue
		}
		recorded, latest, err := w.resolve(ctx)
		if err != nil || latest != w.after {
			return recorded, latest, err
		}
		// A write is only in flight; it may be ours.
	}
}

// resolve finds out what a conflict means: our events are there, by an attempt
// whose acknowledgement was lost; or others are, and ours never will be; or
// nothing is new, then it returns the Record that the write is after.
func (w *write) resolve(ctx context.Context) (domain.Result, *domain.Record, error) {
	id := w.events[0].Session.ID
	latest, err := w.log.newest(ctx, id, leader)
	if errors.Is(err, domain.ErrUnreadable) {
		return w.resolveBeneath(ctx, err)
	}
	if err != nil {
		return domain.Result{}, nil, w.failed(err)
	}
	if latest.Position <= w.after.Position {
		return domain.Result{}, w.after, nil
	}
	r := latest
	for n := 1; r.Position > w.after.Position && r.ID != w.lastID && r.Previous != 0; n++ {
		if n <= maxKeySearch {
			r, err = w.log.at(ctx, r.Previous)
		}
		if n > maxKeySearch || errors.Is(err, domain.ErrUnreadable) { // the way back is too long, or blocked
			// Ours would be the first event behind the one that it is after.
			r, err = w.firstAfter(ctx)
			if errors.Is(err, domain.ErrUnreadable) {
				return domain.Result{}, latest, nil
			}
			if err == nil {
				break
			}
		}
		if err != nil {
			return domain.Result{}, nil, w.failed(err)
		}
	}
	if r.ID == w.lastID {
		recorded, err := w.recorded(ctx, r.Position)
		return recorded, nil, err
	}
	return domain.Result{}, latest, nil
}

// resolveBeneath is resolve where the session's newest message is no event: our events
// may lie beneath it, and if not, they never will be there.
func (w *write) resolveBeneath(ctx context.Context, foreign error) (domain.Result, *domain.Record, error) {
	first, err := w.firstAfter(ctx)
	switch {
	case err == nil && first.ID == w.lastID:
		recorded, err := w.recorded(ctx, first.Position)
		return recorded, nil, err
	case err == nil, errors.Is(err, domain.ErrUnreadable):
		w.loose = false
		return domain.Result{}, nil, fmt.Errorf("append to session %s: %w", w.events[0].Session.ID, foreign)
	}
	return domain.Result{}, nil, w.failed(err)
}

// firstAfter returns the event of the session that stands where the write's last
// would, were it in the log.
func (w *write) firstAfter(ctx context.Context) (*domain.Record, error) {
	first, err := w.log.firstFrom(ctx, w.events[0].Session.ID, w.after.Position+1)
	if err != nil || len(w.msgs) == 1 {
		return first, err
	}
	return w.log.at(ctx, first.Position+uint64(len(w.msgs))-1) // they are adjacent
}

// recorded passes the barrier for events that are in the log, the last of them at
// a sequence.
func (w *write) recorded(ctx context.Context, sequence uint64) (domain.Result, error) {
	w.position = sequence
	entries := make([]domain.Entry, len(w.records))
	newest := w.after
	for i, r := range w.records { // the events of a write are adjacent
		r.Position = sequence - uint64(len(w.records)-1-i)
		r.Previous = newest.Position
		entries[i] = domain.Entry{Record: r, Before: &newest.Event.Session}
		newest = r
	}
	if w.log.tail != nil {
		w.log.tail.put(entries)
	}
	if err := w.log.Durable(ctx, sequence); err != nil {
		w.loose = true
		return domain.Result{}, w.failed(err)
	}
	w.log.cache.put(newest, w.connection)
	w.log.counters.writes.Add(1)
	w.log.counters.events.Add(uint64(len(w.events)))
	return domain.Result{Record: newest, Before: &w.after.Event.Session}, nil
}

// failed says whether the events may have been written.
func (w *write) failed(err error) error {
	doing := "append to session " + w.events[0].Session.ID
	switch {
	case w.loose:
		// A read that failed underway must not claim that nothing was written.
		if errors.Is(err, domain.ErrUnavailable) {
			return fmt.Errorf("%s: %w: %s", doing, domain.ErrOutcomeUnknown, err.Error())
		}
		return fmt.Errorf("%s: %w: %w", doing, domain.ErrOutcomeUnknown, err)
	case errors.Is(err, domain.ErrUnavailable):
		return fmt.Errorf("%s: %w", doing, err)
	default:
		return unavailable(doing, err)
	}
}
