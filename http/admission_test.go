package http

import (
	"sync"
	"testing"
)

func TestTheLimitOfCommandsIsExact(t *testing.T) {
	const limit, askers = 10, 64
	c := admission{limit: limit}
	for range 100 {
		var admitted, running sync.WaitGroup
		places := make(chan bool, askers)
		admitted.Add(askers)
		for range askers {
			running.Go(func() {
				place := c.enter()
				places <- place
				admitted.Done()
				admitted.Wait() // nobody leaves before all have asked
				if place {
					c.inFlight.Add(-1)
				}
			})
		}
		running.Wait()
		close(places)
		got := 0
		for place := range places {
			if place {
				got++
			}
		}
		if got != limit || c.inFlight.Load() != 0 {
			t.Fatalf("%d of %d were admitted, %d are left", got, askers, c.inFlight.Load())
		}
	}
	unlimited := admission{}
	for range 10_000 {
		if !unlimited.enter() {
			t.Fatal("refused without a limit")
		}
	}
}
