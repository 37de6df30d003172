package readmodel

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"chatsessions/projections"
	"chatsessions/projections/layout"
)

const (
	probeEvery = projections.Bound / 10
	// probeLife is below Bound by a margin for clocks that run at different speeds.
	probeLife = projections.Bound - probeEvery
	// logBehindFor is how many probes in a row must find the log's end before a known
	// position until that position is dropped.
	logBehindFor = 5
)

// Reasons to give no answer.
var (
	// errUntrusted: an answer might lack an answered write. It is wrapped with a reason.
	errUntrusted = errors.New("the read model cannot be trusted now")
	// errMoved: another generation is live now.
	errMoved = errors.New("the read model was rebuilt")
)

// A probe is one look at the log's end.
type probe struct {
	asked time.Time // before the request was sent
	end   uint64
	epoch uint64 // number of connections made by then
}

// A ticket says what the read model must hold for an answer to be given. It is drawn
// before the read is sent, so no delay or retry of the read can weaken it.
type ticket struct {
	identity   string
	generation string // that is read
	need       uint64
	epoch      uint64 // number of connections made before
}

// freshness is what a node knows about the progress of log and read model.
type freshness struct {
	mu          sync.Mutex
	shown       uint64   // the largest position that this node has shown a client
	passed      []uint64 // the largest position known to be projected, by partition
	generations []string // the live ones, by partition; "" if unknown
	probes      []probe  // oldest first: those of the last Bound, and one or two before
	logBehind   int      // how many probes in a row found the log's end before a known position
	newest      Status   // as of the newest probe; Trusted is computed when asked for
	distrusted  string   // why nothing can be trusted, whatever the probes say; "" for no reason

	waiting       waiters
	awaitingTrust int           // how many wait for trusted
	trusted       chan struct{} // closed and replaced when the read model is found trustworthy
	awaited       chan struct{} // signaled when a wait begins
	probeNow      chan struct{} // signaled to request a probe at once
}

func newFreshness(partitions int) *freshness {
	return &freshness{
		passed:      make([]uint64, partitions),
		generations: make([]string, partitions),
		distrusted:  "checkpoint and log have not been compared yet",
		trusted:     make(chan struct{}),
		awaited:     make(chan struct{}, 1),
		probeNow:    make(chan struct{}, 1),
	}
}

// ticket draws a ticket for a read of a partition that begins now, after epoch connections.
// A new connection may lead to a server with an older copy, so only a probe sent after it
// says what an answer has to hold.
func (f *freshness) ticket(partition int, identity string, epoch uint64, now time.Time) (ticket, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.distrusted != "" {
		return ticket{}, fmt.Errorf("%w: %s", errUntrusted, f.distrusted)
	}
	t := ticket{identity: identity, generation: f.generations[partition], epoch: epoch}
	if t.generation == "" {
		return t, fmt.Errorf("%w: there is none yet", errUntrusted)
	}
	for _, p := range f.probes { // the oldest valid one demands the least
		if p.epoch == epoch && age(now, p.asked) <= probeLife {
			t.need = max(f.shown, f.passed[partition], p.end)
			return t, nil
		}
	}
	return t, fmt.Errorf("%w: the end of the log is not known", errUntrusted)
}

// age is the longer of monotonic and wall-clock time. The monotonic clock stands still
// while a machine sleeps.
func age(now, then time.Time) time.Duration {
	return max(now.Sub(then), now.Round(0).Sub(then.Round(0)))
}

// check returns the checkpoint of an answer, and an error if it must not be given.
func (t *ticket) check(text string) (layout.Checkpoint, error) {
	c, ok := layout.ParseCheckpoint(text)
	switch {
	case text == "":
		return c, fmt.Errorf("%w: it is empty", errUntrusted)
	case !ok:
		return c, fmt.Errorf("%w: it is damaged", errUntrusted)
	case c.Identity != t.identity:
		return c, fmt.Errorf("%w: it is of another log", errUntrusted)
	case c.Generation != t.generation:
		return c, errMoved
	case c.Position < t.need:
		return c, fmt.Errorf("%w: it is at position %d, and %d may have been answered", errUntrusted, c.Position, t.need)
	case c.State != layout.Projected:
		return c, fmt.Errorf("%w: it is being filled", errUntrusted)
	}
	return c, nil
}

