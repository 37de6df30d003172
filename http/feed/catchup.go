package feed

import (
	"context"
	"errors"
	"slices"
	"time"

	"chatsessions/domain"
)

// A catchUp brings a reader that is behind to the live end, in a goroutine of its own.
type catchUp struct {
	hub     *Hub
	reading *reading
	r       *reader
	rest    []byte // of an event that was begun
	beaten  time.Time
}

// catchUp owns a reader until it is live or its stream has ended.
func (g *reading) catchUp(r *reader, rest []byte) {
	h := g.hub
	h.running.Go(func() {
		c := &catchUp{hub: h, reading: g, r: r, rest: rest, beaten: time.Now()}
		if reason := c.run(); reason != nil {
			h.end(r, c.rest, reason)
		}
	})
}

// run returns nil when the reader is live, otherwise the reason for which its stream ends.
func (c *catchUp) run() error {
	if err := c.finish(); err != nil {
		return err
	}
	for {
		if err := c.beat(); err != nil {
			return err
		}
		if c.reading.goLive(c.r) {
			return nil
		}
		next, upTo, err := c.recent()
		if err == nil && next == nil {
			next, err = c.read(upTo)
		}
		if err == nil && next != nil {
			err = c.send(next)
		}
		if err != nil {
			return err
		}
	}
}

// recent returns the next events from the ring, or nil if the log has to be read for them,
// up to a position. A reader that was live and fell behind the ring is too slow.
func (c *catchUp) recent() (next *batch, upTo uint64, err error) {
	g := c.reading
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.ctx.Err() != nil:
		err = context.Cause(g.ctx)
	case c.r.after >= g.ring.floor:
		next = g.ring.after(c.r.after)
	case c.r.wasLive:
		err = errTooSlow
	}
	return next, g.ring.head, err
}

// send writes what the reader gets of a batch. That may take long, so it checks the token too.
func (c *catchUp) send(b *batch) error {
	wanted, err := c.stillSeen(b, b.wantedBy(c.r))
	if err != nil {
		return err
	}
	rest, sent, _, err := c.r.send(b, wanted, nil, func(bytes []byte) (int, error) {
		if time.Since(c.beaten) >= c.hub.limits.heartbeat {
			c.beaten = time.Now()
			if err := c.hub.check(c.r); err != nil {
				return 0, err
			}
		}
		return c.r.write(c.reading.ctx, bytes, c.hub.limits.patience)
	})
	c.hub.counts.sent.Add(uint64(sent))
	c.rest = rest
	return err
}

// finish writes the rest of what was begun.
func (c *catchUp) finish() error {
	n, err := c.r.write(c.reading.ctx, c.rest, c.hub.limits.patience)
	c.rest = c.rest[n:]
	return err
}

// beat sends a heartbeat when one is due.
func (c *catchUp) beat() error {
	if time.Since(c.beaten) < c.hub.limits.heartbeat {
		return nil
	}
	c.beaten = time.Now()
	if err := c.hub.check(c.r); err != nil {
		return err
	}
	c.rest = appendHeartbeat(nil, c.r.after)
	return c.finish()
}

// stillSeen drops the events of sessions that the reader may not see any more.
func (c *catchUp) stillSeen(b *batch, wanted []int) ([]int, error) {
	if c.r.caller.SeesAll() {
		return wanted, nil
	}
	ctx, cancel := context.WithTimeout(c.reading.ctx, readDeadline)
	defer cancel()
	seen := map[string]bool{}
	var failed error
	wanted = slices.DeleteFunc(wanted, func(i int) bool {
		id := b.events[i].session.ID
		sees, known := seen[id]
		if !known && failed == nil {
			sees, failed = c.sees(ctx, id)
			seen[id] = sees
		}
		return !sees
	})
	if failed != nil {
		return nil, c.lost(failed)
	}
	return wanted, nil
}

// sees reports whether the reader may see a session as it is now.
func (c *catchUp) sees(ctx context.Context, id string) (bool, error) {
	for newest, err := range c.hub.log.History(ctx, id) {
		if errors.Is(err, domain.ErrUnreadable) {
			return false, nil
		}
		return err == nil && c.r.caller.MaySee(&newest.Event.Session), err
	}
	return false, nil
}

// read reads a bounded part of the log for this reader alone, on one of the seats. It returns nil
// if there was no time for it.
func (c *catchUp) read(upTo uint64) (*batch, error) {
	wait := time.NewTimer(c.hub.limits.heartbeat)
	defer wait.Stop()
	select {
	case c.hub.seats <- struct{}{}:
		defer func() { <-c.hub.seats }()
	case <-wait.C:
		return nil, nil
	case <-c.reading.ctx.Done():
		return nil, context.Cause(c.reading.ctx)
	}
	if err := c.hub.check(c.r); err != nil { // a client that gave up while it waited takes no seat
		return nil, err
	}
	return c.step(upTo)
}

// step is read, with a seat.
func (c *catchUp) step(upTo uint64) (*batch, error) {
	if b, ok := c.lookUp(upTo); ok {
		return b, nil
	}
	ctx, cancel := context.WithTimeout(c.reading.ctx, c.hub.limits.heartbeat) // a silent log frees the seat
	defer cancel()
	b, n, enough := &batch{}, 0, errors.New("enough was read")
	err := c.hub.log.Read(ctx, c.r.after, upTo, c.hub.limits.batch, func(events []domain.Entry) error {
		for i := range events {
			b.add(&events[i], c.r.gets)
			if n++; len(b.bytes) >= c.hub.limits.stepBytes || n >= c.hub.limits.stepEvents {
				return enough
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, enough) && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil, c.lost(err)
	}
	if n == 0 {
		return nil, nil
	}
	return b, nil
}

// lost is the reason for which a stream ends when the log cannot be read for it.
func (c *catchUp) lost(err error) error {
	if c.reading.ctx.Err() != nil {
		return context.Cause(c.reading.ctx)
	}
	c.hub.logger.Error("the log cannot be read for a reader of the feed", "account", c.r.caller.Account, "after", c.r.after, "error", err)
	return logLost(err)
}
