package redisfaults

import (
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"chatsessions/cmd/systemtest/rig"
)

func TestWhenTheProjectorAtWorkIsKilledTheOtherTakesOver(t *testing.T) {
	t.Parallel() // it does little but wait
	r := startFaultRig(t)
	var slowest time.Duration
	r.times(4, func(int) {
		active := r.atWork()
		r.fault(func() {
			active.Kill()
			took := r.untilProjected()
			t.Logf("taken over %s after the kill", took.Round(time.Millisecond))
			slowest = max(slowest, took)
		}, 0, active.Start)
	})
	r.conclude("projector killed")
	t.Logf("a standby took over within %s", slowest.Round(time.Millisecond))
	if slowest > 5*time.Second { // promised are 2 s, on a machine with nothing else to do
		t.Errorf("a standby took over %s after the kill", slowest)
	}
}

func TestProjectorsThatAreRestartedInTurnOrPausedLoseAndTurnBackNothing(t *testing.T) {
	t.Parallel() // it does little but wait
	r := startFaultRig(t)
	r.times(2, func(int) {
		for _, p := range r.projectors {
			r.fault(p.Restart, 0, func() {})
		}
	})
	r.times(2, func(int) { // two at work at once: the one that was paused does not know
		active := r.atWork()
		signal := func(s syscall.Signal) func() {
			return func() {
				if err := active.Cmd.Process.Signal(s); err != nil {
					t.Error(err)
				}
			}
		}
		t.Cleanup(signal(syscall.SIGCONT))
		r.fault(signal(syscall.SIGSTOP), 4*time.Second, signal(syscall.SIGCONT))
	})
	r.conclude("projectors restarted in turn, or paused for 4 s")
}

// atWork is the projector that advances the read model, when the other has said that
// it stands by.
func (r *faultRig) atWork() (active *rig.Service) {
	r.t.Helper()
	rig.Eventually(r.t, func() error {
		var working []*rig.Service
		for _, p := range r.projectors {
			log := p.Errors.String()
			works := max(strings.LastIndex(log, "msg=projecting"), strings.LastIndex(log, "taking over"))
			if works > strings.LastIndex(log, "projector stands by") {
				working = append(working, p)
			}
		}
		if len(working) != 1 {
			return fmt.Errorf("%d projectors are at work", len(working))
		}
		active = working[0]
		return nil
	})
	return active
}

// untilProjected is how long it takes from now on until a write is answered because
// the read model has passed it, and not because it was waited for long enough.
func (r *faultRig) untilProjected() time.Duration {
	const tooLong = 1900 * time.Millisecond
	from := time.Now()
	var mu sync.Mutex
	took := rig.Patience
	done := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return took < rig.Patience
	}
	var writing sync.WaitGroup
	for i := 0; !done() && time.Since(from) < rig.Patience; i++ {
		writing.Go(func() {
			sent := time.Now()
			_, ok := r.load.write(r.api[i%len(r.api)].As("account-prober"), "POST", "/chat-sessions", "", 0, `{"participants":["prober"]}`)
			mu.Lock()
			defer mu.Unlock()
			if ok && time.Since(sent) < tooLong {
				took = min(took, time.Since(from))
			}
		})
		r.goOn(50 * time.Millisecond)
	}
	writing.Wait()
	return took
}
