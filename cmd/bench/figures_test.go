package main

import (
	"math"
	"slices"
	"testing"

	"github.com/google/uuid"

	"chatsessions/domain"
)

func TestAQuantileLiesWithinItsBucketOverAllLabels(t *testing.T) {
	before := metrics{
		`wait_bucket{outcome="reached",le="0.01"}`: 10, `wait_bucket{outcome="reached",le="0.02"}`: 10, `wait_bucket{outcome="reached",le="+Inf"}`: 10,
	}
	after := metrics{
		`wait_bucket{outcome="reached",le="0.01"}`: 100, `wait_bucket{outcome="reached",le="0.02"}`: 108, `wait_bucket{outcome="reached",le="+Inf"}`: 108,
		`wait_bucket{outcome="gave_up",le="0.01"}`: 0, `wait_bucket{outcome="gave_up",le="0.02"}`: 0, `wait_bucket{outcome="gave_up",le="+Inf"}`: 2,
		`other_bucket{le="+Inf"}`: 1000,
	}
	for q, want := range map[float64]float64{0.45: 0.005, 0.9: 0.01, 0.94: 0.015, 0.99: 0.02} {
		if got := after.quantile(before, "wait", q); math.Abs(got-want) > 1e-9 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
}

func TestARatioIsTheMedianOfTheRounds(t *testing.T) {
	var b bench
	b.add(figures{"new": {10, 30, 20}, "old": {10, 10, 40}}, ratio("PATCH/s", 64, "1/s", "new", "old", ""))
	r := b.rows[0]
	if r.Ratio != 1 || !slices.Equal(r.Rounds, []float64{1, 3, 0.5}) || r.Service != 20 || r.Baseline != 10 {
		t.Errorf("got %+v", r)
	}
	if m := median([]float64{4, 1, 3, 2}); m != 2.5 {
		t.Errorf("the median of four is %v", m)
	}
}

func TestAPopulationIsDecidedByTheDomain(t *testing.T) {
	p := crowd(5000)
	shared, last := 0, int64(0)
	for i := range p.sessions {
		var s domain.Session
		for stage := range stages {
			events, err := domain.Decide(s, p.command(i, stage))
			if err != nil {
				t.Fatal(err)
			}
			s = events[0].Session
		}
		if id, err := uuid.Parse(s.ID); err != nil || id.Version() != 7 {
			t.Fatalf("%s is not a UUIDv7: %v", s.ID, err)
		}
		if s.State != domain.StateFinished || s.CreatedAt <= last || s.UpdatedAt > p.end {
			t.Fatalf("session %d is %+v, that before was created at %d", i, s, last)
		}
		if last = s.CreatedAt; s.Room == sharedRoom {
			shared++
		}
	}
	if shared != 1000 {
		t.Errorf("%d sessions share a room, want 1000", shared)
	}
}
