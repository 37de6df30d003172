package eventstore

import (
	"sync"
	"time"

	"chatsessions/domain"
)

const (
	// tailLength is how many events a reader may leave in the tail; with more, it
	// has to read the log.
	tailLength = 8192
	// tailCheck is how often a reader asks for the log's end, in case something was
	// written of which no acknowledgement came.
	tailCheck = 100 * time.Millisecond
)

// A tail hands the events that this process appends to the followers in the same
// process, so that they need not read, and decode, what was just written. It serves
// in front of an embedded log, to which nobody else writes.
type tail struct {
	mu      sync.Mutex
	readers map[*tailReader]struct{}
}

// A tailReader is one follower's end of the tail.
type tailReader struct {
	tail   *tail
	events map[uint64]tailEvent // by position
	more   chan struct{}        // holds one element when events were added
}

type tailEvent struct {
	*domain.Recorded
	last bool // of its write
}

// open returns a reader of the events that are put from now on.
func (t *tail) open() *tailReader {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := &tailReader{tail: t, events: map[uint64]tailEvent{}, more: make(chan struct{}, 1)}
	if t.readers == nil {
		t.readers = map[*tailReader]struct{}{}
	}
	t.readers[r] = struct{}{}
	return r
}

// put adds the events of one write, which are in the log and perhaps not yet on disk.
func (t *tail) put(events []domain.Recorded) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for r := range t.readers {
		if len(r.events) >= tailLength {
			clear(r.events) // the reader notices the gap
		}
		for i := range events {
			r.events[events[i].Position] = tailEvent{&events[i], i == len(events)-1}
		}
		select {
		case r.more <- struct{}{}:
		default:
		}
	}
}

func (r *tailReader) close() {
	r.tail.mu.Lock()
	defer r.tail.mu.Unlock()
	delete(r.tail.readers, r)
}

// has says whether the event at a position is there.
func (r *tailReader) has(position uint64) bool {
	r.tail.mu.Lock()
	defer r.tail.mu.Unlock()
	_, ok := r.events[position]
	return ok
}

// forget drops the events up to a position.
func (r *tailReader) forget(position uint64) {
	r.tail.mu.Lock()
	defer r.tail.mu.Unlock()
	for p := range r.events {
		if p <= position {
			delete(r.events, p)
		}
	}
}

// take removes the events that follow a position without a gap, whole writes and
// about limit at most, and returns them.
func (r *tailReader) take(after uint64, limit int) []domain.Recorded {
	r.tail.mu.Lock()
	defer r.tail.mu.Unlock()
	var taken []domain.Recorded
	for next := after + 1; ; next++ {
		e, ok := r.events[next]
		if !ok {
			return taken
		}
		delete(r.events, next)
		taken = append(taken, *e.Recorded)
		if e.last && len(taken) >= limit {
			return taken
		}
	}
}
