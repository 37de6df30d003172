package chaos

import (
	"context"
	"time"

	"chatsessions/cmd/systemtest/rig"
)

// linkKinds are the faults of connections, each to some of the links.
func linkKinds(links []*rig.Link) []kind {
	// some picks one of the links, or all.
	some := func(f injection) []*rig.Link {
		if i := f.pick % uint64(len(links)+1); i < uint64(len(links)) {
			return links[i : i+1]
		}
		return links
	}
	return []kind{
		{"cut", 3, shortestHold, func(_ context.Context, f injection) error {
			for _, l := range some(f) {
				l.Cut()
			}
			return nil
		}},
		{"answers lost, then cut", 3, time.Second, func(ctx context.Context, f injection) error {
			for _, l := range some(f) {
				l.Mute.Store(true)
			}
			rig.Sleep(ctx, f.hold)
			for _, l := range some(f) {
				l.Cut() // before it speaks again: half an answer is none
				l.Mute.Store(false)
			}
			return nil
		}},
		{"stalled", 2, 3 * time.Second, func(ctx context.Context, f injection) error {
			for _, l := range some(f) {
				defer l.Stall()()
			}
			rig.Sleep(ctx, f.hold)
			return nil
		}},
		{"refused", 1, 3 * time.Second, func(ctx context.Context, f injection) error {
			for _, l := range some(f) {
				target := l.Target.Swap(nil)
				l.Cut()
				defer l.Target.CompareAndSwap(nil, target) // unless its server has another address by now
			}
			rig.Sleep(ctx, f.hold)
			return nil
		}},
	}
}
