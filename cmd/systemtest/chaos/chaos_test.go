package chaos

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The chaos_… files run the real thing under load while a driver breaks it, record
// every request and answer, and compare them with the log afterwards. `make chaos`
// does it for as long as one wants.
var (
	chaosDuration = flag.Duration("chaos.duration", shortChaos, "how long each set-up of the chaos test is under faults")
	chaosSeed     = flag.Uint64("chaos.seed", 0, "the plan of faults to inject; 0 draws one, and prints it")
)

// shortChaos is how long `make test` puts each set-up under faults.
const shortChaos = 25 * time.Second

// roundLength is how long faults are injected before everything is healed and
// checked. The next round begins with an empty log, so that neither the memory of
// this process nor the time that a service takes to start grows with the duration.
const roundLength = 2 * time.Minute

func TestUnderChaosNothingAnsweredIsLostAndEveryAnswerIsTrue(t *testing.T) {
	seed := *chaosSeed
	for seed == 0 {
		seed = rand.Uint64()
	}
	for _, setup := range []struct {
		name  string
		build func(t *testing.T, r *round) *system
	}{
		{"embedded", embeddedSystem},
		{"cluster", clusterSystem},
	} {
		t.Run(setup.name, func(t *testing.T) {
			t.Logf("-chaos.seed %d -chaos.duration %s", seed, *chaosDuration)
			totals := newTotals()
			for number := 1; totals.underFaults < *chaosDuration && !t.Failed(); number++ {
				t.Run(fmt.Sprintf("round %d", number), func(t *testing.T) {
					r := &round{t: t, seed: seed, number: number, totals: totals}
					r.length = min(roundLength, *chaosDuration-totals.underFaults)
					r.run(setup.build(t, r))
				})
			}
			t.Logf("%s, seed %d:\n%s", setup.name, seed, totals)
		})
	}
}

// A round is one life of a system: load and faults, healing, checks.
type round struct {
	t       *testing.T
	seed    uint64
	number  int
	length  time.Duration // under faults
	totals  *totals
	history *history
	journal journal
	shared  [chaosSessions]atomic.Pointer[sharedSession]
}

// A system is what is put under load: nodes that serve the API of one log, and what
// disturbs them.
type system struct {
	nodes    []*node
	gremlins []*gremlin
}

// healedWithin bounds how long a system may take to answer again when the last
// fault is over.
const healedWithin = time.Minute

func (r *round) run(s *system) {
	began := time.Now()
	r.history = newHistory(r.t.Name(), began)
	r.journal.began = began

	faults, stopFaults := context.WithTimeout(r.t.Context(), r.length)
	defer stopFaults()
	load, stopLoad := context.WithCancel(r.t.Context())
	defer stopLoad()
	var disturbing, calling sync.WaitGroup
	for _, g := range s.gremlins {
		disturbing.Go(func() { r.disturb(faults, g) })
	}
	for i := range chaosClients {
		calling.Go(func() { newLoadClient(r, s.nodes, i).run(load) })
	}
	healed := make(chan struct{})
	go func() {
		disturbing.Wait()
		close(healed)
	}()
	r.report(healed)
	r.totals.underFaults += r.length

	err := s.awaitHealed(r.t.Context())
	stopLoad()
	calling.Wait()
	r.history.addTo(r.totals)
	r.totals.rounds++
	for _, n := range s.nodes {
		if ended := n.unexpectedEnd(); ended != nil {
			r.journal.violation(ended)
		}
	}
	if err == nil {
		// What was sent and not waited for may still be written.
		defer r.conclude() // also when a check gives up
		<-time.After(time.Until(r.history.lastAbandoned().Add(abandonedWithin)))
		check(r, s)
		return
	}
	r.journal.violation(err)
	r.conclude()
}

// disturb injects one fault after the other into one part of the system.
func (r *round) disturb(ctx context.Context, g *gremlin) {
	for f := range g.plan(r.seed, r.number) {
		if !sleep(ctx, f.wait) {
			return
		}
		r.totals.count(f)
		over := r.journal.begin(f)
		err := f.kind.inject(ctx, f)
		over()
		if err != nil {
			r.journal.violation(fmt.Errorf("%s: %w", f, err))
			return
		}
	}
}

// report prints a line now and then until all faults are over.
func (r *round) report(healed <-chan struct{}) {
	ticker := time.NewTicker(15 * time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			r.t.Logf("%s: %d faults so far; %s", time.Since(r.journal.began).Round(time.Second), r.totals.faultCount(), r.history.tally.String())
		case <-healed:
			return
		}
	}
}

// awaitHealed returns when every node takes a write and shows it in a list.
func (s *system) awaitHealed(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, healedWithin)
	defer cancel()
	for _, n := range s.nodes {
		for {
			err := n.answers()
			if err == nil {
				break
			}
			if !sleep(ctx, 100*time.Millisecond) {
				return fmt.Errorf("%s has not recovered %s after the last fault: %w", n.name, healedWithin, err)
			}
		}
	}
	return nil
}

// conclude fails the test where something was found, and tells what was injected.
func (r *round) conclude() {
	r.t.Helper()
	violations := r.journal.violations
	for i, v := range violations {
		if i == 5 {
			r.t.Errorf("and %d more", len(violations)-i)
			break
		}
		r.t.Error(v)
	}
	r.t.Logf("seed %d; what was injected, and when:\n%s", r.seed, strings.Join(r.journal.lines, "\n"))
}

// A journal notes what was injected and what was found.
type journal struct {
	began      time.Time
	mu         sync.Mutex
	lines      []string
	violations []error
}

// begin notes a fault; the function that it returns notes the end.
func (j *journal) begin(f injection) (over func()) {
	from := time.Since(j.began)
	j.mu.Lock()
	defer j.mu.Unlock()
	line := len(j.lines)
	j.lines = append(j.lines, fmt.Sprintf("%8.3fs  %s", from.Seconds(), f))
	return func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.lines[line] += fmt.Sprintf(", over at %.3fs", time.Since(j.began).Seconds())
	}
}

func (j *journal) violation(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.violations = append(j.violations, err)
}

// totals are the counts of all rounds of a set-up.
type totals struct {
	mu          sync.Mutex
	rounds      int
	underFaults time.Duration
	faults      map[string]int
	counts      map[string]int
	order       []string // of counts, as they came
}

func newTotals() *totals { return &totals{faults: map[string]int{}, counts: map[string]int{}} }

func (t *totals) count(f injection) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.faults[f.part+": "+f.kind.name]++
}

func (t *totals) faultCount() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, count := range t.faults {
		n += count
	}
	return n
}

// add adds to a count, which is printed in the order of the first additions.
func (t *totals) add(name string, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, known := t.counts[name]; !known {
		t.order = append(t.order, name)
	}
	t.counts[name] += n
}

func (t *totals) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "  %-46s %8s\n", "under faults", t.underFaults)
	fmt.Fprintf(&b, "  %-46s %8d\n", "rounds, each on an empty log", t.rounds)
	fmt.Fprintf(&b, "  %-46s %8d\n", "faults", t.faultCount())
	names := make([]string, 0, len(t.faults))
	for name := range t.faults {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(&b, "    %-44s %8d\n", name, t.faults[name])
	}
	for _, name := range t.order {
		fmt.Fprintf(&b, "  %-46s %8d\n", name, t.counts[name])
	}
	return b.String()
}
