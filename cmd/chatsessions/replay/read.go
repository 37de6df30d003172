package replay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"chatsessions/domain"
	"chatsessions/eventstore"
	"chatsessions/eventstore/audit"
	"chatsessions/eventstore/envelope"
)

const (
	// readBatch is how many events are read at once.
	readBatch = 512
	// maxMerged and maxMergedBytes bound what is sorted of several sessions; beyond, the log is read.
	maxMerged      = 10_000
	maxMergedBytes = 32 << 20
	// maxPending bounds the events, beside a batch, that wait for Output.Flush.
	maxPending = 10_000
)

// An Output receives the events that are replayed.
type Output interface {
	// Add takes the next events. It may keep them, and not the slice.
	Add(batch []domain.Entry) error
	// Pending returns how many events wait for Flush. Flush takes too long to be called
	// while the log is read: the server would give up its reader.
	Pending() int
	// Flush completes what is pending, and reports the positions that it has reached.
	Flush(ctx context.Context, reached func(position uint64)) error
}

// A Replay reads the log through a filter.
type Replay struct {
	Log    *eventstore.Log
	Filter Filter
	// SearchSince and SearchUntil search the log for the positions of the filter's times.
	SearchSince, SearchUntil bool
	Progress                 func(done, total uint64) // nil: none
	Defects                  Defects
}

// errFull ends a reading of the log: maxPending is reached.
var errFull = errors.New("the output is full")

// Run gives the output the events that the filter keeps.
func (r *Replay) Run(ctx context.Context, to Output) error {
	end, err := r.Log.End(ctx)
	if err != nil {
		return err
	}
	r.Filter.UpTo = min(r.Filter.UpTo, end)
	if len(r.Filter.Sessions) > 0 {
		if complete, err := r.readSessions(ctx, to); complete || err != nil {
			return err
		}
	}
	return r.readLog(ctx, to)
}

func (r *Replay) readLog(ctx context.Context, to Output) error {
	f := &r.Filter
	var since, until time.Time
	if r.SearchSince {
		since = f.Since
	}
	if r.SearchUntil {
		until = f.Until
	}
	first, last, err := audit.Between(ctx, r.Log, since, until, min(f.After, f.UpTo), f.UpTo)
	if err != nil {
		return err
	}
	reached := func(position uint64) {
		if r.Progress != nil {
			r.Progress(position-first, last-first)
		}
	}
	for at := first; at < last; {
		err := r.Log.Read(ctx, at, last, readBatch, func(batch []domain.Entry) error {
			at = batch[len(batch)-1].Record.Position
			if err := r.add(batch, to); err != nil {
				return err
			}
			switch n := to.Pending(); {
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
		if err := to.Flush(ctx, reached); err != nil {
			return err
		}
		reached(at)
	}
	return nil
}

// add gives the output what the filter keeps of a batch.
func (r *Replay) add(batch []domain.Entry, to Output) error {
	kept := batch[:0]
	for i := range batch {
		if r.Filter.keeps(&batch[i]) {
			kept = append(kept, batch[i])
		}
	}
	if len(kept) == 0 {
		return nil
	}
	r.Defects.Count(kept)
	return to.Add(kept)
}

// readSessions reads the histories of single sessions, which is quick in any log. It returns
// false, and has given the output nothing, if there are too many events to sort.
func (r *Replay) readSessions(ctx context.Context, to Output) (complete bool, err error) {
	ids := r.Filter.Sessions
	var merged []domain.Entry
	bytes := 0
	var unreadable []error
	for _, id := range ids {
		err := r.Log.Session(ctx, id, func(batch []domain.Entry) error {
			if len(ids) == 1 {
				return r.add(batch, to)
			}
			for i := range batch {
				bytes += len(batch[i].Record.Encoded) + len(batch[i].Record.Event.Changes)
			}
			if merged = append(merged, batch...); len(merged) > maxMerged || bytes > maxMergedBytes {
				return errFull
			}
			return nil
		})
		switch {
		case errors.Is(err, errFull):
			return false, nil
		case errors.Is(err, domain.ErrNotFound):
			return false, NoSuchSession(id)
		case errors.As(err, new(*envelope.UnreadableError)):
			unreadable = append(unreadable, err)
		case err != nil:
			return false, err
		}
	}
	slices.SortFunc(merged, func(a, b domain.Entry) int { return cmp.Compare(a.Record.Position, b.Record.Position) })
	if err := r.add(merged, to); err != nil {
		return false, err
	}
	for _, err := range unreadable {
		_ = r.Defects.Take(err)
	}
	return true, to.Flush(ctx, func(uint64) {})
}

// NoSuchSession is the error for a session that the log does not have.
func NoSuchSession(id string) error { return fmt.Errorf("there is no session %s in this log", id) }
