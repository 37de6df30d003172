package eventstore

import (
	"sync"
	"time"

	"chatsessions/domain"
)

// A tail hands the events that this process appends to its followers, so that they need not
// read and decode them. Followers read events that the tail does not have from the log.
type tail struct {
	capacity int           // how many bytes a reader may leave in the tail, about
	patience time.Duration // how long an event may be missing while later ones are there
	check    time.Duration // how often a reader without events asks for the log's end

	mu      sync.Mutex
	readers map[*tailReader]struct{}
}

func newTail() *tail {
	return &tail{
		capacity: 64 << 20, patience: 25 * time.Millisecond, check: 100 * time.Millisecond,
		readers: map[*tailReader]struct{}{},
	}
}

// A tailReader is one follower's end of the tail.
type tailReader struct {
	tail   *tail
	next   uint64               // position of the next event that the follower needs
	events map[uint64]tailEvent // by position
	bytes  int                  // of the events, about
	more   chan struct{}        // holds one element when events were added
}

type tailEvent struct {
	*domain.Entry
	last bool // of its write
}

// size returns about how many bytes the event takes, with its session in three forms.
func (e tailEvent) size() int { return 512 + 3*len(e.Record.Encoded) }

// open returns a reader of the events that are put after it.
func (t *tail) open() *tailReader {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := &tailReader{tail: t, events: map[uint64]tailEvent{}, more: make(chan struct{}, 1)}
	t.readers[r] = struct{}{}
	return r
}

// put adds the events of one write. They are in the log, and may not be durable yet.
func (t *tail) put(events []domain.Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for r := range t.readers {
		r.put(events)
	}
}

func (r *tailReader) put(events []domain.Entry) {
	if events[0].Record.Position < r.next { // the follower has read it from the log
		return
	}
	if r.bytes > r.tail.capacity {
		clear(r.events) // the follower notices the gap
		r.bytes = 0
	}
	for i := range events {
		e := tailEvent{&events[i], i == len(events)-1}
		r.events[e.Record.Position] = e
		r.bytes += e.size()
	}
	select {
	case r.more <- struct{}{}:
	default:
	}
}

func (r *tailReader) close() {
	r.tail.mu.Lock()
	defer r.tail.mu.Unlock()
	delete(r.tail.readers, r)
}

// skip drops the events up to a position, and reports whether the next one is there.
func (r *tailReader) skip(position uint64) bool {
	r.tail.mu.Lock()
	defer r.tail.mu.Unlock()
	r.next = position + 1
	for p, e := range r.events {
		if p < r.next {
			r.remove(e)
		}
	}
	_, ok := r.events[r.next]
	return ok
}

func (r *tailReader) remove(e tailEvent) {
	delete(r.events, e.Record.Position)
	r.bytes -= e.size()
}

// take removes and returns the next whole writes without a gap, about limit events at most.
// gap reports that there are events after a gap.
func (r *tailReader) take(limit int) (taken []domain.Entry, gap bool) {
	r.tail.mu.Lock()
	defer r.tail.mu.Unlock()
	for {
		e, ok := r.events[r.next]
		if !ok {
			return taken, len(r.events) > 0
		}
		r.remove(e)
		r.next++
		taken = append(taken, *e.Entry)
		if e.last && len(taken) >= limit {
			return taken, false
		}
	}
}
