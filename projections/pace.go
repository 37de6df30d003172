package projections

import (
	"context"
	"errors"
	"sync"
	"time"

	"chatsessions/domain"
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
// writes: as much for a list as for a write. The others wait for their turn, and
// together get a tenth of the time.
type pace struct {
	writes func() int // how many are in flight

	mu      sync.Mutex
	short   int           // first trips that are waiting or under way
	typical time.Duration // how long one takes that is not held up, about
	next    time.Time     // when the next one may begin

	turn    chan struct{} // of one element: who puts it there has the turn
	opens   time.Time     // until then, who has the turn rests
	written time.Time     // when who had the turn saw writes in flight last
	seats   chan struct{} // of longPages elements: who puts one there may read a long page
}

func newPace(writes func() int) *pace {
	if writes == nil {
		writes = func() int { return 0 }
	}
	return &pace{writes: writes, turn: make(chan struct{}, 1), seats: make(chan struct{}, longPages)}
}

// share runs f, the first trip of a list, when its share allows, and returns f's error.
// It returns domain.ErrTooExpensive when that would not be before ctx' deadline.
func (p *pace) share(ctx context.Context, f func() error) error {
	at := p.reserve()
	defer func() {
		p.mu.Lock()
		p.short--
		p.mu.Unlock()
	}()
	if err := await(ctx, at, func() bool { return p.writes() > 0 }); err != nil {
		return err
	}
	began := time.Now()
	err := f()
	if err == nil {
		p.took(time.Since(began))
	}
	return err
}

// reserve says when a trip may begin. Of n trips that wait beside m writes, each is
// to get as much of the time as each write: so n of them begin while m could.
func (p *pace) reserve() time.Time {
	writes := p.writes()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.short++
	now := time.Now()
	if writes == 0 || p.next.Before(now) {
		p.next = now
	}
	at := p.next
	p.next = at.Add(min(p.typical*time.Duration(writes)/time.Duration(p.short), maxApart))
	return at
}

// took takes note of a trip's duration. Most are held up by others: so the shortest
// counts, until it is forgotten.
func (p *pace) took(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.typical += p.typical / 16; p.typical == 0 || d < p.typical {
		p.typical = d
	}
}

// pass runs f when it is its turn, and returns f's error. It returns
// domain.ErrTooExpensive when the turn would not come before ctx' deadline.
func (p *pace) pass(ctx context.Context, f func() error) error {
	leave, err := enter(ctx, p.turn)
	if err != nil {
		return err
	}
	defer leave()
	if err := await(ctx, p.opens, p.writing); err != nil {
		return err
	}
	began := time.Now()
	err = f()
	if now := time.Now(); p.writing() {
		p.opens = now.Add(min(restFor*now.Sub(began), maxRest))
	}
	return err
}

// writing says whether there are writes, which there also are between two of them.
// It is for who has the turn.
func (p *pace) writing() bool {
	now := time.Now()
	if p.writes() > 0 {
		p.written = now
	}
	return now.Sub(p.written) < calmAfter
}

// seat returns when a long page may be read; call leave when it was. It returns
// domain.ErrTooExpensive when that is not before ctx' deadline.
func (p *pace) seat(ctx context.Context) (leave func(), err error) { return enter(ctx, p.seats) }

func enter(ctx context.Context, room chan struct{}) (leave func(), err error) {
	select {
	case room <- struct{}{}:
		return func() { <-room }, nil
	case <-ctx.Done():
		return nil, outOfTime(ctx)
	}
}

// await waits until a time, or until there are no writes any more.
func await(ctx context.Context, at time.Time, writing func() bool) error {
	for left := time.Until(at); left > 0 && writing(); left = time.Until(at) {
		if deadline, ok := ctx.Deadline(); ok && deadline.Before(at) {
			return domain.ErrTooExpensive
		}
		if !pause(ctx, min(left, lookEvery)) {
			return outOfTime(ctx)
		}
	}
	return nil
}

// outOfTime says why ctx has ended: too much to do, or nobody who waits for it.
func outOfTime(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return domain.ErrTooExpensive
	}
	return ctx.Err()
}
