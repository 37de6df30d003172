package readmodel

import (
	"context"
	_ "embed" // layouts.lua
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"chatsessions/projections"
	"chatsessions/projections/layout"
)

//go:embed layouts.lua
var layoutsSource string

var layoutsScript = redis.NewScript(layoutsSource)

const (
	// layoutLife is how long a layout counts as in use after a node registered it.
	layoutLife = 10 * time.Second
	// layoutMemory is how long a node remembers another layout that it saw, because an
	// emptied Redis loses the registrations.
	layoutMemory = layoutLife / 2
	// layoutTrust is how long a node relies on its registration. It is shorter than
	// layoutMemory, so the others still remember the node even if Redis was emptied.
	layoutTrust = layoutMemory / 2
)

// otherLayouts tracks which other layouts are in use, and whether their nodes know of ours.
//
// Nodes of two layouts run side by side during a rolling upgrade. A write that is answered
// because one read model has it may be missing in the other. So nodes that see another
// layout ask the log for its end before each answer, and a new node waits for Bound before
// it serves: by then every other node knows of it. A node that could not register for a
// while is new again.
type otherLayouts struct {
	mu         sync.Mutex
	since      time.Time // start of uninterrupted registrations
	late       bool      // another layout was in use at since
	registered time.Time // last time
	lastSeen   time.Time // another layout
	present    bool      // another layout may be in use now
}

// register registers this node's layout and looks for others. If it fails, it assumes one.
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

// shareLog reports whether nodes with another layout may use the same log.
func (l *otherLayouts) shareLog() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.present
}

// isKnown reports whether nodes with another layout, if any, know of this one.
func (l *otherLayouts) isKnown(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.registered.IsZero() && age(now, l.registered) <= layoutTrust && !l.isNew(now)
}

// mayRead is isKnown for a read. The read relies on a recent probe, and each probe
// registers first.
func (l *otherLayouts) mayRead(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.isNew(now)
}

// isNew reports whether nodes that were there first may not know of this one. Later nodes
// see it when they register.
func (l *otherLayouts) isNew(now time.Time) bool {
	return l.late && age(now, l.since) <= projections.Bound
}
