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
	// probeLife stays below Bound by a margin for clocks that run unequally fast.
	probeLife = projections.Bound - probeEvery
	// behindFor is how many probes in a row must say that the log ends before a
	// position which this node knows, until the position is given up.
	logBehindFor = 5
)

// Why the read model's answer was not given.
var (
	// errUntrusted: it may lack something that was answered; always wrapped with a reason.
	errUntrusted = errors.New("the read model cannot be trusted now")
	// errMoved: another generation of the read model answers now.
	errMoved = errors.New("the read model was rebuilt")
)

// A probe is one look at the end of the log.
type probe struct {
	asked time.Time // before the question was sent
	end   uint64
	epoch uint64 // how many connections to Redis had been made by then
}

// A ticket says what the read model must have passed for an answer to be given.
// It is drawn before the question is sent: what happens later, on a connection
// that is delayed or tried again, cannot soften it.
type ticket struct {
	identity   string
	generation string // of the read model, in which is read
	need       uint64
	epoch      uint64 // how many connections to Redis had been made before
}

// freshness is what a node knows about how far the log and the read model are.
type freshness struct {
	mu          sync.Mutex
	shown       uint64   // the largest position that this node has shown to a client
	passed      []uint64 // the largest position that this node has seen projected, by partition
	generations []string // that answer, by partition; "" while that is not known
	probes      []probe  // oldest first, those of the last Bound and one or two before
	logBehind   int      // how many probes in a row found the log's end before floor
	newest      Status   // as of the newest probe; Trusted is not kept
	distrusted  string   // why nothing can be trusted, whatever the probes say; "" for nothing

	waiting       waiters
	awaitingTrust int           // how many wait for healed
	trusted       chan struct{} // closed and replaced when the read model was shown to be trustworthy
	awaited       chan struct{} // told when somebody begins to wait
	probeNow      chan struct{} // told when a probe is wanted at once
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

// ticket draws a ticket for a read of a partition that begins now. epoch is how many
// connections to Redis have been made: behind a new one there may be another server,
// with an older copy, so only a look at the log's end that was asked for after it
// says what an answer has to hold.
func (f *freshness) ticket(shard int, identity string, epoch uint64, now time.Time) (ticket, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.distrusted != "" {
		return ticket{}, fmt.Errorf("%w: %s", errUntrusted, f.distrusted)
	}
	t := ticket{identity: identity, generation: f.generations[shard], epoch: epoch}
	if t.generation == "" {
		return t, fmt.Errorf("%w: there is none yet", errUntrusted)
	}
	for _, p := range f.probes { // the oldest that counts demands the least
		if p.epoch == epoch && age(now, p.asked) <= probeLife {
			t.need = max(f.shown, f.passed[shard], p.end)
			return t, nil
		}
	}
	return t, fmt.Errorf("%w: the end of the log is not known", errUntrusted)
}

// age is the longer of what the monotonic and the wall clock say: the former
// stands still while a machine sleeps.
func age(now, then time.Time) time.Duration {
	return max(now.Sub(then), now.Round(0).Sub(then.Round(0)))
}

// check judges the checkpoint that came with an answer, and returns it, the zero one
// where it cannot be read.
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

// projected records a checkpoint that the read model has been seen to have.
func (f *freshness) recordProjected(shard int, generation string, position uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if generation != "" {
		f.generations[shard] = generation
	}
	if position <= f.passed[shard] {
		return
	}
	f.passed[shard] = position
	f.waiting.release(f.passedByAll())
}

// everywhere is the position that all partitions have passed.
func (f *freshness) passedByAll() uint64 { return slices.Min(f.passed) }

// observe records a position that a client has been shown.
func (f *freshness) recordShown(position uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shown = max(f.shown, position)
}

// highest is the largest position that is known to have been in the log.
func (f *freshness) highest() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return max(f.shown, slices.Max(f.passed))
}

// probed records a look at the log's end. before is the floor before it was
// asked for, compared says whether the checkpoint had been read then: an end
// before a position that is known to be projected means that the log has lost
// events, and then the read model holds what the log does not.
func (f *freshness) recordProbe(p probe, before uint64, compared bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.end < before {
		f.distrusted = fmt.Sprintf("the log ends at %d, and %d had been seen", p.end, before)
		f.probes = nil
		if f.logBehind++; f.logBehind >= logBehindFor {
			f.shown, f.logBehind = 0, 0 // the next probe begins anew
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

// distrust gives the reason why nothing can be trusted, until the next look.
func (f *freshness) distrust(doubt string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.distrusted, f.probes = doubt, nil
}

// unsettled is how long from now on another node may still answer from a read model
// that is older than the position: until Bound has gone by since the position was in
// the log, which is no later than when the probe after the one that told it was asked.
// Where nodes have other read models, it does not help that this one has passed it.
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

// wait returns a waiter for the position, nil when it has been passed.
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

// awaitHealing returns a channel that is closed when the read model is next
// shown to be trustworthy. Call done when nobody listens any more.
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

// heal wakes those who wait for the read model to be trustworthy.
func (f *freshness) announceTrusted() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.trusted)
	f.trusted = make(chan struct{})
}

// demand says who waits: for a position, and for the read model to be
// trustworthy; and which position has been passed.
func (f *freshness) demand() (positions, doubters int, passed uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.waiting), f.awaitingTrust, f.passedByAll()
}

// signal tells a channel with room for one message, unless it was told already.
func signal(to chan<- struct{}) {
	select {
	case to <- struct{}{}:
	default:
	}
}
