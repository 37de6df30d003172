package feed

import "sort"

// A ring keeps the newest events, as batches.
type ring struct {
	floor, head         uint64 // it has the events after floor, up to head
	batches             []*batch
	events, bytes       int
	maxEvents, maxBytes int
}

func (r *ring) add(b *batch) {
	r.head = b.last
	r.batches = append(r.batches, b)
	r.events += len(b.events)
	r.bytes += b.size()
	for len(r.batches) > 1 && (r.events > r.maxEvents || r.bytes > r.maxBytes) {
		oldest := r.batches[0]
		r.batches[0] = nil // the array behind the slice stays for a while
		r.batches = r.batches[1:]
		r.events -= len(oldest.events)
		r.bytes -= oldest.size()
		r.floor = oldest.last
	}
}

// after returns the batch with the event that follows the position, or nil.
func (r *ring) after(position uint64) *batch {
	if position < r.floor || position >= r.head {
		return nil
	}
	return r.batches[sort.Search(len(r.batches), func(i int) bool { return r.batches[i].last > position })]
}
