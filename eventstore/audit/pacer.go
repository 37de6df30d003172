package eventstore

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// pacedRate is how many events a second are read while somebody writes: each takes
	// a server some 4 µs, so this is a fiftieth of a processor.
	pacedRate = 5_000
	// busyRate is from how many events a second on somebody is taken to write in earnest.
	busyRate = 20
	// paceEvery is how often the log is asked for its end, and pacedFor how long a reader
	// goes slowly after it has seen somebody write.
	paceEvery = 100 * time.Millisecond
	pacedFor  = 3 * time.Second
)

// A Pacer holds up a reader of the whole log while others write to it, so that they are
// not: a server that is busy with reading answers writes late. While nobody writes, the
// reader goes as fast as it can.
type Pacer struct {
	log     *Log
	limiter *rate.Limiter

	mu    sync.Mutex
	asked time.Time // when the log was last asked for its end
	end   uint64
	busy  time.Time // when somebody was last seen to write
}

// NewPacer returns a Pacer for a reader of the log.
func (l *Log) NewPacer() *Pacer {
	return &Pacer{
		log: l, limiter: rate.NewLimiter(pacedRate, pacedRate/20),
		busy: time.Now().Add(2*paceEvery - pacedFor), // perhaps: that shows soon
	}
}

// Wait returns when the reader may go on to the next n events, at most some hundreds, or
// with an error when ctx ends.
func (p *Pacer) Wait(ctx context.Context, n int) error {
	if !p.isBusy(ctx) {
		return ctx.Err()
	}
	for n > 0 {
		portion := min(n, p.limiter.Burst())
		if err := p.limiter.WaitN(ctx, portion); err != nil {
			return err
		}
		n -= portion
	}
	return nil
}

// isBusy says whether somebody writes. A log that cannot be asked is no reason to wait.
func (p *Pacer) isBusy(ctx context.Context) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if since := now.Sub(p.asked); since >= paceEvery {
		if end, err := p.log.lastSequence(ctx); err == nil {
			if !p.asked.IsZero() && float64(end-min(p.end, end)) > busyRate*since.Seconds() {
				p.busy = now
			}
			p.asked, p.end = now, end
		}
	}
	return now.Sub(p.busy) < pacedFor
}
