package main

import (
	"math"
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

func TestAKeyIsKnownByItsWords(t *testing.T) {
	for key, want := range map[string]string{
		"cs2:{0}:iqkaokdi:doc:01a203b1-cdef-756b-a048-24114f28a080": "doc",
		"cs2:{0}:17:doc:01a203b1-cdef-756b-a048-24114f28a080":       "doc",
		"cs2:{0}:g17:by:state:finished":                             "by state",
		"cs2:{12}:iqkaokdi:by:acceptedBy:~c2hhMjU2":                 "by acceptedBy",
		"cs2:{0}:iqkaokdi:by:all":                                   "by all",
		"cs1:{0}:checkpoint":                                        "checkpoint",
		"baseline:/bytes/450":                                       "other",
	} {
		if got := kindOf(key); got != want {
			t.Errorf("%s is of kind %q, want %q", key, got, want)
		}
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
