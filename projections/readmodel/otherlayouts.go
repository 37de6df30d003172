package readmodel

import (
	"context"
	"sync"
	"time"

	"chatsessions/projections"
	"chatsessions/projections/layout"
)

const (
	// layoutLife is how long a layout counts as in use after a node has said so.
	layoutLife = 10 * time.Second
	// layoutMemory is how long a node goes on as if another layout were in use after it
	// saw one: a Redis that was emptied forgets who is there.
	layoutMemory = layoutLife / 2
	// layoutTrust is how long a node relies on what it said. It is less than the others
	// remember, whatever became of Redis.
	layoutTrust = layoutMemory / 2
)

// While nodes of two layouts run side by side, as in a rolling upgrade, a write that is
// answered because one read model has it may be missing in the other. Those who read
// therefore ask the log for its end before each answer, and a node that is new waits
// for Bound until it serves: by then every other node knows of it. One that could not
// say for a while that it is there, because it or Redis stood still, is new again.

// layouts is what a node knows of the layouts in use, and what others know of its own.
type otherLayouts struct {
	mu         sync.Mutex
	since      time.Time // this node has noted its layout again and again from then on
	late       bool      // another layout was in use already then
	registered time.Time // the last time
	lastSeen   time.Time // when another layout was last in use
	present    bool      // whether one may be in use now
}

// register says that this layout is in use, and looks whether another one is. Where that
// fails, one may be.
func (m *ReadModel) register(ctx context.Context) {
	began := time.Now()
	n, err := layoutsScript.Run(ctx, m.rdb, []string{layout.LayoutsKey}, layout.Name(len(m.partitions)), layoutLife.Milliseconds()).Int()
	l := &m.others
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.present = true
		return
	}
	now := time.Now()
	if l.registered.IsZero() || age(began, l.registered) > layoutTrust {
		l.since, l.late = now, n > 0
	}
	l.registered = began
	if n > 0 {
		if l.lastSeen.IsZero() {
			m.logger.Info("nodes with another layout of the read model are at work: each answer asks the log first")
		}
		l.lastSeen = now
	}
	l.present = n > 0 || !l.lastSeen.IsZero() && age(now, l.lastSeen) < layoutMemory
}

// sharesLog says whether nodes with another layout may use the same log.
func (l *otherLayouts) shareLog() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.present
}

// isKnown says whether nodes with another layout, if there are any, know that this
// one is there.
func (l *otherLayouts) isKnown(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.registered.IsZero() && age(now, l.registered) <= layoutTrust && !l.isNew(now)
}

// mayRead says the same for a read, which relies on a probe that is not old, and the
// probe came after an attempt to register.
func (l *otherLayouts) mayRead(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.isNew(now)
}

// isNew says whether nodes that were there before this one may not know of it. Those
// that come later see it with their first look.
func (l *otherLayouts) isNew(now time.Time) bool {
	return l.late && age(now, l.since) <= projections.Bound
}
