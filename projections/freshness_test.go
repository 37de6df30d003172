package projections

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// compared returns a freshness in which nothing is in doubt.
func compared(at time.Time, end uint64) *freshness {
	f := newFreshness()
	f.probed(probe{at, end}, 0, true)
	return f
}

func TestATicketDemandsTheOldestEndThatStillCounts(t *testing.T) {
	now := time.Now()
	f := newFreshness()
	if _, err := f.ticket("log", now); !errors.Is(err, errUntrusted) {
		t.Fatalf("before the first comparison: %v", err)
	}
	f.probed(probe{now, 5}, 0, false)
	if _, err := f.ticket("log", now); !errors.Is(err, errUntrusted) {
		t.Fatalf("the checkpoint was not read: %v", err)
	}
	f = compared(now, 5)
	f.probed(probe{now.Add(time.Second), 8}, 5, false)
	for _, c := range []struct {
		after time.Duration
		need  uint64
	}{{0, 5}, {probeLife, 5}, {probeLife + 1, 8}, {time.Second + probeLife, 8}} {
		ticket, err := f.ticket("log", now.Add(c.after))
		if err != nil || ticket.need != c.need {
			t.Errorf("after %v: %+v, %v; want %d", c.after, ticket, err, c.need)
		}
	}
	if _, err := f.ticket("log", now.Add(time.Second+probeLife+1)); !errors.Is(err, errUntrusted) {
		t.Errorf("all probes are too old: %v", err)
	}
}

func TestAProbeIsTooOldWhenTheMachineSlept(t *testing.T) {
	now := time.Now()
	f := compared(now, 5)
	asleep := now.Round(0).Add(time.Hour) // the wall clock went on, the monotonic one is gone
	if _, err := f.ticket("log", asleep); !errors.Is(err, errUntrusted) {
		t.Fatalf("got %v", err)
	}
}

func TestATicketDemandsWhatWasProjectedOrShown(t *testing.T) {
	now := time.Now()
	f := compared(now, 5)
	f.projected(7)
	before, err := f.ticket("log", now)
	mustRun(t, err)
	f.observe(9)
	f.projected(8)
	after, err := f.ticket("log", now)
	mustRun(t, err)
	if before.need != 7 || after.need != 9 {
		t.Fatalf("need %d and %d", before.need, after.need)
	}
}

func TestATicketRefuses(t *testing.T) {
	ticket := &ticket{identity: "log", need: 7}
	for text, reason := range map[string]string{
		"":                    "empty",
		"clearing x 3":        "being rebuilt",
		"other 9":             "another log",
		"log 6":               "at position 6",
		"log":                 "being rebuilt",
		"log -1":              "being rebuilt",
		"log x":               "being rebuilt",
		" 9":                  "being rebuilt",
		checkpoint{}.String(): "being rebuilt",
	} {
		if _, err := ticket.check(text); !errors.Is(err, errUntrusted) || !strings.Contains(err.Error(), reason) {
			t.Errorf("%q: %v, want %s", text, err, reason)
		}
	}
	if c, err := ticket.check("log 7"); err != nil || c.position != 7 {
		t.Errorf("%v, %v", c, err)
	}
}

func TestALogThatEndsBeforeWhatWasSeenIsDoubted(t *testing.T) {
	now := time.Now()
	f := compared(now, 5)
	f.projected(9)
	for range behindFor {
		f.probed(probe{now, 6}, f.highest(), true)
		if _, err := f.ticket("log", now); !errors.Is(err, errUntrusted) {
			t.Fatalf("got %v", err)
		}
	}
	f.projected(6) // the read model was rebuilt
	f.probed(probe{now, 6}, f.highest(), true)
	if ticket, err := f.ticket("log", now); err != nil || ticket.need != 6 {
		t.Fatalf("got %+v, %v", ticket, err)
	}
	if f.wait(7) == nil {
		t.Fatal("a position that was lost counts as passed")
	}
}

func TestWaitersAreReleasedInTheOrderOfTheirPositions(t *testing.T) {
	f := newFreshness()
	var all []*waiter
	for range 10_000 {
		all = append(all, f.wait(1+rand.Uint64N(1000)))
	}
	gone := map[*waiter]bool{}
	for range 3000 {
		w := all[rand.IntN(len(all))]
		gone[w] = true
		f.forget(w)
	}
	for _, passed := range []uint64{1, 2, 500, 400, 999, 1000} {
		f.projected(passed)
		passed = f.passed
		for _, w := range all {
			released := false
			select {
			case <-w.passed:
				released = true
			default:
			}
			if want := w.position <= passed && !gone[w] || released && w.position <= passed; released != want {
				t.Fatalf("at %d, the waiter for %d: released is %v", passed, w.position, released)
			}
		}
	}
	if n, _, _ := f.demand(); n != 0 {
		t.Fatalf("%d still wait", n)
	}
}

func TestAPositionIsSettledWhenNoNodeCanShowLess(t *testing.T) {
	now := time.Now()
	f := compared(now, 5)
	if left := f.unsettled(5, now); left != Bound {
		t.Errorf("the log told it only now: %v left", left)
	}
	// A look is answered before the next one is asked.
	f.probed(probe{now.Add(probeEvery), 6}, 0, true)
	for _, c := range []struct {
		position uint64
		after    time.Duration
		left     time.Duration
	}{{5, probeEvery, Bound}, {5, Bound, probeEvery}, {5, Bound + probeEvery, 0}, {6, Bound + probeEvery, Bound}} {
		if left := f.unsettled(c.position, now.Add(c.after)); left != c.left {
			t.Errorf("position %d, %v later: %v left, want %v", c.position, c.after, left, c.left)
		}
	}
	// Looks go on; what was settled stays so.
	for at := 2 * probeEvery; at < 3*Bound; at += probeEvery {
		f.probed(probe{now.Add(at), 9}, 0, true)
		if left := f.unsettled(5, now.Add(at)); left != max(0, Bound+probeEvery-at) {
			t.Errorf("%v later: %v left", at, left)
		}
	}
	if len(f.probes) > int(Bound/probeEvery)+3 {
		t.Errorf("%d looks are kept", len(f.probes))
	}
	f.projected(10)
	if left := f.unsettled(10, now); left != 0 {
		t.Errorf("the read model has it: %v left", left)
	}
}
