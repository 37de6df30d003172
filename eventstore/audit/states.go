package audit

import (
	"errors"
	"hash/maphash"

	"chatsessions/domain"
	"chatsessions/eventstore"
)

// A lastState is what a verification knows of a session.
type lastState struct {
	position   uint64          // of its newest readable event
	session    *domain.Session // after that event; nil if there was none
	folded     *domain.Session // to which that event's changes fold, if that differs from session
	unreadable uint64          // position of its newest message that is not an event
	between    uint64          // how many of these came after its newest event
	bytes      int             // that are counted for it
}

// size returns about how many bytes a state takes.
func (s *lastState) size(id string) int {
	n := len(id) + 100
	for _, session := range []*domain.Session{s.session, s.folded} {
		if session != nil {
			n += int(eventstore.Weight(&domain.Record{Event: domain.Event{Session: *session}}))
		}
	}
	return n
}

// errNoEvent: a session's newest message is not an event, for a reason already reported.
var errNoEvent = errors.New("the session's newest message is not an event")

// entry returns the session in a state.
func (s *lastState) entry(id string) domain.Entry {
	if s.unreadable > s.position {
		return domain.Entry{Record: &domain.Record{Event: domain.Event{Session: domain.Session{ID: id}}, Position: s.unreadable}, Err: errNoEvent}
	}
	return domain.Entry{Record: &domain.Record{Event: domain.Event{Session: *s.session}, Position: s.position}}
}

// recentStates are the states last written, in halves: a full newer half evicts the older one.
type recentStates struct {
	capacity     int // of one half, in bytes
	used         int
	newer, older map[string]*lastState
}

func newRecentStates(memory int) *recentStates {
	return &recentStates{capacity: memory / 2, newer: map[string]*lastState{}, older: map[string]*lastState{}}
}

// get returns nil for an unknown session.
func (r *recentStates) get(id string) *lastState {
	if s, ok := r.newer[id]; ok {
		return s
	}
	return r.older[id]
}

// put keeps a state, and returns those that are evicted for it.
func (r *recentStates) put(id string, s *lastState) (evicted map[string]*lastState) {
	if known, ok := r.newer[id]; ok {
		r.used -= known.bytes
	}
	s.bytes = s.size(id)
	r.used += s.bytes
	r.newer[id] = s
	if r.used <= r.capacity {
		return nil
	}
	evicted = r.older
	for id := range r.newer {
		delete(evicted, id)
	}
	r.newer, r.older, r.used = make(map[string]*lastState, len(r.newer)), r.newer, 0
	return evicted
}

// claims remembers which events were named as a previous event, and which sessions were
// created, by two bits each in a table (a Bloom filter). It may take one claim for another,
// more often the bigger the log is; then the log is asked.
type claims struct {
	seed maphash.Seed
	bits []uint64
}

func newClaims(memory int) claims {
	return claims{maphash.MakeSeed(), make([]uint64, max(1, memory/8))}
}

// bitsOf returns the two bits of an event's claim.
func (c claims) bitsOf(r *domain.Record) (one, other uint64) {
	var h uint64
	if r.Previous == 0 {
		h = maphash.String(c.seed, r.Event.Session.ID)
	} else {
		h = maphash.Comparable(c.seed, r.Previous)
	}
	bits := uint64(len(c.bits)) * 64
	return h % bits, (h >> 32) % bits
}

func (c claims) add(r *domain.Record) {
	one, other := c.bitsOf(r)
	c.bits[one/64] |= 1 << (one % 64)
	c.bits[other/64] |= 1 << (other % 64)
}

// has reports whether the claim may have been made before.
func (c claims) has(r *domain.Record) bool {
	one, other := c.bitsOf(r)
	return c.bits[one/64]&(1<<(one%64)) != 0 && c.bits[other/64]&(1<<(other%64)) != 0
}
