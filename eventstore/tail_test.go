package eventstore

import (
	"testing"

	"chatsessions/domain"
)

func oneWrite(positions ...uint64) []domain.Entry {
	var events []domain.Entry
	for _, p := range positions {
		events = append(events, domain.Entry{Record: &domain.Record{Position: p, Encoded: make([]byte, 100)}})
	}
	return events
}

func positions(events []domain.Entry) []uint64 {
	var all []uint64
	for _, e := range events {
		all = append(all, e.Record.Position)
	}
	return all
}

func TestTheTailGivesWholeWritesInOrder(t *testing.T) {
	tail := newTail()
	r := tail.open()
	r.skip(4)
	tail.put(oneWrite(8))
	if taken, gap := r.take(10); len(taken) != 0 || !gap {
		t.Errorf("took %v, gap %v", positions(taken), gap)
	}
	tail.put(oneWrite(5, 6, 7))
	if taken, gap := r.take(1); len(taken) != 3 || taken[0].Record.Position != 5 || gap {
		t.Errorf("took %v, gap %v: a write was cut", positions(taken), gap)
	}
	if taken, gap := r.take(10); len(taken) != 1 || taken[0].Record.Position != 8 || gap {
		t.Errorf("took %v, gap %v", positions(taken), gap)
	}
	if r.bytes != 0 || len(r.events) != 0 {
		t.Errorf("%d events of %d bytes are left", len(r.events), r.bytes)
	}
}

// The acknowledgement of an event can come after the event was read from the log.
func TestTheTailKeepsNothingThatWasReadAlready(t *testing.T) {
	tail := newTail()
	r := tail.open()
	tail.put(oneWrite(1))
	if r.skip(9) {
		t.Error("it has an event that was never put")
	}
	tail.put(oneWrite(9))
	if len(r.events) != 0 || r.bytes != 0 {
		t.Errorf("%d events of %d bytes are kept", len(r.events), r.bytes)
	}
	tail.put(oneWrite(10))
	if taken, _ := r.take(10); len(taken) != 1 {
		t.Errorf("took %v", positions(taken))
	}
	r.close()
	tail.put(oneWrite(11))
	if len(r.events) != 0 {
		t.Error("a reader that was closed gets events")
	}
}

// A follower that does not come to read must not fill the memory.
func TestTheTailIsBoundedInBytes(t *testing.T) {
	tail := newTail()
	tail.capacity = 10_000
	r := tail.open()
	for p := uint64(1); p <= 1000; p++ {
		tail.put(oneWrite(p))
		if r.bytes > 2*tail.capacity {
			t.Fatalf("%d bytes are kept", r.bytes)
		}
	}
	if taken, gap := r.take(10); len(taken) != 0 || !gap {
		t.Errorf("took %v, gap %v: what was dropped is missing", positions(taken), gap)
	}
}
