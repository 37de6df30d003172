package feed

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"chatsessions/domain"
)

// maxLookups is the largest number of sessions whose events are looked up.
const maxLookups = 16

// lookUp returns the next events, up to a position, of the sessions that the reader named.
// The events of a session lead to each other, so the log between them is not read. ok is
// false when it must be: there are too many events, or a history cannot be read.
func (c *catchUp) lookUp(upTo uint64) (b *batch, ok bool) {
	if len(c.r.query.sessions) == 0 || len(c.r.query.sessions) > maxLookups {
		return nil, false
	}
	ctx, cancel := context.WithTimeout(c.reading.ctx, readDeadline)
	defer cancel()
	walked := 0
	oldest := &oldestEvents{atMost: c.hub.limits.stepBytes, upTo: upTo}
	for _, id := range slices.Compact(slices.Sorted(slices.Values(c.r.query.sessions))) {
		for record, err := range c.hub.log.History(ctx, id) {
			if errors.Is(err, domain.ErrNotFound) {
				break
			}
			if walked++; err != nil || walked > c.hub.limits.lookups {
				return nil, false
			}
			if record.Position <= c.r.after {
				break
			}
			one := &batch{}
			if one.add(&domain.Entry{Record: &record}, c.r.gets); len(one.events) > 0 {
				oldest.put(one)
			}
		}
	}
	return oldest.batch(), true
}

// oldestEvents keeps the oldest of the events that are put into it, as many as fit into
// atMost bytes, and at least one.
type oldestEvents struct {
	atMost int
	upTo   uint64   // events after this position are dropped
	kept   []*batch // of one event each, the newest first
	bytes  int
}

func (o *oldestEvents) put(b *batch) {
	if b.last > o.upTo {
		return
	}
	at, _ := slices.BinarySearchFunc(o.kept, b, func(one, other *batch) int { return cmp.Compare(other.last, one.last) })
	o.kept = slices.Insert(o.kept, at, b)
	o.bytes += len(b.bytes)
	for len(o.kept) > 1 && o.bytes > o.atMost {
		o.bytes -= len(o.kept[0].bytes)
		o.upTo = o.kept[0].last - 1
		o.kept = slices.Delete(o.kept, 0, 1)
	}
}

// batch returns the events in the order of the log.
func (o *oldestEvents) batch() *batch {
	all := &batch{last: o.upTo}
	for _, one := range slices.Backward(o.kept) {
		e := one.events[0]
		e.start, e.end = len(all.bytes), len(all.bytes)+len(one.bytes)
		all.bytes = append(all.bytes, one.bytes...)
		all.events = append(all.events, e)
	}
	return all
}
