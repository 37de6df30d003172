package http

import (
	"slices"
	"sync"

	"chatsessions/http/conn"
)

// A feedRoom is where readers wait that have everything up to the newest event. It knows
// who may want an event, so that the others cost nothing.
type feedRoom struct {
	mu      sync.Mutex
	closed  bool
	head    uint64 // up to here, those who wait have been sent what they get
	readers []*feedReader
	by      map[feedTopic][]*feedReader
	pending []feedSend // of the batch that is being delivered; kept for the next
	scratch []byte
}

// A feedTopic is what readers wait for: a session, or what an account has to do with.
// The zero value is everything.
type feedTopic struct {
	session bool
	name    string
}

// A feedSend is what one reader gets of a batch.
type feedSend struct {
	reader *feedReader
	wanted []int
}

func newFeedRoom(head uint64) *feedRoom {
	return &feedRoom{head: head, by: map[feedTopic][]*feedReader{}, scratch: make([]byte, 0, 2*feedChunk)}
}

// topics are those under which a reader is found for every event that it gets.
func (r *feedReader) topics(yield func(feedTopic)) {
	switch {
	case len(r.sessions) > 0:
		for _, id := range r.sessions {
			yield(feedTopic{true, id})
		}
	case !r.caller.SeesAll():
		yield(feedTopic{false, r.caller.Account})
	case len(r.accounts) > 0:
		for _, account := range r.accounts {
			yield(feedTopic{false, account})
		}
	default:
		yield(feedTopic{})
	}
}

// topics are those of an event.
func (e *feedEvent) topics(yield func(feedTopic)) {
	yield(feedTopic{})
	yield(feedTopic{true, e.session.ID})
	if e.unreadable {
		return
	}
	yield(feedTopic{false, e.session.CreatedBy})
	yield(feedTopic{false, e.actor})
	for _, account := range e.session.Participants {
		yield(feedTopic{false, account})
	}
}

// enter takes a reader in; false when nobody is any more.
func (m *feedRoom) enter(r *feedReader) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	r.live, r.place = true, len(m.readers)
	m.readers = append(m.readers, r)
	r.topics(func(t feedTopic) {
		if !slices.Contains(m.by[t], r) {
			m.by[t] = append(m.by[t], r)
		}
	})
	return true
}

// remove takes a reader out; it has then been sent everything up to after. The room is
// locked.
func (m *feedRoom) remove(r *feedReader) {
	last := len(m.readers) - 1
	m.readers[r.place], m.readers[last].place = m.readers[last], r.place
	m.readers[last] = nil
	m.readers = m.readers[:last]
	r.topics(func(t feedTopic) {
		at := slices.Index(m.by[t], r)
		if at < 0 {
			return
		}
		rest := slices.Delete(m.by[t], at, at+1)
		if m.by[t] = rest; len(rest) == 0 {
			delete(m.by, t)
		}
	})
}

// deliver sends a batch to those who get something of it.
func (m *feedRoom) deliver(g *reading, b *feedBatch) {
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
		g.hub.counts.sent.Add(uint64(sent))
		m.judge(g, r, rest, all, err)
	}
	clearSends(sends)
}

// sendsOf finds out what each reader gets of a batch.
func (m *feedRoom) sendsOf(b *feedBatch) []feedSend {
	sends := m.pending[:0]
	for i := range b.events {
		e := &b.events[i]
		e.topics(func(t feedTopic) {
			for _, r := range m.by[t] {
				if e.position <= r.after || !r.gets(e) {
					continue
				}
				if r.batch == 0 {
					sends = nextSend(sends, r)
					r.batch = len(sends)
				}
				// An event may be found under several topics.
				if s := &sends[r.batch-1]; len(s.wanted) == 0 || s.wanted[len(s.wanted)-1] != i {
					s.wanted = append(s.wanted, i)
				}
			}
		})
	}
	m.pending = sends
	return sends
}

// nextSend appends a send, with the room that one before it had for its events.
func nextSend(sends []feedSend, r *feedReader) []feedSend {
	if len(sends) == cap(sends) {
		return append(sends, feedSend{reader: r})
	}
	sends = sends[:len(sends)+1]
	s := &sends[len(sends)-1]
	s.reader, s.wanted = r, s.wanted[:0]
	return sends
}

func clearSends(sends []feedSend) {
	for i := range sends {
		sends[i].reader.batch = 0
		sends[i].reader = nil
	}
}

// judge keeps a reader that has taken everything, and gives up one whose client is gone.
// Any other is taken care of elsewhere until it has taken the rest.
func (m *feedRoom) judge(g *reading, r *feedReader, rest []byte, all bool, err error) {
	if err == nil && all {
		return
	}
	m.remove(r)
	if err != nil {
		g.hub.counts.gone.Add(1)
		g.leave(r)
		return
	}
	g.pursue(r, rest)
}

// beat gives those whose turn it is their heartbeat, unless their client is gone or
// their token is not valid any more.
func (m *feedRoom) beat(g *reading, phase uint8) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var turn []*feedReader
	for _, r := range m.readers {
		if r.phase == phase {
			turn = append(turn, r)
		}
	}
	for _, r := range turn {
		r.after = max(r.after, m.head)
		if err := g.hub.check(r); err != nil {
			m.remove(r)
			g.hub.running.Go(func() { g.dismiss(r, nil, err) }) // a last event may take a while
			continue
		}
		beat := appendHeartbeat(make([]byte, 0, 48), r.after)
		taken, err := conn.TryWrite(r.conn, beat)
		m.judge(g, r, beat[taken:], taken == len(beat), err)
	}
}

// close empties the room for good, and returns who waited there.
func (m *feedRoom) close() []*feedReader {
	m.mu.Lock()
	defer m.mu.Unlock()
	readers := m.readers
	for _, r := range readers {
		r.after = max(r.after, m.head)
	}
	m.closed, m.readers, m.by = true, nil, nil
	return readers
}
