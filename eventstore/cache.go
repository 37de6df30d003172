package eventstore

import "github.com/maypok86/otter/v2"

// maxCached is how many sessions' newest events a Log keeps at hand, at about
// 700 bytes each: 175 MB at most.
const maxCached = 250_000

// A cache holds the newest durable event of the sessions that were written lately,
// as far as this node knows, so that a busy session's command needs no read.
// Another node may have written since: what appends is checked by the log itself,
// and what appends nothing is decided on the leader's newest event.
type cache struct {
	records *otter.Cache[string, *Record]
}

func newCache() cache {
	return cache{otter.Must(&otter.Options[string, *Record]{MaximumSize: maxCached})}
}

func (c cache) get(id string) (*Record, bool) { return c.records.GetIfPresent(id) }

// put keeps an event that has passed the barrier, unless a newer one is there.
func (c cache) put(r *Record) {
	id := r.Event.Session.ID
	if known, ok := c.records.GetIfPresent(id); ok && known.Position >= r.Position {
		return
	}
	kept := *r
	kept.Event.Changes, kept.encoded = nil, nil // nobody decides by them
	c.records.Set(id, &kept)
}
