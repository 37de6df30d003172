package http

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"chatsessions/domain"
	"chatsessions/http/conn"
)

// A pursuit brings a reader that is behind up to date, with a goroutine of its own.
type pursuit struct {
	*reading
	r      *feedReader
	rest   []byte // of an event that was begun
	beaten time.Time
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
			err = p.send(recent)
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

// send writes what the reader gets of a batch, and waits until that was taken. It may take
// long: the reader's token is checked as often as that of one who waits.
func (p *pursuit) send(b *feedBatch) error {
	if b == nil { // the reader has everything
		return nil
	}
	wanted, err := p.stillSeen(b, b.wantedBy(p.r))
	if err != nil {
		return err
	}
	rest, sent, _, err := p.r.send(b, wanted, nil, func(bytes []byte) (int, error) {
		if time.Since(p.beaten) >= p.hub.heartbeat {
			p.beaten = time.Now()
			if err := p.hub.check(p.r); err != nil {
				return 0, err
			}
		}
		return p.r.write(p.ctx, bytes, p.hub.patience)
	})
	p.hub.counts.sent.Add(uint64(sent))
	p.rest = rest
	return p.judge(err)
}

// stillSeen leaves out the events of sessions that the reader may not see any more. An
// event that has just been written is the newest of its session; of older ones, the log
// has to say.
func (p *pursuit) stillSeen(b *feedBatch, wanted []int) ([]int, error) {
	if p.r.caller.SeesAll() {
		return wanted, nil
	}
	ctx, cancel := context.WithTimeout(p.ctx, readDeadline)
	defer cancel()
	seen := map[string]bool{}
	var failed error
	wanted = slices.DeleteFunc(wanted, func(i int) bool {
		id := b.events[i].session.ID
		sees, known := seen[id]
		if !known && failed == nil {
			sees, failed = p.sees(ctx, id)
			seen[id] = sees
		}
		return !sees
	})
	if failed != nil {
		return nil, p.lost(failed)
	}
	return wanted, nil
}

// sees says whether the reader may see a session as it is now.
func (p *pursuit) sees(ctx context.Context, id string) (bool, error) {
	for newest, err := range p.hub.log.History(ctx, id) {
		if errors.Is(err, domain.ErrUnreadable) {
			return false, nil
		}
		return err == nil && p.r.caller.MaySee(&newest.Event.Session), err
	}
	return false, nil
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
	if err == nil || errors.Is(err, errTooSlow) || errors.Is(err, errRevoked) || p.ctx.Err() != nil && errors.Is(err, context.Cause(p.ctx)) {
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
	if conn.HungUp(r.conn) {
		return errClientGone
	}
	if caller, ok := h.tokens.Verify(r.token); !ok || caller != r.caller {
		return errRevoked
	}
	return nil
}

// catchUp reads a part of the log for this reader alone, and sends what the reader gets of
// it. How many read at once is bounded, and so is the part; how long the reader takes
// for it does not keep the others from reading.
func (p *pursuit) catchUp(upTo uint64) error {
	read, err := p.read(upTo)
	if err != nil || read == nil {
		return err
	}
	return p.send(read)
}

// read returns a part of the log, nil where there was no time for it.
func (p *pursuit) read(upTo uint64) (*feedBatch, error) {
	wait := time.NewTimer(p.hub.heartbeat)
	defer wait.Stop()
	select {
	case p.hub.catchUps <- struct{}{}:
		defer func() { <-p.hub.catchUps }()
	case <-wait.C:
		return nil, nil
	case <-p.ctx.Done():
		return nil, context.Cause(p.ctx)
	}
	if err := p.hub.check(p.r); err != nil { // clients that gave up while they waited take no turn
		return nil, err
	}
	return p.readStep(upTo)
}

// readStep is read, in its turn.
func (p *pursuit) readStep(upTo uint64) (*feedBatch, error) {
	if b, ok := p.sessionEvents(upTo); ok {
		return b, nil
	}
	ctx, cancel := context.WithTimeout(p.ctx, p.hub.heartbeat) // while the log is silent, somebody else may try
	defer cancel()
	b, looked, enough := &feedBatch{}, 0, errors.New("enough was read")
	err := p.hub.log.Read(ctx, p.r.after, upTo, p.hub.batch, func(events []domain.Entry) error {
		for i := range events {
			b.add(&events[i], p.r.gets)
			if looked++; len(b.bytes) >= p.hub.stepBytes || looked >= p.hub.stepEvents {
				return enough
			}
		}
		return nil
	})
	switch {
	case p.ctx.Err() != nil:
		return nil, context.Cause(p.ctx)
	case err != nil && !errors.Is(err, enough) && ctx.Err() == nil:
		return nil, p.lost(err)
	case looked == 0:
		return nil, nil
	}
	return b, nil
}

// lost is why a stream ends whose reader cannot be brought up to date.
func (p *pursuit) lost(err error) error {
	if p.ctx.Err() != nil {
		return context.Cause(p.ctx)
	}
	p.hub.logger.Error("the log cannot be read for a reader of the feed", "account", p.r.caller.Account, "after", p.r.after, "error", err)
	return logLost(err)
}

// maxHistories is of how many sessions the events are looked up.
const maxHistories = 16

// sessionEvents returns the next events, up to a position, of the sessions that the
// reader has named: a session's events lead to each other, so the log between them need
// not be read. ok is false when it has to be: there are too many, or something is
// not as it should be.
func (p *pursuit) sessionEvents(upTo uint64) (b *feedBatch, ok bool) {
	if len(p.r.sessions) == 0 || len(p.r.sessions) > maxHistories {
		return nil, false
	}
	ctx, cancel := context.WithTimeout(p.ctx, readDeadline)
	defer cancel()
	walked := 0
	oldest := &oldestEvents{atMost: p.hub.stepBytes, upTo: upTo}
	for _, id := range slices.Compact(slices.Sorted(slices.Values(p.r.sessions))) {
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
			one := &feedBatch{}
			if one.add(&domain.Entry{Record: &record}, p.r.gets); len(one.events) > 0 {
				oldest.put(one)
			}
		}
	}
	return oldest.batch(), true
}

// oldestEvents are those of some events, each in a batch of its own, that come first in
// the log: as many as there is room for, and at least one.
type oldestEvents struct {
	atMost int          // bytes
	upTo   uint64       // what comes after this position is not wanted
	kept   []*feedBatch // by position, the newest first
	bytes  int
}

func (o *oldestEvents) put(b *feedBatch) {
	if b.last > o.upTo {
		return
	}
	at, _ := slices.BinarySearchFunc(o.kept, b, func(one, other *feedBatch) int { return cmp.Compare(other.last, one.last) })
	o.kept = slices.Insert(o.kept, at, b)
	o.bytes += len(b.bytes)
	for len(o.kept) > 1 && o.bytes > o.atMost {
		o.bytes -= len(o.kept[0].bytes)
		o.upTo = o.kept[0].last - 1
		o.kept = slices.Delete(o.kept, 0, 1)
	}
}

// batch returns the events in the order of the log.
func (o *oldestEvents) batch() *feedBatch {
	all := &feedBatch{last: o.upTo}
	for _, one := range slices.Backward(o.kept) {
		e := one.events[0]
		e.start, e.end = len(all.bytes), len(all.bytes)+len(one.bytes)
		all.bytes = append(all.bytes, one.bytes...)
		all.events = append(all.events, e)
	}
	return all
}
