package http

import "sort"

// A feedRing keeps the newest events, as batches.
type feedRing struct {
	floor, head         uint64 // it has the events after floor, up to head
	batches             []*feedBatch
	events, bytes       int
	maxEvents, maxBytes int
}

func (r *feedRing) add(b *feedBatch) {
	r.head = b.last
	r.batches = append(r.batches, b)
	r.events += len(b.events)
	r.bytes += b.size()
	for len(r.batches) > 1 && (r.events > r.maxEvents || r.bytes > r.maxBytes) {
		oldest := r.batches[0]
		r.batches[0] = nil // the array behind the slice lives on for a while
		r.batches = r.batches[1:]
		r.events -= len(oldest.events)
		r.bytes -= oldest.size()
		r.floor = oldest.last
	}
}

// after returns the batch with the event that follows the position, nil where the ring
// does not have that.
func (r *feedRing) after(position uint64) *feedBatch {
	if position < r.floor || position >= r.head {
		return nil
	}
	return r.batches[sort.Search(len(r.batches), func(i int) bool { return r.batches[i].last > position })]
}
