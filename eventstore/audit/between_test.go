package audit_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"chatsessions/domain"
	"chatsessions/eventstore/audit"

	"github.com/nats-io/nats.go"
)

// TestTimesAreFoundInTheLog with clocks that are apart by nearly as much as they may be,
// and messages that have no time.
func TestTimesAreFoundInTheLog(t *testing.T) {
	nc, l := startLog(t)
	begin := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	const events = 300
	const apart = audit.ClockMargin - time.Second
	random := rand.New(rand.NewPCG(1, 2))
	times := map[uint64]time.Time{}
	if first, last, err := audit.Between(testContext(t), l, begin, begin, 0, 0); first != 0 || last != 0 || err != nil {
		t.Errorf("in an empty log: %d to %d, %v", first, last, err)
	}
	for i := range events {
		position := uint64(i + 1)
		if i%7 == 3 || i > 100 && i < 130 || i > events-4 {
			if _, err := nc.RequestMsg(&nats.Msg{Subject: "chat-sessions." + newID(), Data: []byte("nonsense")}, patience); err != nil {
				t.Fatal(err)
			}
			continue
		}
		at := begin.Add(time.Duration(i)*time.Minute + time.Duration(random.Int64N(int64(apart))) - apart/2).Truncate(time.Millisecond)
		id := newID()
		if r := create(t, l, domain.Request{SessionID: id, Actor: "pat"}, at); r.Position != position {
			t.Fatalf("position %d, want %d", r.Position, position)
		}
		times[position] = at
	}
	widest := uint64(0)
	for range 300 {
		since := begin.Add(time.Duration(random.IntN(events+60)-30) * time.Minute)
		until := since.Add(time.Duration(random.IntN(20)) * time.Minute)
		after, upTo := uint64(0), uint64(events)
		if random.IntN(3) == 0 {
			after, upTo = 50, 200
		}
		first, last, err := audit.Between(testContext(t), l, since, until, after, upTo)
		if err != nil || first < after || last > upTo {
			t.Fatalf("%s to %s: %d to %d, %v", since, until, first, last, err)
		}
		for position, at := range times {
			if position > after && position <= upTo && !at.Before(since) && !at.After(until) && (position <= first || position > last) {
				t.Fatalf("%s to %s: %d to %d leaves out %d, of %s", since, until, first, last, position, at)
			}
		}
		if last > first {
			widest = max(widest, last-first)
		}
	}
	// Twenty minutes, the margins, and where nothing can be read.
	if widest > 120 {
		t.Errorf("for twenty minutes, %d of %d minutes were to be read", widest, events)
	}
	for name, bounds := range map[string][2]time.Time{
		"without bounds": {}, "all of it": {begin.Add(-time.Hour), begin.Add(events*time.Minute + time.Hour)},
	} {
		if first, last, err := audit.Between(testContext(t), l, bounds[0], bounds[1], 0, events); first != 0 || last != events || err != nil {
			t.Errorf("%s: %d to %d, %v", name, first, last, err)
		}
	}
	if first, last, err := audit.Between(testContext(t), l, begin.Add(100*time.Hour), time.Time{}, 0, events); last-first > 4 || err != nil {
		t.Errorf("after the end: %d to %d, %v", first, last, err)
	}
}
