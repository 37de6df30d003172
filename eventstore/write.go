package eventstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"syscall"
	"time"

	"chatsessions/domain"
	"chatsessions/eventstore/envelope"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A write is the attempts to append certain events after a certain event.
type write struct {
	log     *Log
	req     *domain.Request
	after   *domain.Record // the session's newest event, as far as known
	events  []domain.Event
	msgs    []*nats.Msg      // keep their ids in all attempts
	records []*domain.Record // of the events; their positions are set by finish
	lastID  string
	// position of the last event, once it is known to be in the log.
	position   uint64
	connection uint64 // over which the session was read; see Log.Connections
	era        *era   // in which it was read
	// mayBeWritten says that an attempt may have been written, or may still be.
	mayBeWritten bool
}

func (l *Log) newWrite(req domain.Request, after *domain.Record, events []domain.Event, connection uint64) (*write, error) {
	if !validID(req.SessionID) {
		return nil, fmt.Errorf("append: %q cannot be the id of a session", req.SessionID)
	}
	w := &write{log: l, req: &req, after: after, events: events, connection: connection}
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
		m, encoded := envelope.Encode(&req, &events[i], w.lastID, previous)
		w.msgs = append(w.msgs, m)
		w.records = append(w.records, &domain.Record{
			ID: w.lastID, Time: time.UnixMilli(events[i].Session.UpdatedAt).UTC(), Event: events[i], Request: req, Encoded: encoded,
		})
		previous = envelope.PreviousInWrite
	}
	expect(w.msgs[0], after.Position)
	return w, nil
}

// expect has the server refuse a message unless its subject's newest sequence is this one.
func expect(m *nats.Msg, sequence uint64) {
	m.Header.Set(jetstream.ExpectedStreamHeader, StreamName)
	m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(sequence, 10))
}

// append publishes until the outcome is known. It returns the result, or the session's newest
// event if another writer was first, or an error that says whether the events may have been
// written.
func (w *write) append(ctx context.Context, pause *backoff) (result domain.Result, overtaking *domain.Record, err error) {
	d := w.log.options.Durability
	if d == nil || len(w.msgs) == 1 {
		return w.attempt(ctx, pause)
	}
	done, err := d.Intend(w.after.Position, w.msgs)
	if err != nil {
		if d.Err() != nil || errors.Is(err, syscall.ENOSPC) {
			err = fmt.Errorf("%w: %w", domain.ErrNotWritable, err)
		}
		return domain.Result{}, nil, w.failed(err)
	}
	result, overtaking, err = w.attempt(ctx, pause)
	if err == nil || !w.mayBeWritten || w.position > 0 {
		done(w.position)
	}
	return result, overtaking, err
}

// attempt is append without the intent.
func (w *write) attempt(ctx context.Context, pause *backoff) (domain.Result, *domain.Record, error) {
	for {
		if w.era != w.log.era.Load() { // the session's newest event is of another log
			return domain.Result{}, nil, w.failed(ErrReplaced)
		}
		end := w.era.newest.Load().Position
		sequence, outcome, err := w.log.publish(ctx, w.msgs)
		if outcome == acknowledged && sequence <= end {
			// The expected sequence matched by chance, in another log.
			w.log.raiseAlarm()
			outcome, err = broken, fmt.Errorf("%w: it has taken the write at position %d, and %d has been seen", ErrReplaced, sequence, end)
		}
		if outcome == acknowledged {
			result, err := w.finish(ctx, sequence)
			return result, nil, err
		}
		// A message that was delivered twice is in conflict with itself.
		w.mayBeWritten = w.mayBeWritten || outcome == unknown || outcome == broken || outcome == conflict
		if outcome == refused && !errors.Is(err, nats.ErrConnectionClosed) { // a new start reconnects
			err = fmt.Errorf("%w: %w", domain.ErrNotWritable, err)
		}
		if outcome == refused || outcome == broken || pause.wait(ctx) != nil {
			return domain.Result{}, nil, w.failed(err)
		}
		if outcome != conflict {
			continue
		}
		result, newest, err := w.resolveConflict(ctx)
		if err != nil || newest != w.after {
			return result, newest, err
		}
		// A write to the session is still in flight; it may be ours.
	}
}

// resolveConflict finds out what a conflict means. If our events are in the log, by an
// attempt whose acknowledgement was lost, it returns the result; if others are there, the
// newest of them; if nothing is new, w.after.
func (w *write) resolveConflict(ctx context.Context) (domain.Result, *domain.Record, error) {
	newest, err := w.log.newest(ctx, w.req.SessionID, leader)
	if errors.Is(err, domain.ErrUnreadable) {
		return w.resolveUnreadable(ctx, err)
	}
	if err != nil {
		return domain.Result{}, nil, w.failed(err)
	}
	if newest.Position <= w.after.Position {
		return domain.Result{}, w.after, nil
	}
	r := newest
	for n := 1; r.Position > w.after.Position && r.ID != w.lastID && r.Previous != 0; n++ {
		if n <= maxKeySearch {
			r, err = w.log.at(ctx, r.Previous)
		}
		if n > maxKeySearch || errors.Is(err, domain.ErrUnreadable) { // the way back is too long, or blocked
			// Ours would be the first event after w.after.
			r, err = w.firstAfter(ctx)
			if errors.Is(err, domain.ErrUnreadable) {
				return domain.Result{}, newest, nil
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
		result, err := w.finish(ctx, r.Position)
		return result, nil, err
	}
	return domain.Result{}, newest, nil
}

// resolveUnreadable is resolveConflict for a session whose newest message is not an event.
func (w *write) resolveUnreadable(ctx context.Context, cause error) (domain.Result, *domain.Record, error) {
	first, err := w.firstAfter(ctx)
	switch {
	case err == nil && first.ID == w.lastID:
		result, err := w.finish(ctx, first.Position)
		return result, nil, err
	case err == nil, errors.Is(err, domain.ErrUnreadable):
		w.mayBeWritten = false
		return domain.Result{}, nil, fmt.Errorf("append to session %s: %w", w.req.SessionID, cause)
	}
	return domain.Result{}, nil, w.failed(err)
}

// firstAfter returns the session's event at the place where the write's last event would be.
func (w *write) firstAfter(ctx context.Context) (*domain.Record, error) {
	first, err := w.log.firstFrom(ctx, w.req.SessionID, w.after.Position+1)
	if err != nil || len(w.msgs) == 1 {
		return first, err
	}
	return w.log.at(ctx, first.Position+uint64(len(w.msgs))-1) // they are adjacent
}

// finish returns the result of events that are in the log, the last of them at a sequence,
// when they are durable.
func (w *write) finish(ctx context.Context, sequence uint64) (domain.Result, error) {
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
		w.mayBeWritten = true
		return domain.Result{}, w.failed(err)
	}
	w.log.cache.put(newest, w.connection)
	w.era.saw(newest)
	w.log.counters.writes.Add(1)
	w.log.counters.events.Add(uint64(len(w.events)))
	return domain.Result{Record: newest, Before: &w.after.Event.Session}, nil
}

// failed returns an error that says whether the events may have been written.
func (w *write) failed(err error) error {
	doing := "append to session " + w.req.SessionID
	switch {
	case w.mayBeWritten:
		// A read that failed in between must not claim that nothing was written.
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
