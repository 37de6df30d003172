package eventstore

import (
	"context"
	"errors"
	"time"

	"chatsessions/domain"
)

// ClockMargin is how far the clocks of those who write to the log may be apart for
// Between to find all. The order of the log is that of writing; the times in it come
// from those clocks.
const ClockMargin = 10 * time.Minute

// Between narrows a part of the log, the events after a position up to another one, to
// where those are that were recorded from since until until; a zero time is no bound. It
// looks at few events (twice the logarithm of how many there are). What it leaves out
// was recorded outside these times, as long as no clock was off by more than ClockMargin;
// what it leaves in may have been, too.
//
// It returns domain.ErrUnavailable.
func (l *Log) Between(ctx context.Context, since, until time.Time, after, upTo uint64) (first, last uint64, err error) {
	first, last = after, upTo
	if !since.IsZero() {
		if first, _, err = l.bisect(ctx, first, last+1, since.Add(-ClockMargin)); err != nil {
			return 0, 0, err
		}
	}
	if !until.IsZero() {
		var from uint64
		if _, from, err = l.bisect(ctx, first, last+1, until.Add(ClockMargin+time.Millisecond)); err != nil {
			return 0, 0, err
		}
		last = from - 1
	}
	return first, last, nil
}

// bisect looks between two positions for where the log passes a time. It returns the
// last position that it has found to be before that, and the first that it has found
// not to be; low and high where there was none.
func (l *Log) bisect(ctx context.Context, low, high uint64, t time.Time) (before, from uint64, err error) {
	for right := high; low+1 < right; {
		middle := low + (right-low)/2
		r, err := l.readableFrom(ctx, middle, right)
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

// readableFrom returns the first event that can be read from a position on, nil where
// there is none before end.
func (l *Log) readableFrom(ctx context.Context, position, end uint64) (*domain.Record, error) {
	for ; position < end; position++ {
		reading, cancel := withPatience(ctx, readPatience)
		r, err := l.at(reading, position)
		cancel()
		if errors.Is(err, domain.ErrUnreadable) || errors.Is(err, errNoMessage) {
			continue
		}
		return r, err
	}
	return nil, nil
}
