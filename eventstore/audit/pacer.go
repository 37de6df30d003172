package audit

import (
	"context"
	"sync"
	"time"

	"chatsessions/eventstore"

	"golang.org/x/time/rate"
)

const (
	// pacedRate is the number of events per second that are read while others write. Each
	// takes a server some 4 µs, so this is a fiftieth of a processor.
	pacedRate = 5_000
	// busyRate is the number of written events per second from which the log counts as busy.
	busyRate = 20
	// paceEvery is how often the log is asked for its end. pacedFor is how long a reader slows
	// down after the log was busy.
	paceEvery = 100 * time.Millisecond
	pacedFor  = 3 * time.Second
)

// A Pacer slows a reader of the whole log while others write to it, because a server that is
// busy with reads answers writes late. While the log is idle, the reader is not slowed.
type Pacer struct {
	log     *eventstore.Log
	limiter *rate.Limiter

	mu    sync.Mutex
	asked time.Time // when the log was last asked for its end
	end   uint64
	busy  time.Time // when the log was last found busy
}

// NewPacer returns a Pacer for a reader of the log.
func NewPacer(log *eventstore.Log) *Pacer {
	return &Pacer{
		log: log, limiter: rate.NewLimiter(pacedRate, pacedRate/20),
		busy: time.Now().Add(2*paceEvery - pacedFor), // busy until the first look says otherwise
	}
}

// Wait returns when the next n events (some hundreds at most) may be read, or ctx ends.
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

// isBusy reports whether others write. If the log cannot be asked, there is no reason to wait.
func (p *Pacer) isBusy(ctx context.Context) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if since := now.Sub(p.asked); since >= paceEvery {
		if end, err := p.log.LastSequence(ctx); err == nil {
			if !p.asked.IsZero() && float64(end-min(p.end, end)) > busyRate*since.Seconds() {
				p.busy = now
			}
			p.asked, p.end = now, end
		}
	}
	return now.Sub(p.busy) < pacedFor
}
