package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"chatsessions/domain"
	"chatsessions/eventstore"
	"chatsessions/eventstore/audit"
	"chatsessions/eventstore/envelope"
)

const (
	// replayBatch is how many events are read at once.
	replayBatch = 512
	// maxMerged is how many events of several sessions are held, to bring them into the
	// log's order. For more, the log itself is read.
	maxMerged = 10_000
	// maxMergedBytes is how much of their data is held.
	maxMergedBytes = 32 << 20
	noEnd          = math.MaxUint64
)

// An eventFilter says which events are replayed: those for which all of it holds.
type eventFilter struct {
	since, until time.Time          // of recording, both inclusive; zero is no bound
	types        []domain.EventType // empty: all
	account      string             // "": all
	sessions     []string           // empty: all
	after, upTo  uint64             // positions, the first exclusive
}

// keeps says whether an event is replayed. Of what cannot be read only position and
// session are known, and what may be meant is not left out.
func (f *eventFilter) keeps(r *domain.Entry) bool {
	if r.Record.Position <= f.after || r.Record.Position > f.upTo {
		return false
	}
	if len(f.sessions) > 0 && !slices.Contains(f.sessions, r.Record.Event.Session.ID) {
		return false
	}
	if r.Err != nil {
		return true
	}
	e := r.Record
	switch {
	case !f.since.IsZero() && e.Time.Before(f.since), !f.until.IsZero() && e.Time.After(f.until):
		return false
	case len(f.types) > 0 && !slices.Contains(f.types, e.Event.Type):
		return false
	}
	reader := domain.Caller{Account: f.account, Role: domain.RoleAccount}
	return f.account == "" || e.Request.Actor == f.account || reader.MaySee(&r.Record.Event.Session)
}

// A sink takes the events that are replayed.
type sink interface {
	// take gets the next events.
	take(batch []domain.Entry) error
	// pending is how many of them wait for settle, which takes too long to be done while
	// the log is read: the server would give up its reader.
	pending() int
	// settle deals with all that is pending, and tells how far it is.
	settle(ctx context.Context, reached func(position uint64)) error
}

// maxPending is how many events wait at most, but for a batch.
const maxPending = 10_000

// A replay reads the log through a filter.
type replay struct {
	log    *eventstore.Log
	filter eventFilter
	// searchSince and searchUntil say whether the positions for the times are searched.
	searchSince, searchUntil bool
	bar                      *progress // nil for none
	defects                  defects
}

// errFull ends a reading of the log: as much is pending as may be.
var errFull = errors.New("the sink is full")

// run gives what the filter keeps to the sink.
func (r *replay) run(ctx context.Context, to sink) error {
	end, err := r.log.End(ctx)
	if err != nil {
		return err
	}
	r.filter.upTo = min(r.filter.upTo, end)
	if len(r.filter.sessions) > 0 {
		if whole, err := r.readSessions(ctx, to); whole || err != nil {
			return err
		}
	}
	return r.readLog(ctx, to)
}

func (r *replay) readLog(ctx context.Context, to sink) error {
	f := &r.filter
	var since, until time.Time
	if r.searchSince {
		since = f.since
	}
	if r.searchUntil {
		until = f.until
	}
	first, last, err := audit.Between(ctx, r.log, since, until, min(f.after, f.upTo), f.upTo)
	if err != nil {
		return err
	}
	reached := func(position uint64) {
		if r.bar != nil {
			r.bar.show("reading the log", "events", position-first, last-first)
		}
	}
	for at := first; at < last; {
		err := r.log.Read(ctx, at, last, replayBatch, func(batch []domain.Entry) error {
			at = batch[len(batch)-1].Record.Position
			if err := r.give(batch, to); err != nil {
				return err
			}
			switch n := to.pending(); {
			case n == 0:
				reached(at)
			case n >= maxPending:
				return errFull
			}
			return nil
		})
		if err != nil && !errors.Is(err, errFull) {
			return err
		}
		if err := to.settle(ctx, reached); err != nil {
			return err
		}
		reached(at)
	}
	return nil
}

// give gives what the filter keeps of a batch to the sink.
func (r *replay) give(batch []domain.Entry, to sink) error {
	kept := batch[:0]
	for i := range batch {
		if r.filter.keeps(&batch[i]) {
			kept = append(kept, batch[i])
		}
	}
	if len(kept) == 0 {
		return nil
	}
	r.defects.count(kept)
	return to.take(kept)
}

// readSessions reads the histories of single sessions, which is quick in a log of any
// size, and says whether it did: the events of several sessions may be too many to bring
// them into order.
func (r *replay) readSessions(ctx context.Context, to sink) (whole bool, err error) {
	ids := r.filter.sessions
	var merged []domain.Entry
	held := 0
	var broken []error
	for _, id := range ids {
		err := r.log.Session(ctx, id, func(batch []domain.Entry) error {
			if len(ids) == 1 {
				return r.give(batch, to)
			}
			for i := range batch {
				if e := batch[i].Record; e != nil {
					held += len(e.Encoded) + len(e.Event.Changes)
				}
			}
			if merged = append(merged, batch...); len(merged) > maxMerged || held > maxMergedBytes {
				return errFull
			}
			return nil
		})
		var unreadable *envelope.UnreadableError
		switch {
		case errors.Is(err, errFull):
			return false, nil
		case errors.Is(err, domain.ErrNotFound):
			return false, noSuchSession(id)
		case errors.As(err, &unreadable):
			broken = append(broken, unreadable)
		case err != nil:
			return false, err
		}
	}
	slices.SortFunc(merged, func(a, b domain.Entry) int { return cmp.Compare(a.Record.Position, b.Record.Position) })
	if err := r.give(merged, to); err != nil {
		return false, err
	}
	for _, err := range broken {
		r.defects.tell(err)
	}
	return true, to.settle(ctx, func(uint64) {})
}

// A writerSink writes the events.
type writerSink struct {
	eventWriter
	last          uint64 // position of the newest that was written
	wrote, failed bool
}

func (w *writerSink) take(batch []domain.Entry) error {
	w.wrote = true
	if err := w.write(batch); err != nil {
		w.failed = true
		return err
	}
	w.last = batch[len(batch)-1].Record.Position
	return nil
}

func (*writerSink) pending() int                               { return 0 }
func (*writerSink) settle(context.Context, func(uint64)) error { return nil }

// parseTime reads a time as RFC 3339 or in epoch milliseconds; "" is the zero time.
func parseTime(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ms, err := strconv.ParseInt(text, 10, 64); err == nil && ms >= 0 && ms <= domain.MaxTime {
		return time.UnixMilli(ms), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, fmt.Errorf("%s %s: want a time as 2026-11-22T12:00:00Z (RFC 3339), or epoch milliseconds", flag, text)
	}
	return t, nil
}
