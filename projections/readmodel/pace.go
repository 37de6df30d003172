package readmodel

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"chatsessions/domain"
	"chatsessions/projections"
)

// How lists make room for writes.
const (
	restFor   = 9                      // while writes are in flight, long lists rest for so many times as long as they work
	maxRest   = 250 * time.Millisecond // but no longer, after a trip that was held up
	maxApart  = 10 * time.Millisecond  // between the beginnings of two short ones
	calmAfter = 20 * time.Millisecond  // without a write: a single client pauses between two of them
	lookEvery = 2 * time.Millisecond   // at whether there are writes
	longPages = 16                     // how many pages of more than maxDocuments are read at once
)

// A pace keeps lists from slowing writes down, and from filling the memory. What a
// list takes from the writes is time of Redis and of this process, which decodes and
// sends it: by the time of a trip both are known well enough.
//
// The first trips of a list, all that most lists need, take their share beside the
// writes: as much for a list as for a write. They begin one after the other, in rounds of
// all that wait when a round begins. The others wait for their turn, and
// together get a tenth of the time.
type pacer struct {
	writes func() int // how many are in flight

	short   atomic.Int64  // first trips that are waiting or under way
	typical atomic.Int64  // nanoseconds that one takes that is not held up, about
	line    chan struct{} // of one element: who puts it there is the first of those that wait
	next    time.Time     // when the first of them may begin
	apart   time.Duration // how long after it the one behind
	round   int64         // for how many more of them that holds

	turn      chan struct{} // of one element: who puts it there has the turn
	opensAt   time.Time     // until then, who has the turn rests
	lastWrite time.Time     // when who had the turn saw writes in flight last
	seats     chan struct{} // of longPages elements: who puts one there may read a long page
}

func newPacer(writes func() int) *pacer {
	if writes == nil {
		writes = func() int { return 0 }
	}
	return &pacer{writes: writes, line: make(chan struct{}, 1), turn: make(chan struct{}, 1), seats: make(chan struct{}, longPages)}
}

// share runs f, the first trip of a list, when its share allows, and returns f's error.
// It returns domain.ErrBusy when that is not before three quarters of the time until
// ctx' deadline are over: whoever began with nothing left would take a share for nothing,
// and all behind him, who wait as long, after him.
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

// begin returns when a first trip may begin. Of n that wait beside m writes, each is
// to get as much of the time as each write: so n of them begin, which is a round, while m
// could.
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
	if earliest := now.Add(-maxApart); p.next.Before(earliest) { // who begins late does not hold up those behind
		p.next = earliest
	} else if p.next.After(now) { // nor who begins early, because the writes have ended, those beside the next ones
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

// took takes note of a trip's duration. Most are held up by others: so the shortest
// counts, until it is forgotten.
func (p *pacer) recordTrip(d time.Duration) {
	if typical := p.typical.Load(); typical == 0 || int64(d) < typical+typical/16 {
		p.typical.Store(int64(d))
	} else {
		p.typical.Store(typical + typical/16)
	}
}

// pass runs f when it is its turn, and returns f's error. It returns
// domain.ErrTooExpensive when the turn would not come before ctx' deadline.
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

// writing says whether there are writes, which there also are between two of them.
// It is for who has the turn.
func (p *pacer) writing() bool {
	now := time.Now()
	if p.writes() > 0 {
		p.lastWrite = now
	}
	return now.Sub(p.lastWrite) < calmAfter
}

// seat returns when a long page may be read; call leave when it was. It returns
// domain.ErrTooExpensive when that is not before ctx' deadline.
func (p *pacer) seat(ctx context.Context) (leave func(), err error) { return acquire(ctx, p.seats) }

func acquire(ctx context.Context, room chan struct{}) (leave func(), err error) {
	select {
	case room <- struct{}{}:
		return func() { <-room }, nil
	case <-ctx.Done():
		return nil, endError(ctx)
	}
}

// await waits until a time, or until there are no writes any more.
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

// outOfTime says why ctx has ended: too much to do, or nobody who waits for it.
func endError(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return domain.ErrTooExpensive
	}
	return ctx.Err()
}
