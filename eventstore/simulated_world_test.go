package eventstore

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// A world is everything that one seed makes: chance, time, the log, the network,
// the nodes and their clients. It lives in a synctest bubble, where time passes
// only while all goroutines wait. Whatever happens in it has an instant of its own,
// so one goroutine at a time goes on, and one seed makes one schedule. What remains
// to chance are two instants of a context and an event that fall on one nanosecond.
//
// Functions that w.after calls hold mu; so do those that say nothing else, save the
// ones that production code or a client calls.
type world struct {
	mu     sync.Mutex
	rng    *rand.Rand
	begin  time.Time
	taken  map[int64]bool // instants at which something happens, in ns of the epoch
	calm   bool           // no trouble begins any more
	faults faults
	pace   time.Duration  // clients pause that long at most
	counts map[string]int // what was injected, and what was answered

	log      *simulatedLog
	nodes    []*node
	attempts []*attempt
	errands  []*errand // those with a key

	tracing bool
	trace   []string
}

// faults are the trouble of one seed. Each seed has some kinds of it and none of
// the others: a fault that is always there hides what another one would show.
type faults struct {
	replicated bool // a leader that can change, and replicas that lag
	barrier    bool // acknowledges before it syncs
	embedded   bool // one node, whose power can be cut
	constant   bool // a conflict is 10164 whatever its cause

	// In percent of the occasions.
	requestLost, requestLate, requestTwice int
	answerLost, answerLate, answerTwice    int
	batchTorn, storeFails, resources       int
	replicaLags, quorumSlow, syncSlow      int
	serverFails                            int // while it writes
}

func newWorld(seed uint64, tracing bool) *world {
	w := &world{
		rng: rand.New(rand.NewPCG(seed, 0)), begin: time.Now(), taken: map[int64]bool{},
		counts: map[string]int{}, tracing: tracing,
	}
	percent := func() int { return []int{0, 0, 3, 10, 30}[w.rng.IntN(5)] }
	f := &w.faults
	switch w.rng.IntN(8) {
	case 0:
		f.barrier = w.rng.IntN(2) == 0
	case 1, 2:
		f.barrier, f.embedded = true, true
	default:
		f.replicated, f.constant = true, w.rng.IntN(2) == 0
	}
	for _, p := range []*int{
		&f.requestLost, &f.requestLate, &f.requestTwice, &f.answerLost, &f.answerLate, &f.answerTwice,
		&f.batchTorn, &f.replicaLags, &f.quorumSlow, &f.syncSlow,
	} {
		*p = percent()
	}
	f.serverFails = percent() / 3
	w.pace = []time.Duration{10 * time.Millisecond, 200 * time.Millisecond, time.Second}[w.rng.IntN(3)]
	if w.rng.IntN(4) == 0 {
		f.storeFails, f.resources = percent()/3, percent()/3
	}
	w.note("%+v", *f)
	w.log = &simulatedLog{world: w, staged: map[string]*stagedBatch{}}
	return w
}

// now is the time since the world began.
func (w *world) now() time.Duration { return time.Since(w.begin) }

// unique returns d, or a little more, such that nothing else happens at that time
// from now.
func (w *world) unique(d time.Duration) time.Duration {
	at := time.Now().Add(max(d, 1)).UnixNano()
	for w.taken[at] {
		at++
	}
	w.taken[at] = true
	return time.Duration(at - time.Now().UnixNano())
}

// after has f happen in a time.
func (w *world) after(d time.Duration, f func()) {
	time.AfterFunc(w.unique(d), func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		f()
	})
}

// sleep lets a client wait for a time between two; it takes mu itself.
func (w *world) sleep(least, most time.Duration) {
	w.mu.Lock()
	d := w.unique(w.between(least, most))
	w.mu.Unlock()
	time.Sleep(d)
}

// jitter draws the pauses of a Log; it takes mu itself.
func (w *world) jitter(longest time.Duration) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.unique(time.Millisecond+time.Duration(w.rng.Int64N(int64(longest)))) - time.Millisecond
}

func (w *world) between(least, most time.Duration) time.Duration {
	return least + time.Duration(w.rng.Int64N(int64(most-least)))
}

// skewed is mostly nearer to the least time, in all orders of magnitude.
func (w *world) skewed(least, most time.Duration) time.Duration {
	for w.rng.IntN(2) == 0 && most > 4*least {
		most /= 3
	}
	return w.between(least, most)
}

func (w *world) chance(percent int) bool { return w.rng.IntN(100) < percent }

// hit says whether a fault that comes in so many percent of the occasions comes now.
func (w *world) hit(percent int, what string) bool {
	if percent == 0 || w.calm || !w.chance(percent) {
		return false
	}
	w.count(what)
	w.note("%s", what)
	return true
}

func (w *world) count(what string) { w.counts[what]++ }

// note adds a line to the trace. Ids of events are left out: they are not the
// seed's.
func (w *world) note(format string, args ...any) {
	if w.tracing {
		w.trace = append(w.trace, fmt.Sprintf("%14v ", w.now())+fmt.Sprintf(format, args...))
	}
}