// recordProjected records a checkpoint that was seen.
func (f *freshness) recordProjected(partition int, generation string, position uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if generation != "" {
		f.generations[partition] = generation
	}
	if position <= f.passed[partition] {
		return
	}
	f.passed[partition] = position
	f.waiting.release(f.passedByAll())
}

// passedByAll is the position that all partitions have passed.
func (f *freshness) passedByAll() uint64 { return slices.Min(f.passed) }

// recordShown records a position that a client is shown.
func (f *freshness) recordShown(position uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shown = max(f.shown, position)
}

// highest is the largest position known to have been in the log.
func (f *freshness) highest() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return max(f.shown, slices.Max(f.passed))
}

// recordProbe records a probe and its result. before is the highest position known before
// it, compared says whether the checkpoints were read then. A log that ends before a known
// position has lost events that the read model still holds.
func (f *freshness) recordProbe(p probe, before uint64, compared bool, result Status) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.newest = result
	if p.end < before {
		f.distrusted = fmt.Sprintf("the log ends at %d, and %d had been seen", p.end, before)
		f.probes = nil
		if f.logBehind++; f.logBehind >= logBehindFor {
			f.shown, f.logBehind = 0, 0 // the next probe starts over
			clear(f.passed)
		}
		return
	}
	f.logBehind = 0
	if compared {
		f.distrusted = ""
	}
	for len(f.probes) > 2 && p.asked.Sub(f.probes[2].asked) >= projections.Bound {
		f.probes = f.probes[1:]
	}
	f.probes = append(f.probes, p)
}

// distrust withholds all answers for a reason, until the next probe.
func (f *freshness) distrust(doubt string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.distrusted, f.probes = doubt, nil
}

// staleFor is how long another node may still answer without the position: until Bound has
// passed since the start of the probe after the one that showed it. With others, nodes have
// read models of their own, so it does not matter that this one has passed the position.
func (f *freshness) staleFor(position uint64, now time.Time, others bool) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !others && position <= f.passedByAll() {
		return 0
	}
	for i, next := range f.probes {
		if i > 0 && f.probes[i-1].end >= position {
			return max(0, projections.Bound-now.Sub(next.asked))
		}
	}
	return projections.Bound
}

// wait returns a waiter for the position, nil if it has been passed.
func (f *freshness) wait(position uint64) *waiter {
	f.mu.Lock()
	defer f.mu.Unlock()
	if position <= f.passedByAll() {
		return nil
	}
	signal(f.awaited)
	return f.waiting.add(position)
}

func (f *freshness) forget(w *waiter) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting.remove(w)
}

// awaitTrusted returns a channel that is closed when the read model is next found
// trustworthy. Call done after the wait.
func (f *freshness) awaitTrusted() (healed <-chan struct{}, done func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.awaitingTrust++
	signal(f.awaited)
	signal(f.probeNow)
	return f.trusted, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.awaitingTrust--
	}
}

// announceTrusted wakes those who wait for trust.
func (f *freshness) announceTrusted() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.trusted)
	f.trusted = make(chan struct{})
}

// demand returns how many wait for a position, how many for trust, and the position that
// all partitions have passed.
func (f *freshness) demand() (positions, doubters int, passed uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.waiting), f.awaitingTrust, f.passedByAll()
}

func (f *freshness) status(now time.Time) Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.newest
	for _, p := range f.probes {
		if age(now, p.asked) <= probeLife {
			s.Trusted = f.distrusted == "" && s.Projected >= p.end
			break
		}
	}
	return s
}

// signal sends to a channel with room for one message, unless one is there.
func signal(to chan<- struct{}) {
	select {
	case to <- struct{}{}:
	default:
	}
}
