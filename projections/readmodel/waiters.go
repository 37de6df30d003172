package readmodel

import "container/heap"

// A waiter waits until the read model has passed a position.
type waiter struct {
	position uint64
	passed   chan struct{} // closed then
	index    int           // in the heap; -1 after removal
}

// waiters is a heap with the smallest position on top, so a batch wakes those whose
// position it passed and touches no others.
type waiters []*waiter

func (w waiters) Len() int           { return len(w) }
func (w waiters) Less(i, j int) bool { return w[i].position < w[j].position }
func (w waiters) Swap(i, j int) {
	w[i], w[j] = w[j], w[i]
	w[i].index, w[j].index = i, j
}

// Push implements heap.Interface.
func (w *waiters) Push(x any) {
	one := x.(*waiter)
	one.index = len(*w)
	*w = append(*w, one)
}

// Pop implements heap.Interface.
func (w *waiters) Pop() any {
	old := *w
	one := old[len(old)-1]
	old[len(old)-1] = nil
	*w = old[:len(old)-1]
	one.index = -1
	return one
}

func (w *waiters) add(position uint64) *waiter {
	one := &waiter{position: position, passed: make(chan struct{})}
	heap.Push(w, one)
	return one
}

func (w *waiters) remove(one *waiter) {
	if one.index >= 0 {
		heap.Remove(w, one.index)
	}
}

// release wakes all who wait for this position or an earlier one.
func (w *waiters) release(passed uint64) {
	for len(*w) > 0 && (*w)[0].position <= passed {
		close(heap.Pop(w).(*waiter).passed)
	}
}
