package audit

import (
	"context"
	"errors"
	"time"

	"chatsessions/domain"
	"chatsessions/eventstore"
)

// ClockMargin is how far the clocks of the log's writers may be apart for Between to find
// all events. The log is in the order of writing; its times come from those clocks.
const ClockMargin = 10 * time.Minute

// Between narrows the events after a position up to another one to those recorded between two
// times; a zero time is no bound. Some more may remain, but none is left out if no clock was
// off by more than ClockMargin. It reads few events, and returns domain.ErrUnavailable.
func Between(ctx context.Context, log *eventstore.Log, since, until time.Time, after, upTo uint64) (first, last uint64, err error) {
	first, last = after, upTo
	if !since.IsZero() {
		if first, _, err = bisect(ctx, log, first, last+1, since.Add(-ClockMargin)); err != nil {
			return 0, 0, err
		}
	}
	if !until.IsZero() {
		var from uint64
		if _, from, err = bisect(ctx, log, first, last+1, until.Add(ClockMargin+time.Millisecond)); err != nil {
			return 0, 0, err
		}
		last = from - 1
	}
	return first, last, nil
}

// bisect narrows two positions to the last one found to be before a time and the first one
// found not to be. It returns low and high if it finds none.
func bisect(ctx context.Context, log *eventstore.Log, low, high uint64, t time.Time) (before, from uint64, err error) {
	for right := high; low+1 < right; {
		middle := low + (right-low)/2
		r, err := readableFrom(ctx, log, middle, right)
		switch {
		case err != nil:
			return 0, 0, err
		case r == nil:
			right = middle
		case r.Time.Before(t):
			low = r.Position
		default:
			high, right = r.Position, middle
		}
	}
	return low, high, nil
}

// readableFrom returns the first readable event from a position on, nil for none before end.
func readableFrom(ctx context.Context, log *eventstore.Log, position, end uint64) (*domain.Record, error) {
	for ; position < end; position++ {
		r, err := log.Event(ctx, position)
		if errors.Is(err, domain.ErrUnreadable) || errors.Is(err, eventstore.ErrNoMessage) {
			continue
		}
		return r, err
	}
	return nil, nil
}
