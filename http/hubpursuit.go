package http

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"chatsessions/domain"
)

// A pursuit brings a reader that is behind up to date, with a goroutine of its own.
type pursuit struct {
	*reading
	r       *feedReader
	rest    []byte // of an event that was begun
	beaten  time.Time
	scratch []byte
}

// errClientGone says that nobody is left to be told anything.
var errClientGone = errors.New("the client is gone")

// pursue takes care of a reader until it has everything and is back in its room, or is
// sent away.
func (g *reading) pursue(r *feedReader, rest []byte) {
	g.hub.counts.behind.Add(1)
	g.hub.running.Go(func() {
		defer g.hub.counts.behind.Add(-1)
		p := &pursuit{reading: g, r: r, rest: rest, beaten: time.Now()}
		if err := p.run(); err != nil {
			g.dismiss(r, p.rest, err)
		}
	})
}

// dismiss ends a stream: silently where the client is gone.
func (g *reading) dismiss(r *feedReader, rest []byte, why error) {
	if errors.Is(why, errClientGone) {
		g.hub.counts.gone.Add(1)
		g.leave(r)
		return
	}
	g.cutOff(r, rest, why)
}

// run returns nil when the reader is in its room.
func (p *pursuit) run() error {
	if err := p.finish(); err != nil {
		return err
	}
	for {
		if err := p.beat(); err != nil {
			return err
		}
		if p.settle(p.r) {
			return nil
		}
		recent, upTo, err := p.missing()
		switch {
		case err != nil:
			return err
		case recent != nil:
			err = p.send(recent, recent.wantedBy(p.r))
		default:
			err = p.catchUp(upTo)
		}
		if err != nil {
			return err
		}
	}
}

// missing returns the recent events that the reader has to be sent next; or nil, when
// the log has to be read, and up to where. A reader that had everything once, and has
// let all that is kept go by, is too slow.
func (p *pursuit) missing() (recent *feedBatch, upTo uint64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.ctx.Err() != nil:
		err = context.Cause(p.ctx)
	case p.r.after >= p.ring.floor:
		recent = p.ring.after(p.r.after)
	case p.r.live:
		err = errTooSlow
	}
	return recent, p.ring.head, err
}

// send writes events of a batch, and waits until they were taken.
func (p *pursuit) send(b *feedBatch, wanted []int) error {
	if b == nil { // the reader has everything
		return nil
	}
	rest, sent, _, err := p.r.send(b, wanted, p.scratch, func(bytes []byte) (int, error) {
		return p.r.write(p.ctx, bytes, p.hub.patience)
	})
	p.hub.counts.sent.Add(uint64(sent))
	p.rest = rest
	return p.judge(err)
}

// finish writes the rest of what was begun.
func (p *pursuit) finish() error {
	n, err := p.r.write(p.ctx, p.rest, p.hub.patience)
	p.rest = p.rest[n:]
	return p.judge(err)
}

// judge returns why the stream has to end; an error that is the connection's means that
// the client is gone.
func (p *pursuit) judge(err error) error {
	if err == nil || errors.Is(err, errTooSlow) || p.ctx.Err() != nil && errors.Is(err, context.Cause(p.ctx)) {
		return err
	}
	return errClientGone
}

// beat sends a heartbeat when it is time for one.
func (p *pursuit) beat() error {
	if time.Since(p.beaten) < p.hub.heartbeat {
		return nil
	}
	p.beaten = time.Now()
	if err := p.hub.check(p.r); err != nil {
		return err
	}
	p.rest = appendHeartbeat(nil, p.r.after)
	return p.finish()
}

// check says why a stream must not go on: the client is gone, or its token stands for
// nobody, or somebody else, by now.
func (h *hub) check(r *feedReader) error {
	if hungUp(r.conn) {
		return errClientGone
	}
	if caller, ok := h.tokens.Verify(r.token); !ok || caller != r.caller {
		return errRevoked
	}
	return nil
}

// catchUp reads a part of the log for this reader alone. How many do that at once is
// bounded, and so is the part: the others get their turn.
func (p *pursuit) catchUp(upTo uint64) error {
	wait := time.NewTimer(p.hub.heartbeat)
	defer wait.Stop()
	select {
	case p.hub.catchUps <- struct{}{}:
		defer func() { <-p.hub.catchUps }()
	case <-wait.C:
		return nil
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	}
	if err := p.hub.check(p.r); err != nil { // clients that gave up while they waited take no turn
		return err
	}
	if found, ok := p.sessionEvents(upTo); ok {
		if len(found) > 0 {
			if err := p.sendRead(found); err != nil {
				return err
			}
		}
		p.r.after = max(p.r.after, upTo)
		return nil
	}
	ctx, cancel := context.WithTimeout(p.ctx, p.hub.heartbeat) // while the log is silent, somebody else may try
	defer cancel()
	var failed error
	enough, read := errors.New("enough was read"), 0
	err := p.hub.log.Read(ctx, p.r.after, upTo, p.hub.batch, func(events []domain.Recorded) error {
		if failed = p.sendRead(events); failed != nil {
			return failed
		}
		if read += len(events); read >= p.hub.stepEvents {
			return enough
		}
		return nil
	})
	switch {
	case failed != nil:
		return failed
	case p.ctx.Err() != nil:
		return context.Cause(p.ctx)
	case err == nil, errors.Is(err, enough), ctx.Err() != nil:
		return nil
	}
	p.hub.logger.Error("the log cannot be read for a reader of the feed", "account", p.r.caller.Account, "after", p.r.after, "error", err)
	return logLost(err)
}

// sendRead sends what the reader gets of events that were read from the log.
func (p *pursuit) sendRead(events []domain.Recorded) error {
	b := newFeedBatch(events, p.r.gets)
	return p.send(b, b.wantedBy(p.r))
}

// maxHistories is of how many sessions the events are looked up.
const maxHistories = 16

// sessionEvents returns what there is, up to a position, of the sessions that the
// reader has named: a session's events lead to each other, so the log between them need
// not be read. ok is false when it has to be: there are too many, or something is
// not as it should be.
func (p *pursuit) sessionEvents(upTo uint64) (found []domain.Recorded, ok bool) {
	if len(p.r.sessions) == 0 || len(p.r.sessions) > maxHistories {
		return nil, false
	}
	ctx, cancel := context.WithTimeout(p.ctx, readDeadline)
	defer cancel()
	walked := 0
	sessions := slices.Compact(slices.Sorted(slices.Values(p.r.sessions)))
	for _, id := range sessions {
		for record, err := range p.hub.log.History(ctx, id) {
			if errors.Is(err, domain.ErrNotFound) {
				break
			}
			if walked++; err != nil || walked > p.hub.historyMost {
				return nil, false
			}
			if record.Position <= p.r.after {
				break
			}
			if record.Position <= upTo {
				found = append(found, record.Recorded())
			}
		}
	}
	slices.SortFunc(found, func(a, b domain.Recorded) int { return cmp.Compare(a.Position, b.Position) })
	return found, true
}
