package feed

import (
	"context"
	"sync"
	"time"

	"chatsessions/domain"
)

// A reading is one pass over the log: until no reader is left, or it cannot be followed.
type reading struct {
	hub    *Hub
	ctx    context.Context // its cause is the reason for which the streams end
	cancel context.CancelCauseFunc
	groups []*group
	next   int // counts the readers that came; guarded by Hub.mu

	mu   sync.Mutex
	ring ring
}

// begin follows the log after a position. The caller holds h.mu.
func (h *Hub) begin(after uint64) *reading {
	g := &reading{hub: h, ring: ring{floor: after, head: after, maxEvents: h.limits.ringEvents, maxBytes: h.limits.ringBytes}}
	g.ctx, g.cancel = context.WithCancelCause(context.Background())
	for range h.limits.groups {
		g.groups = append(g.groups, newGroup(g, after))
	}
	h.running.Go(func() {
		err := h.log.Follow(g.ctx, after, h.limits.batch, g.publish)
		if g.ctx.Err() == nil {
			h.logger.Error("the feed's reading of the log has ended", "error", err)
		}
		g.close(logLost(err))
	})
	h.running.Go(g.keepAlive)
	h.logger.Debug("the feed reads the log", "after", after)
	return g
}

// publish sends new events to the live readers.
func (g *reading) publish(events []domain.Entry) error {
	b := newBatch(events)
	if err := g.hub.log.Durable(g.ctx, b.last); err != nil {
		return err
	}
	g.mu.Lock()
	g.ring.add(b)
	g.mu.Unlock()
	var others sync.WaitGroup
	for _, m := range g.groups[1:] {
		others.Go(func() { m.deliver(b) })
	}
	g.groups[0].deliver(b)
	others.Wait()
	return nil
}

func (g *reading) head() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ring.head
}

// goLive moves a reader that has everything to its group, and reports whether it did.
func (g *reading) goLive(r *reader) bool {
	// An event that is not in the ring yet will find the reader in its group.
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ctx.Err() == nil && r.after >= g.ring.head && r.group.enter(r)
}

// keepAlive sends heartbeats, and ends a reading that had no reader for a whole period.
func (g *reading) keepAlive() {
	ticker := time.NewTicker(max(g.hub.limits.heartbeat/beats, time.Millisecond))
	defer ticker.Stop()
	idle := 0
	for phase := uint8(0); ; phase = (phase + 1) % beats {
		select {
		case <-g.ctx.Done():
			return
		case <-ticker.C:
		}
		for _, m := range g.groups {
			m.beat(phase)
		}
		g.hub.mu.Lock()
		if idle++; g.hub.counts.readers.Load() > 0 {
			idle = 0
		}
		unused := idle > beats
		if unused && g.hub.reading == g {
			g.hub.reading = nil // the next reader begins another one
		}
		g.hub.mu.Unlock()
		if unused {
			g.close(errUnused)
		}
	}
}

// close ends the reading, for the first reason, and the streams of its live readers.
func (g *reading) close(reason error) {
	g.cancel(reason)
	g.hub.mu.Lock()
	if g.hub.reading == g {
		g.hub.reading = nil
	}
	g.hub.mu.Unlock()
	for _, m := range g.groups {
		for r := range m.close() {
			g.hub.end(r, nil, context.Cause(g.ctx))
		}
	}
}
