package readmodel

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"chatsessions/projections"
	"chatsessions/projections/layout"
	"chatsessions/projections/logtest"
)

// compared returns a freshness in which nothing is in doubt.
func compared(at time.Time, end uint64) *freshness {
	f := newFreshness(1)
	f.recordProjected(0, "g", 0)
	f.recordProbe(probe{at, end, 0}, 0, true, Status{})
	return f
}

func TestATicketDemandsTheOldestEndThatStillCounts(t *testing.T) {
	now := time.Now()
	f := newFreshness(1)
	if _, err := f.ticket(0, "log", 0, now); !errors.Is(err, errUntrusted) {
		t.Fatalf("before the first comparison: %v", err)
	}
	f.recordProbe(probe{now, 5, 0}, 0, false, Status{})
	if _, err := f.ticket(0, "log", 0, now); !errors.Is(err, errUntrusted) {
		t.Fatalf("the checkpoint was not read: %v", err)
	}
	f = compared(now, 5)
	f.recordProbe(probe{now.Add(time.Second), 8, 0}, 5, false, Status{})
	for _, c := range []struct {
		after time.Duration
		need  uint64
	}{{0, 5}, {probeLife, 5}, {probeLife + 1, 8}, {time.Second + probeLife, 8}} {
		ticket, err := f.ticket(0, "log", 0, now.Add(c.after))
		if err != nil || ticket.need != c.need {
			t.Errorf("after %v: %+v, %v; want %d", c.after, ticket, err, c.need)
		}
	}
	if _, err := f.ticket(0, "log", 0, now.Add(time.Second+probeLife+1)); !errors.Is(err, errUntrusted) {
		t.Errorf("all probes are too old: %v", err)
	}
}

func TestAProbeIsTooOldWhenTheMachineSlept(t *testing.T) {
	now := time.Now()
	f := compared(now, 5)
	asleep := now.Round(0).Add(time.Hour) // the wall clock went on, the monotonic one is gone
	if _, err := f.ticket(0, "log", 0, asleep); !errors.Is(err, errUntrusted) {
		t.Fatalf("got %v", err)
	}
}

func TestATicketDemandsWhatWasProjectedOrShown(t *testing.T) {
	now := time.Now()
	f := compared(now, 5)
	f.recordProjected(0, "g", 7)
	before, err := f.ticket(0, "log", 0, now)
	logtest.MustRun(t, err)
	f.recordShown(9)
	f.recordProjected(0, "g", 8)
	after, err := f.ticket(0, "log", 0, now)
	logtest.MustRun(t, err)
	if before.need != 7 || after.need != 9 {
		t.Fatalf("need %d and %d", before.need, after.need)
	}
}

func TestATicketRefuses(t *testing.T) {
	ticket := &ticket{identity: "log", generation: "g", need: 7}
	for text, reason := range map[string]string{
		"":                           "empty",
		"damaged":                    "damaged",
		"other 9 g p0 e":             "another log",
		"log 6 g p0 e":               "at position 6",
		"log 0 g f9 e":               "at position 0",
		"log":                        "damaged",
		"log 9":                      "damaged",
		"log 9 g":                    "damaged",
		"log 9 g p e":                "damaged",
		"log 9 g x0 e":               "damaged",
		"log -1 g p0 e":              "damaged",
		"log x g p0 e":               "damaged",
		" 9 g p0 e":                  "damaged",
		layout.Checkpoint{}.String(): "damaged",
	} {
		if _, err := ticket.check(text); !errors.Is(err, errUntrusted) || !strings.Contains(err.Error(), reason) {
			t.Errorf("%q: %v, want %s", text, err, reason)
		}
	}
	// Of an empty log nothing is needed, and yet a list would be a part of one.
	ticket.need = 0
	for _, text := range []string{"log 0 g f0 ", "log 0 g f9 ", "log 9 g c0 "} {
		if _, err := ticket.check(text); !errors.Is(err, errUntrusted) {
			t.Errorf("%q, of which nothing is needed: %v", text, err)
		}
	}
	ticket.need = 7
	if _, err := ticket.check("log 9 h p0 e"); !errors.Is(err, errMoved) {
		t.Errorf("another generation: %v", err)
	}
	if c, err := ticket.check("log 7 g p0 e"); err != nil || c.Position != 7 {
		t.Errorf("%v, %v", c, err)
	}
}

// Behind a new connection there may be another server, with an older copy.
func TestANewConnectionDemandsANewLookAtTheLog(t *testing.T) {
	now := time.Now()
	f := compared(now, 5)
	if _, err := f.ticket(0, "log", 1, now); !errors.Is(err, errUntrusted) {
		t.Fatalf("got %v", err)
	}
	f.recordProbe(probe{now, 8, 1}, 5, true, Status{})
	if ticket, err := f.ticket(0, "log", 1, now); err != nil || ticket.need != 8 {
		t.Fatalf("got %+v, %v", ticket, err)
	}
}

func TestALogThatEndsBeforeWhatWasSeenIsDoubted(t *testing.T) {
	now := time.Now()
	f := compared(now, 5)
	f.recordProjected(0, "g", 9)
	for range logBehindFor {
		f.recordProbe(probe{now, 6, 0}, f.highest(), true, Status{})
		if _, err := f.ticket(0, "log", 0, now); !errors.Is(err, errUntrusted) {
			t.Fatalf("got %v", err)
		}
	}
	f.recordProjected(0, "g", 6) // the read model was rebuilt
	f.recordProbe(probe{now, 6, 0}, f.highest(), true, Status{})
	if ticket, err := f.ticket(0, "log", 0, now); err != nil || ticket.need != 6 {
		t.Fatalf("got %+v, %v", ticket, err)
	}
	if f.wait(7) == nil {
		t.Fatal("a position that was lost counts as passed")
	}
}

func TestWaitersAreReleasedInTheOrderOfTheirPositions(t *testing.T) {
	f := newFreshness(1)
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
		f.recordProjected(0, "g", passed)
		passed = f.passedByAll()
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
	if left := f.staleFor(5, now, false); left != projections.Bound {
		t.Errorf("the log told it only now: %v left", left)
	}
	// A look is answered before the next one is asked.
	f.recordProbe(probe{now.Add(probeEvery), 6, 0}, 0, true, Status{})
	for _, c := range []struct {
		position uint64
		after    time.Duration
		left     time.Duration
	}{{5, probeEvery, projections.Bound}, {5, projections.Bound, probeEvery}, {5, projections.Bound + probeEvery, 0}, {6, projections.Bound + probeEvery, projections.Bound}} {
		if left := f.staleFor(c.position, now.Add(c.after), false); left != c.left {
			t.Errorf("position %d, %v later: %v left, want %v", c.position, c.after, left, c.left)
		}
	}
	// Looks go on; what was settled stays so.
	for at := 2 * probeEvery; at < 3*projections.Bound; at += probeEvery {
		f.recordProbe(probe{now.Add(at), 9, 0}, 0, true, Status{})
		if left := f.staleFor(5, now.Add(at), false); left != max(0, projections.Bound+probeEvery-at) {
			t.Errorf("%v later: %v left", at, left)
		}
	}
	if len(f.probes) > int(projections.Bound/probeEvery)+3 {
		t.Errorf("%d looks are kept", len(f.probes))
	}
	f.recordProjected(0, "g", 10)
	if left := f.staleFor(10, now, false); left != 0 {
		t.Errorf("the read model has it: %v left", left)
	}
}
