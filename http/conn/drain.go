package conn

import (
	"context"
	"net"
	"sync"
	"sync/atomic"

	"github.com/valyala/fasthttp"
)

// A tracker knows which connections have a request in flight.
type tracker struct {
	draining atomic.Bool
	gone     atomic.Uint64 // clients that disconnected while their request waited
	mu       sync.Mutex
	open     map[*connection]struct{}
}

// A connection is idle (at rest) until a request arrives, and again after each response.
type connection struct {
	net.Conn
	state atomic.Int32

	ctx    context.Context // ends when the client disconnects; see watch
	cancel context.CancelFunc
	turns  atomic.Uint64 // counts the handler's beginnings and ends: odd while it runs
	seen   uint64        // turns when watch looked last
}

const (
	resting int32 = iota
	busy
	closed
)

// A listener adds the connections that it accepts to the tracker.
type listener struct {
	net.Listener
	tracker *tracker
}

// Accept implements net.Listener.
func (l listener) Accept() (net.Conn, error) {
	for {
		accepted, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &connection{Conn: accepted}
		c.ctx, c.cancel = context.WithCancel(context.Background())
		if l.tracker.add(c) {
			return c, nil
		}
		_ = accepted.Close()
	}
}

// add takes a new connection, and returns false while the server drains.
func (t *tracker) add(c *connection) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open == nil {
		t.open = map[*connection]struct{}{}
	}
	if t.draining.Load() {
		return false
	}
	t.open[c] = struct{}{}
	return true
}

// begin reports whether a request may be carried out, because its connection is open.
func (c *connection) begin() bool {
	if !c.state.CompareAndSwap(resting, busy) && c.state.Load() != busy {
		return false
	}
	c.turns.Add(1)
	return true
}

// changed is fasthttp's report that a response was sent, or a connection ended.
func (t *tracker) changed(c net.Conn, to fasthttp.ConnState) {
	own := c.(*connection)
	switch to {
	case fasthttp.StateIdle:
		own.state.CompareAndSwap(busy, resting)
		if t.draining.Load() {
			own.closeResting()
		}
	case fasthttp.StateClosed, fasthttp.StateHijacked: // closed, or taken over
		own.cancel()
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.open, own)
	}
}

// drain closes idle connections now, and each of the others after its response.
func (t *tracker) drain() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.draining.Store(true)
	for c := range t.open {
		c.closeResting()
	}
}

func (c *connection) closeResting() {
	if c.state.CompareAndSwap(resting, closed) {
		_ = c.Close()
	}
}
