package eventstore

import (
	"github.com/maypok86/otter/v2"

	"chatsessions/domain"
)

// maxCached bounds a cache, in bytes: enough for some 250,000 ordinary sessions.
const maxCached = 160 << 20

// A cache holds the newest durable event of recently written sessions, as far as this node
// knows, so that a command for a busy session needs no read. An entry is valid for one
// connection only: after a reconnection the log may have been restored from an older copy.
type cache struct {
	records *otter.Cache[string, *cached]
}

// A cached is a record and the connection over which it came; see Log.Connections.
type cached struct {
	*domain.Record
	connection uint64
}

func newCache() cache {
	return cache{otter.Must(&otter.Options[string, *cached]{
		MaximumWeight: maxCached,
		Weigher:       func(_ string, c *cached) uint32 { return Weight(c.Record) },
	})}
}

func (c cache) get(id string, connection uint64) (*domain.Record, bool) {
	known, ok := c.records.GetIfPresent(id)
	if !ok || known.connection != connection {
		return nil, false
	}
	return known.Record, true
}

// put keeps a durable event, unless a newer one is there.
func (c cache) put(r *domain.Record, connection uint64) {
	id := r.Event.Session.ID
	if known, ok := c.get(id, connection); ok && known.Position >= r.Position {
		return
	}
	kept := *r
	kept.Event.Changes, kept.Encoded = nil, nil // no decision needs them
	c.records.Set(id, &cached{&kept, connection})
}

// Weight returns about how many bytes a record without its changes takes in a cache.
func Weight(r *domain.Record) uint32 {
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
