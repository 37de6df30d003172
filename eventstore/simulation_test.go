package eventstore

import (
	"flag"
	"fmt"
	"hash/fnv"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var (
	simulationSeed  = flag.Int("simulation.seed", -1, "simulate this seed only and print its trace")
	simulationSeeds = flag.Int("simulation.seeds", 4000, "how many seeds to simulate")
)

// A simulation is what became of a seed.
type simulation struct {
	wrong  []string
	trace  []string
	counts map[string]int
}

// simulate runs one seed: clients come and there is trouble; then there is none,
// and every request with a key is made once more; then the last messages arrive.
func simulate(t *testing.T, seed int, tracing bool) (s simulation) {
	ended := false
	defer func() {
		if !ended {
			t.Logf("seed %d did not end", seed)
		}
	}()
	synctest.Test(t, func(*testing.T) {
		w := newWorld(uint64(seed), tracing)
		nodes := 1
		if !w.faults.embedded {
			nodes = 2 + w.rng.IntN(2)
		}
		w.mu.Lock()
		for i := range nodes {
			w.nodes = append(w.nodes, &node{world: w, index: i})
			w.nodes[i].start()
		}
		w.plan()
		w.mu.Unlock()
		w.clients()

		w.mu.Lock()
		w.calm = true
		w.note("no more trouble")
		w.mu.Unlock()
		w.sleep(12*time.Second, 13*time.Second)
		var final []*attempt
		for _, e := range w.errands {
			a := w.try(e, writePatience)
			for range 2 { // a quorum may still be slow
				if a.definite() {
					break
				}
				a = w.try(e, writePatience)
			}
			final = append(final, a)
		}
		time.Sleep(time.Minute)

		s = simulation{wrong: w.examine(final), trace: w.trace, counts: w.counts}
	})
	ended = true
	return s
}

// TestSimulation simulates the command path, one seed after the other.
func TestSimulation(t *testing.T) {
	if *simulationSeed >= 0 {
		s := simulate(t, *simulationSeed, true)
		report(t, *simulationSeed, s)
		t.Logf("seed %d:\n%s\n%v", *simulationSeed, strings.Join(s.trace, "\n"), s.counts)
		return
	}
	var next, failed, attempts atomic.Int64
	counts := map[string]int{}
	var mu sync.Mutex
	began := time.Now()
	t.Run("seeds", func(t *testing.T) {
		for range runtime.GOMAXPROCS(0) {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				for failed.Load() < 3 {
					seed := int(next.Add(1)) - 1
					if seed >= *simulationSeeds {
						return
					}
					s := simulate(t, seed, false)
					mu.Lock()
					for what, n := range s.counts {
						counts[what] += n
						if strings.HasPrefix(what, "answer: ") {
							attempts.Add(int64(n))
						}
					}
					mu.Unlock()
					if len(s.wrong) > 0 {
						failed.Add(1)
						again := simulate(t, seed, true)
						if s.trace = again.trace; !slices.Equal(again.wrong, s.wrong) {
							s.wrong = append(s.wrong, "another time it was this, of which the trace is:")
							s.wrong = append(s.wrong, again.wrong...)
						}
						report(t, seed, s)
					}
				}
			})
		}
	})
	t.Logf("%d seeds in %v, %d requests", min(next.Load(), int64(*simulationSeeds)), time.Since(began).Round(time.Second), attempts.Load())
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		t.Logf("%8d %s", counts[what], what)
	}
	if *simulationSeeds < enoughSeeds {
		return
	}
	for _, what := range []string{
		"leader changed", "proposals lost with their leader", "power cut that lost events", "sync failed", "slow sync",
		"node restarted", "server restarted", "server fails while it writes", "store failed", "disconnected",
		"request lost", "request late", "request arrives twice", "message of a batch lost",
		"conflict with a write in flight", "read from a replica that lags", "read from a deposed leader",
	} {
		if counts[what] == 0 {
			t.Errorf("never: %s", what)
		}
	}
}

// enoughSeeds is how many seeds have each fault among them.
const enoughSeeds = 2000

// report fails the test for what a seed has shown.
func report(t *testing.T, seed int, s simulation) {
	t.Helper()
	if len(s.wrong) > 0 {
		t.Errorf("seed %d:\n%s\nfor this seed alone: go test ./eventstore -run '^TestSimulation$' -simulation.seed=%d\n%s",
			seed, strings.Join(s.wrong, "\n"), seed, strings.Join(s.trace, "\n"))
	}
}

// TestSimulationRepeats: a seed does the same every time.
func TestSimulationRepeats(t *testing.T) {
	hash := func(seed int) string {
		h := fnv.New64a()
		for _, line := range simulate(t, seed, true).trace {
			_, _ = h.Write([]byte(line + "\n"))
		}
		return fmt.Sprintf("%x", h.Sum64())
	}
	for seed := range 50 {
		if first, second := hash(seed), hash(seed); first != second {
			t.Errorf("seed %d: trace %s, then %s", seed, first, second)
		}
	}
}
