package eventstore

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
)

// incidents are spread over the time in which clients come: what happens to
// servers and nodes rather than to a message.
func (w *world) plan() {
	for range w.rng.IntN(6) {
		w.after(w.between(0, 10*w.pace+time.Second), func() {
			if w.calm {
				return
			}
			switch w.rng.IntN(5) {
			case 0:
				w.turnBatchesAway()
			case 1:
				n := w.nodes[w.rng.IntN(len(w.nodes))]
				if n.conn != nil && !n.conn.broken {
					w.count("disconnected")
					n.conn.cut(w.skewed(5*time.Millisecond, 4*time.Second))
				}
			case 2:
				w.restartNode()
			default:
				w.failServer()
			}
		})
	}
}

// failServer is what can happen to the server of this seed.
func (w *world) failServer() {
	s := w.log
	switch {
	case w.faults.embedded && w.chance(30) && !s.broken:
		w.count("sync failed")
		w.note("a sync has failed")
		s.broken = true
		w.after(w.skewed(time.Millisecond, 3*time.Second), w.powerCut) // it exits; the cache of the disk is lost too
	case w.faults.embedded:
		w.powerCut()
	case s.away:
	case w.faults.replicated:
		w.failOver()
	default:
		w.count("server restarted")
		s.away = true
		s.staged = map[string]*stagedBatch{}
		w.after(w.skewed(10*time.Millisecond, 3*time.Second), func() { s.away = false })
	}
}

// failOver replaces the leader. Of what it had proposed, a first part reached a
// quorum and is written by its successor, which has nobody to acknowledge it to.
// Some nodes may be left with the old leader for a while.
func (w *world) failOver() {
	s := w.log
	election := w.skewed(5*time.Millisecond, 4*time.Second)
	survivors := s.proposals[:w.rng.IntN(len(s.proposals)+1)]
	w.count("leader changed")
	w.note("the leader goes, with %d of %d proposals, for %v", len(s.proposals)-len(survivors), len(s.proposals), election)
	if len(survivors) < len(s.proposals) {
		w.count("proposals lost with their leader")
	}
	for _, p := range s.proposals {
		p.decided = true
	}
	s.proposals, s.away = nil, true
	s.staged = map[string]*stagedBatch{}
	if w.chance(50) && s.deposed == nil {
		s.deposed = &deposition{time.Now(), len(s.entries)}
		for _, n := range w.nodes {
			if n.conn != nil && w.chance(60) {
				w.note("node %d stays with the old leader", n.index)
				conn := n.conn
				conn.deposed = true
				w.after(election+w.between(time.Millisecond, 4*time.Second), func() { conn.deposed = false })
			}
		}
		w.after(election+5*time.Second, func() { s.deposed = nil })
	}
	w.after(election, func() {
		s.away = false
		for _, p := range survivors {
			sequence := s.write(p.msgs)
			if w.chance(20) {
				s.acknowledge(p.request, sequence, len(p.msgs))
			}
		}
	})
}

func (w *world) turnBatchesAway() {
	w.note("no more batches for now")
	w.log.busy = true
	w.after(w.skewed(time.Millisecond, 2*time.Second), func() { w.log.busy = false })
}

// powerCut loses what is not on disk, and the process with it.
func (w *world) powerCut() {
	s := w.log
	keep := int(s.synced) + w.rng.IntN(len(s.entries)-int(s.synced)+1)
	for keep < len(s.entries) && keep > int(s.synced) && !s.entries[keep-1].last {
		keep-- // a torn write is completed or dropped at the next start: intent_test.go
	}
	w.count("power cut")
	if keep < len(s.entries) {
		w.count("power cut that lost events")
	}
	w.note("the power is cut: %d of %d events are left, %d were synced", keep, len(s.entries), s.synced)
	s.entries = s.entries[:keep]
	s.synced, s.broken, s.away = uint64(keep), false, false
	s.staged = map[string]*stagedBatch{}
	s.lives++
	w.restart(w.nodes[0])
}

func (w *world) restartNode() {
	if w.faults.embedded {
		return // that is a power cut
	}
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	if n.conn != nil {
		w.count("node restarted")
		w.restart(n)
	}
}

// A node is a process of the service: a Log, its cache and its connection.
type node struct {
	world   *world
	index   int
	conn    *connection // nil while there is none
	log     *Log
	running []*attempt // by the process that is there now
}

func (n *node) start() {
	w := n.world
	n.conn = &connection{world: w, node: n.index}
	n.log = newLog(w.begin, Options{})
	n.log.conn, n.log.jitter = n.conn, w.jitter
	if w.faults.barrier {
		n.log.options.Durability = w.log
	}
	w.note("node %d starts", n.index)
}

// restart ends a process, and starts another one a little later. Its clients hear
// no more of what they asked; its messages may still be on their way.
func (w *world) restart(n *node) {
	if n.conn == nil {
		return
	}
	w.note("node %d dies", n.index)
	n.conn.dead = true
	n.conn, n.log = nil, nil
	for _, a := range n.running {
		a.lost = true
		w.after(w.between(1, 100*time.Microsecond), a.cancel)
	}
	n.running = nil
	w.after(w.skewed(time.Millisecond, 2*time.Second), n.start)
}

// errSync is how the barrier fails.
var errSync = errors.New("simulated: fdatasync failed")

// Settle implements Durability.
func (s *simulatedLog) Settle(context.Context, Recovery) error { return nil }

// Intend implements Durability: what a power cut leaves of a write is for the embedded log.
func (s *simulatedLog) Intend(uint64, []*nats.Msg) (func(uint64), error) { return func(uint64) {}, nil }

// Err implements Durability.
func (s *simulatedLog) Err() error { return nil }

// Durable is the barrier: a sync for each that waits.
func (s *simulatedLog) Durable(ctx context.Context, position uint64) error {
	w := s.world
	w.mu.Lock()
	switch {
	case s.broken:
		w.mu.Unlock()
		return errSync
	case position <= s.synced:
		w.mu.Unlock()
		return nil
	}
	delay := w.between(50*time.Microsecond, 3*time.Millisecond)
	if w.hit(w.faults.syncSlow, "slow sync") {
		delay = w.skewed(100*time.Millisecond, 5*time.Second)
	}
	covered, lives := uint64(len(s.entries)), s.lives
	synced := make(chan error, 1)
	w.after(delay, func() {
		switch {
		case s.lives != lives: // nobody is there any more
		case s.broken:
			synced <- errSync
		default:
			s.synced = max(s.synced, covered)
			synced <- nil
		}
	})
	w.mu.Unlock()
	select {
	case err := <-synced:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// someNode returns a node that runs, nil if it drew one that does not.
func (w *world) someNode() *node {
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	if n.conn == nil {
		return nil
	}
	return n
}

func (n *node) ended(a *attempt) {
	n.running = slices.DeleteFunc(n.running, func(b *attempt) bool { return a == b })
}
