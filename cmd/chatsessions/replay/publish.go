package replay

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/time/rate"

	"chatsessions/domain"
	"chatsessions/eventstore/audit"
)

// The server has to confirm after so many events, or so long.
const (
	confirmEvery = 200
	confirmAfter = time.Second
)

// A Publishing is the Output that publishes events to another subject, at a rate.
type Publishing struct {
	publisher *audit.Republisher
	limiter   *rate.Limiter
	pending   []uint64 // positions

	confirmed   int
	first, last uint64 // positions of the first and the last confirmed event
}

// NewPublishing returns an output for so many events a second (0: no limit), after a position.
func NewPublishing(publisher *audit.Republisher, perSecond float64, after uint64) *Publishing {
	limit := rate.Limit(perSecond)
	if perSecond == 0 {
		limit = rate.Inf
	}
	// A timer is not exact to the microsecond, so a few events may go at once.
	return &Publishing{publisher: publisher, limiter: rate.NewLimiter(limit, max(1, int(perSecond/100))), last: after}
}

// Add implements Output.
func (p *Publishing) Add(batch []domain.Entry) error {
	for i := range batch {
		if batch[i].Err == nil { // otherwise it is no event, and Defects has reported it
			p.pending = append(p.pending, batch[i].Record.Position)
		}
	}
	return nil
}

// Pending implements Output.
func (p *Publishing) Pending() int { return len(p.pending) }

// Flush implements Output.
func (p *Publishing) Flush(ctx context.Context, reached func(position uint64)) error {
	for len(p.pending) > 0 {
		n, err := p.publish(ctx)
		if failed := p.confirm(ctx, p.pending[:n]); failed != nil {
			return failed
		}
		if err != nil {
			return err
		}
		reached(p.last)
		p.pending = p.pending[n:]
	}
	return nil
}

// publish publishes events until the server has to confirm them, and returns how many.
func (p *Publishing) publish(ctx context.Context) (n int, err error) {
	for began := time.Now(); n < min(len(p.pending), confirmEvery) && time.Since(began) < confirmAfter; n++ {
		if err := p.limiter.Wait(ctx); err != nil {
			return n, err
		}
		if err := p.publisher.Publish(ctx, p.pending[n]); err != nil {
			return n, err
		}
	}
	return n, nil
}

// confirm has the server confirm what was published, even after ctx has ended.
func (p *Publishing) confirm(ctx context.Context, published []uint64) error {
	n, err := p.publisher.Confirm(context.WithoutCancel(ctx))
	if n > 0 {
		if p.confirmed == 0 {
			p.first = published[0]
		}
		p.confirmed += n
		p.last = published[n-1]
	}
	if err != nil {
		return fmt.Errorf("not confirmed: %w", err)
	}
	return nil
}

// Resume returns the position after which everything has to be published again.
func (p *Publishing) Resume() uint64 { return p.last }

// Summary describes what was published to the subject.
func (p *Publishing) Summary(subject string) string {
	by := "the server"
	if p.publisher.Stream() != "" {
		by = "stream " + p.publisher.Stream()
	}
	positions := ""
	if p.confirmed > 0 {
		positions = fmt.Sprintf(": the first from position %d, the last from position %d", p.first, p.last)
	}
	return fmt.Sprintf("%d events were published to %s and confirmed by %s%s.", p.confirmed, subject, by, positions)
}
