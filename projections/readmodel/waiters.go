package readmodel

import (
	"cmp"
	"slices"
)

// A waiter waits until the read model has passed a position.
type waiter struct {
	position uint64
	passed   chan struct{} // closed then
}

// waiters are in the order of their positions, so a batch wakes those whose position it
// passed and touches no others. A new position is usually the last one.
type waiters []*waiter

func (w *waiters) add(position uint64) *waiter {
	one := &waiter{position: position, passed: make(chan struct{})}
	*w = slices.Insert(*w, w.after(position), one)
	return one
}

// after returns the index of the first waiter for a later position.
func (w *waiters) after(position uint64) int {
	i, _ := slices.BinarySearchFunc(*w, position, func(one *waiter, position uint64) int {
		return cmp.Or(cmp.Compare(one.position, position), -1)
	})
	return i
}

func (w *waiters) remove(one *waiter) {
	if i := slices.Index(*w, one); i >= 0 {
		*w = slices.Delete(*w, i, i+1)
	}
}

// release wakes the waiters for this position and for earlier ones.
func (w *waiters) release(passed uint64) {
	n := w.after(passed)
	for _, one := range (*w)[:n] {
		close(one.passed)
	}
	*w = slices.Delete(*w, 0, n)
}
