package main

import (
	"testing"
	"time"

	chathttp "chatsessions/http"
)

func TestMeasuringAllocatesNothing(t *testing.T) {
	m := newMetrics()
	requests, synced, applied := m.requests(), m.synced(), m.applied()
	measure := func() {
		for _, e := range chathttp.Endpoints() {
			requests(e, 200, time.Millisecond)
		}
		synced(64, time.Millisecond)
		applied(256, time.Millisecond)
	}
	measure() // the first time resolves the series
	if allocations := testing.AllocsPerRun(1000, measure); allocations != 0 {
		t.Errorf("%v allocations", allocations)
	}
}

func TestWithoutAListenerNothingIsMeasured(t *testing.T) {
	var m *metrics
	if m.requests() != nil || m.synced() != nil || m.applied() != nil {
		t.Error("something is observed that nobody can ask for")
	}
}
