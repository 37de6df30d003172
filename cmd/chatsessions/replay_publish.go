package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/time/rate"

	"chatsessions/domain"
	"chatsessions/eventstore/audit"
)

const (
	// After so many events, or so long, the server has to confirm them.
	confirmEvery = 200
	confirmAfter = time.Second
)

// A publishSink publishes events to another subject, at a rate.
type publishSink struct {
	publisher *audit.Republisher
	limiter   *rate.Limiter
	positions []uint64 // of the events that are next

	confirmed   int
	first, last uint64 // positions of the first and the last that were confirmed
}

// newPublishSink returns a sink for so many events a second, 0 for any number.
func newPublishSink(publisher *audit.Republisher, perSecond float64) *publishSink {
	limit := rate.Limit(perSecond)
	if perSecond == 0 {
		limit = rate.Inf
	}
	// A timer is not exact to the microsecond: a few may go at once.
	return &publishSink{publisher: publisher, limiter: rate.NewLimiter(limit, max(1, int(perSecond/100)))}
}

func (p *publishSink) take(batch []domain.Entry) error {
	for i := range batch {
		if batch[i].Err == nil { // it was told of; it is no event
			p.positions = append(p.positions, batch[i].Record.Position)
		}
	}
	return nil
}

func (p *publishSink) pending() int { return len(p.positions) }

func (p *publishSink) settle(ctx context.Context, reached func(position uint64)) error {
	positions := p.positions
	p.positions = p.positions[:0]
	begin, told := 0, time.Now() // what is confirmed ends there, and was so then
	for i, position := range positions {
		end := i
		err := p.limiter.Wait(ctx)
		if err == nil {
			err = p.publisher.Publish(ctx, position)
		}
		if err == nil {
			end = i + 1
			if end < len(positions) && end-begin < confirmEvery && time.Since(told) < confirmAfter {
				continue
			}
		}
		if failed := p.confirm(ctx, positions[begin:end]); failed != nil {
			return failed
		}
		if err != nil {
			return err
		}
		begin, told = end, time.Now()
		reached(position)
	}
	return nil
}

// confirm has the server confirm what was published, be it the last thing that is done.
func (p *publishSink) confirm(ctx context.Context, positions []uint64) error {
	n, err := p.publisher.Confirm(context.WithoutCancel(ctx))
	if n > 0 {
		if p.confirmed == 0 {
			p.first = positions[0]
		}
		p.confirmed += n
		p.last = positions[n-1]
	}
	if err != nil {
		return fmt.Errorf("not confirmed: %w", err)
	}
	return nil
}

// resume is the position after which all is to be published again.
func (p *publishSink) resume(r *replay) uint64 {
	if p.confirmed == 0 {
		return r.filter.after
	}
	return p.last
}
