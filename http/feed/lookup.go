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

// lookUp returns the next events, up to a position, of the sessions that the reader named. ok is
// false when the log must be read: there are too many, or a history cannot be read.
func (c *catchUp) lookUp(upTo uint64) (b *batch, ok bool) {
	if len(c.r.query.sessions) == 0 || len(c.r.query.sessions) > maxLookups {
		return nil, false
	}
	ctx, cancel := context.WithTimeout(c.reading.ctx, readDeadline)
	defer cancel()
	var found []domain.Record
	walked, size := 0, 0
	for _, id := range slices.Compact(slices.Sorted(slices.Values(c.r.query.sessions))) {
		for record, err := range c.hub.log.History(ctx, id) {
			if errors.Is(err, domain.ErrNotFound) {
				break
			}
			walked, size = walked+1, size+len(record.Event.Changes)+len(record.Encoded)
			if err != nil || walked > c.hub.limits.lookups || size > 4*c.hub.limits.stepBytes {
				return nil, false
			}
			if record.Position <= c.r.after {
				break
			}
			if record.Position <= upTo {
				found = append(found, record)
			}
		}
	}
	slices.SortFunc(found, func(a, b domain.Record) int { return cmp.Compare(a.Position, b.Position) })
	b = &batch{}
	for i := range found {
		if b.add(&domain.Entry{Record: &found[i]}, c.r.gets); len(b.bytes) >= c.hub.limits.stepBytes {
			return b, true
		}
	}
	b.last = upTo
	return b, true
}
