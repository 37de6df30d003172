package readmodel

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"chatsessions/domain"
	"chatsessions/projections"
)

// How lists yield to writes.
const (
	restFor   = 9                      // during writes, long lists rest this many times as long as they work
	maxRest   = 250 * time.Millisecond // limit of one rest, after a trip that was held up
	maxApart  = 10 * time.Millisecond  // between the starts of two first trips
	calmAfter = 20 * time.Millisecond  // a single client pauses between two writes
	lookEvery = 2 * time.Millisecond   // for writes to have ended
	longPages = 16                     // pages of more than maxDocuments read at once
)

// A pacer keeps lists from slowing down writes and from filling memory. A list costs
// writes time, in Redis and in this process; the duration of a trip measures both.
//
// First trips, all that most lists need, get as much time as the writes. They start one
// after another, in rounds of all that wait when the round begins. Further trips wait for a
// turn and together get a tenth of the time.
type pacer struct {
	writes func() int // in flight

	short   atomic.Int64  // first trips that wait or run
	typical atomic.Int64  // typical nanoseconds of an undisturbed first trip
	line    chan struct{} // holds one token: its owner is the first in line
	next    time.Time     // when the first in line may start
	apart   time.Duration // from one start to the next in this round
	round   int64         // starts left in this round

	turn      chan struct{} // holds one token: its owner has the turn
	opensAt   time.Time     // the owner of the turn rests until then
	lastWrite time.Time     // when the owner of the turn last saw writes in flight
	seats     chan struct{} // holds longPages tokens, one for each long page
}

func newPacer(writes func() int) *pacer {
	if writes == nil {
		writes = func() int { return 0 }
	}
	return &pacer{writes: writes, line: make(chan struct{}, 1), turn: make(chan struct{}, 1), seats: make(chan struct{}, longPages)}
}

// first runs f, the first trip of a list, when its share allows. It returns f's error, or
// domain.ErrBusy if three quarters of the time until ctx's deadline have passed: a list
// that started later would use its share for nothing, and so would those after it.
func (p *pacer) first(ctx context.Context, f func() error) error {
	p.short.Add(1)
	defer p.short.Add(-1)
	waiting, cancel := ctx, context.CancelFunc(func() {})
	if deadline, ok := ctx.Deadline(); ok {
		waiting, cancel = context.WithTimeout(ctx, time.Until(deadline)*3/4)
	}
	err := p.begin(waiting)
	cancel()
	if errors.Is(err, domain.ErrTooExpensive) {
		return domain.ErrBusy // whatever the list asks for
	}
	if err != nil {
		return err
	}
	began := time.Now()
	if err = f(); err == nil {
		p.recordTrip(time.Since(began))
	}
	return err
}

// begin returns when a first trip may start. Of n trips that wait beside m writes, each
// gets as much time as each write. So a round of n starts in the time of m trips.
func (p *pacer) begin(ctx context.Context) error {
	leave, err := acquire(ctx, p.line)
	if err != nil {
		return err
	}
	defer leave()
	if err := await(ctx, p.next, func() bool { return p.writes() > 0 }); err != nil {
		return err
	}
	now := time.Now()
	if earliest := now.Add(-maxApart); p.next.Before(earliest) { // a late start does not delay those behind
		p.next = earliest
	} else if p.next.After(now) { // an early start, because writes have ended, does not delay those beside the next writes
		p.next = now
	}
	if p.round == 0 {
		p.round = p.short.Load()
		p.apart = min(time.Duration(p.typical.Load()*int64(p.writes())/p.round), maxApart)
	}
	p.round--
	p.next = p.next.Add(p.apart)
	return nil
}

// recordTrip records the duration of a trip. Most trips are held up by others, so the
// shortest counts, and fades.
func (p *pacer) recordTrip(d time.Duration) {
	if typical := p.typical.Load(); typical == 0 || int64(d) < typical+typical/16 {
		p.typical.Store(int64(d))
	} else {
		p.typical.Store(typical + typical/16)
	}
}

// inTurn runs f when it has the turn. It returns f's error, or domain.ErrTooExpensive if
// the turn would not come before ctx's deadline.
func (p *pacer) inTurn(ctx context.Context, f func() error) error {
	leave, err := acquire(ctx, p.turn)
	if err != nil {
		return err
	}
	defer leave()
	if err := await(ctx, p.opensAt, p.writing); err != nil {
		return err
	}
	began := time.Now()
	err = f()
	if now := time.Now(); p.writing() {
		p.opensAt = now.Add(min(restFor*now.Sub(began), maxRest))
	}
	return err
}

// writing reports whether there are writes; a short pause between two counts as writing.
// The owner of the turn calls it.
func (p *pacer) writing() bool {
	now := time.Now()
	if p.writes() > 0 {
		p.lastWrite = now
	}
	return now.Sub(p.lastWrite) < calmAfter
}

// acquire takes a token's place in a channel with room for some. It returns
// domain.ErrTooExpensive if ctx's deadline passes first.
func acquire(ctx context.Context, room chan struct{}) (leave func(), err error) {
	select {
	case room <- struct{}{}:
		return func() { <-room }, nil
	case <-ctx.Done():
		return nil, endError(ctx)
	}
}

// await waits until a time, or until writes have ended.
func await(ctx context.Context, at time.Time, writing func() bool) error {
	for left := time.Until(at); left > 0 && writing(); left = time.Until(at) {
		if deadline, ok := ctx.Deadline(); ok && deadline.Before(at) {
			return domain.ErrTooExpensive
		}
		if !projections.Pause(ctx, min(left, lookEvery)) {
			return endError(ctx)
		}
	}
	return nil
}

// endError returns the error for an ended ctx: too much load, or a canceled request.
func endError(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return domain.ErrTooExpensive
	}
	return ctx.Err()
}
