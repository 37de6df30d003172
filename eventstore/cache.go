package eventstore

import "github.com/maypok86/otter/v2"

// maxCached is how much memory a Log spends on the newest events of sessions, in
// bytes, about: of some 250,000 ordinary sessions.
const maxCached = 160 << 20

// A cache holds the newest durable event of the sessions that were written lately,
// as far as this node knows, so that a busy session's command needs no read.
// Another node may have written since: what appends is checked by the log itself,
// and what appends nothing is decided on the leader's newest event.
type cache struct {
	records *otter.Cache[string, *Record]
}

func newCache() cache {
	return cache{otter.Must(&otter.Options[string, *Record]{
		MaximumWeight: maxCached,
		Weigher:       func(_ string, r *Record) uint32 { return weight(r) },
	})}
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

// weight is about how many bytes a record takes: its own, those of its place in the
// cache, and its texts.
func weight(r *Record) uint32 {
	s := &r.Event.Session
	n := 600 + len(s.CreatedBy) + len(s.Room) + len(r.Request.CorrelationID)
	for _, uid := range s.Participants {
		n += 16 + len(uid)
	}
	for _, stamp := range s.Stamps {
		if stamp != nil {
			n += 48 + len(stamp.By) + len(stamp.Reason)
		}
	}
	return uint32(n) //nolint:gosec // a session has less than a megabyte
}
