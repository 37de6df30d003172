package chaos

import (
	"context"
	"fmt"
	"hash/fnv"
	"iter"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// A gremlin disturbs one part of a system. All that it does follows from the seed:
// the same one leads to the same faults in the same order, with the same pauses.
type gremlin struct {
	part  string
	kinds []kind
	calm  time.Duration // the longest pause between two faults
}

// A kind of fault is dealt like the cards of a deck, of which it has some: one of
// each kind first, then the others.
type kind struct {
	name    string
	cards   int
	longest time.Duration // that it is held
	// inject does it, holds it, and heals it before it returns, early when ctx ends.
	// Its error is a defect of the service.
	inject func(ctx context.Context, f injection) error
}

// An injection is a fault that is planned.
type injection struct {
	part   string
	kind   kind
	wait   time.Duration // before it
	hold   time.Duration
	choice uint64 // chooses whatever else there is to choose
}

func (f injection) String() string {
	return fmt.Sprintf("%s: %s for %s (%d)", f.part, f.kind.name, f.hold.Round(time.Millisecond), f.choice%100)
}

// shortestHold is the least time for which a fault is held.
const shortestHold = 100 * time.Millisecond

// plan deals faults for ever.
func (g *gremlin) plan(seed uint64, round int) iter.Seq[injection] {
	stream := fnv.New64()
	fmt.Fprintf(stream, "%s %d", g.part, round)
	random := rand.New(rand.NewPCG(seed, stream.Sum64())) //nolint:gosec // a plan that can be repeated
	return func(yield func(injection) bool) {
		for {
			deck := slices.Clone(g.kinds)
			shuffle(random, deck)
			for _, k := range g.kinds {
				for range k.cards - 1 {
					deck = append(deck, k)
				}
			}
			shuffle(random, deck[len(g.kinds):])
			for _, k := range deck {
				f := injection{part: g.part, kind: k, choice: random.Uint64()}
				f.wait = time.Duration(random.Int64N(int64(g.calm)))
				// Short ones more often than long ones: they meet other moments.
				share := random.Float64()
				f.hold = shortestHold + time.Duration(share*share*share*float64(max(0, k.longest-shortestHold)))
				if !yield(f) {
					return
				}
			}
		}
	}
}

func shuffle(random *rand.Rand, deck []kind) {
	random.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
}

func TestTheSameSeedPlansTheSameFaults(t *testing.T) {
	g := gremlin{part: "somebody", calm: time.Second, kinds: []kind{
		{name: "often", cards: 3, longest: time.Second}, {name: "once", cards: 1, longest: time.Second},
	}}
	first := func(seed uint64, round int) string {
		dealt := map[string]int{}
		text := ""
		for f := range g.plan(seed, round) {
			text += fmt.Sprintln(f.wait, f)
			if dealt[f.kind.name]++; dealt["often"]+dealt["once"] == 8 {
				break
			}
		}
		if dealt["often"] != 6 || dealt["once"] != 2 {
			t.Errorf("two decks have %v", dealt)
		}
		return text
	}
	if a, b := first(1, 1), first(1, 1); a != b {
		t.Errorf("one seed planned\n%sand\n%s", a, b)
	}
	if first(1, 1) == first(2, 1) || first(1, 1) == first(1, 2) {
		t.Error("another seed, or another round, has the same plan")
	}
}

// sleep returns false when ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
