package chaos

import (
	"context"
	"time"
)

// linkKinds are the faults of connections, each to some of the links.
func linkKinds(links []*link) []kind {
	// some picks one of the links, or all.
	some := func(f injection) []*link {
		if i := f.choice % uint64(len(links)+1); i < uint64(len(links)) {
			return links[i : i+1]
		}
		return links
	}
	return []kind{
		{"cut", 3, shortestHold, func(_ context.Context, f injection) error {
			for _, l := range some(f) {
				l.cut()
			}
			return nil
		}},
		{"answers lost, then cut", 3, time.Second, func(ctx context.Context, f injection) error {
			for _, l := range some(f) {
				l.mute.Store(true)
			}
			sleep(ctx, f.hold)
			for _, l := range some(f) {
				l.cut() // before it speaks again: half an answer is none
				l.mute.Store(false)
			}
			return nil
		}},
		{"stalled", 2, 3 * time.Second, func(ctx context.Context, f injection) error {
			for _, l := range some(f) {
				defer l.stall()()
			}
			sleep(ctx, f.hold)
			return nil
		}},
		{"refused", 1, 3 * time.Second, func(ctx context.Context, f injection) error {
			for _, l := range some(f) {
				target := l.target.Swap(nil)
				l.cut()
				defer l.target.CompareAndSwap(nil, target) // unless its server has another address by now
			}
			sleep(ctx, f.hold)
			return nil
		}},
	}
}
