package feed

import (
	"slices"
	"sync"

	"chatsessions/http/conn"
)

// A group is a shard of the live readers, and finds those that may want an event.
type group struct {
	reading *reading

	mu      sync.Mutex
	closed  bool
	head    uint64 // the readers were sent everything up to here
	readers map[*reader]struct{}
	by      map[topic][]*reader
	pending []pendingSend // of the batch that is being delivered; kept for the next
	scratch []byte
}

// A topic is what readers wait for: a session, an account, or, as the zero value, all events.
type topic struct {
	session bool
	name    string
}

// A pendingSend is what one reader gets of a batch.
type pendingSend struct {
	reader *reader
	wanted []int
}

func newGroup(g *reading, head uint64) *group {
	return &group{reading: g, head: head, readers: map[*reader]struct{}{}, by: map[topic][]*reader{}, scratch: make([]byte, 0, 2*chunk)}
}

// topics yields the topics of a reader. Each event that it gets has one of them.
func (r *reader) topics(yield func(topic)) {
	switch {
	case len(r.query.sessions) > 0:
		for _, id := range r.query.sessions {
			yield(topic{true, id})
		}
	case !r.caller.SeesAll():
		yield(topic{false, r.caller.Account})
	case len(r.query.accounts) > 0:
		for _, account := range r.query.accounts {
			yield(topic{false, account})
		}
	default:
		yield(topic{})
	}
}

// topics yields the topics of an event.
func (e *event) topics(yield func(topic)) {
	yield(topic{})
	yield(topic{true, e.session.ID})
	if e.unreadable {
		return
	}
	yield(topic{false, e.session.CreatedBy})
	yield(topic{false, e.actor})
	for _, account := range e.session.Participants {
		yield(topic{false, account})
	}
}

// enter adds a reader. It returns false when the group is closed.
func (m *group) enter(r *reader) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.reading.hub.move(r, live)
	r.wasLive = true
	m.readers[r] = struct{}{}
	r.topics(func(t topic) {
		if !slices.Contains(m.by[t], r) {
			m.by[t] = append(m.by[t], r)
		}
	})
	return true
}

// remove removes a reader, which is behind then. The caller holds m.mu.
func (m *group) remove(r *reader) {
	m.reading.hub.move(r, behind)
	delete(m.readers, r)
	r.topics(func(t topic) {
		m.by[t] = slices.DeleteFunc(m.by[t], func(other *reader) bool { return other == r })
		if len(m.by[t]) == 0 {
			delete(m.by, t)
		}
	})
}

// deliver sends a batch to the readers that get an event of it.
func (m *group) deliver(b *batch) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.head
	m.head = b.last
	if len(m.readers) == 0 {
		return
	}
	sends := m.sendsOf(b)
	for i := range sends {
		r := sends[i].reader
		r.after = max(r.after, before)
		rest, sent, all, err := r.send(b, sends[i].wanted, m.scratch, func(bytes []byte) (int, error) { return conn.TryWrite(r.conn, bytes) })
		m.reading.hub.counts.sent.Add(uint64(sent))
		r.pending, sends[i].reader = 0, nil
		m.written(r, rest, all, err)
	}
}

// sendsOf returns what each reader gets of a batch.
func (m *group) sendsOf(b *batch) []pendingSend {
	sends := m.pending[:0]
	for i := range b.events {
		e := &b.events[i]
		e.topics(func(t topic) {
			for _, r := range m.by[t] {
				if e.position <= r.after || !r.gets(e) {
					continue
				}
				if r.pending == 0 {
					sends = slices.Grow(sends, 1)[:len(sends)+1]
					s := &sends[len(sends)-1] // perhaps an earlier one, whose memory is reused
					s.reader, s.wanted = r, s.wanted[:0]
					r.pending = len(sends)
				}
				// An event may have several of the reader's topics.
				if s := &sends[r.pending-1]; len(s.wanted) == 0 || s.wanted[len(s.wanted)-1] != i {
					s.wanted = append(s.wanted, i)
				}
			}
		})
	}
	m.pending = sends
	return sends
}

// written keeps a reader that took all that was written. The caller holds m.mu.
func (m *group) written(r *reader, rest []byte, all bool, err error) {
	if err == nil && all {
		return
	}
	m.remove(r)
	if err != nil {
		m.reading.hub.end(r, nil, errGone)
		return
	}
	m.reading.catchUp(r, rest)
}

// beat sends the heartbeats of a phase, and ends streams of clients that are gone or revoked.
func (m *group) beat(phase uint8) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.reading.hub
	for r := range m.readers {
		if r.phase != phase {
			continue
		}
		r.after = max(r.after, m.head)
		if reason := h.check(r); reason != nil {
			m.remove(r)
			h.running.Go(func() { h.end(r, nil, reason) }) // the last event may take a while
			continue
		}
		beat := appendHeartbeat(make([]byte, 0, 48), r.after)
		taken, err := conn.TryWrite(r.conn, beat)
		m.written(r, beat[taken:], taken == len(beat), err)
	}
}

// close empties the group for good, and returns its readers.
func (m *group) close() map[*reader]struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	readers := m.readers
	for r := range readers {
		r.after = max(r.after, m.head)
	}
	m.closed, m.readers, m.by = true, nil, nil
	return readers
}
