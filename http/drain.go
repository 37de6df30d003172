package http

import (
	"context"
	"net"
	"sync"
	"sync/atomic"

	"github.com/valyala/fasthttp"
)

// connections knows which connections have a request under way, so that a
// shutdown closes the others. What fasthttp knows about that is not enough: it
// waits for connections on which nothing has been sent yet, and it may close one
// just as a request arrives, which is carried out then and not answered.
type connections struct {
	draining atomic.Bool
	gone     atomic.Uint64 // clients that left while their request waited
	mu       sync.Mutex
	open     map[*connection]struct{}
}

// A connection is at rest until a request has arrived, and from its answer on.
type connection struct {
	net.Conn
	state atomic.Int32

	ctx   context.Context // ends when the client is gone; see watch
	leave context.CancelFunc
	turns atomic.Uint64 // counts the handler's beginnings and ends: odd while it is at work
	seen  uint64        // turns at the last look
}

const (
	resting int32 = iota
	busy
	closed
)

// A listener tells its connections about those that it accepts.
type listener struct {
	net.Listener
	connections *connections
}

// Accept implements net.Listener.
func (l listener) Accept() (net.Conn, error) {
	for {
		accepted, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &connection{Conn: accepted}
		c.ctx, c.leave = context.WithCancel(context.Background())
		if l.connections.enter(c) {
			return c, nil
		}
		_ = accepted.Close()
	}
}

// enter says whether the connection may stay.
func (cs *connections) enter(c *connection) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.open == nil {
		cs.open = map[*connection]struct{}{}
	}
	if cs.draining.Load() {
		return false
	}
	cs.open[c] = struct{}{}
	return true
}

// begin says whether a request that has arrived may be carried out. Where not,
// its connection was closed already, and nobody would get the answer.
func begin(c net.Conn) bool {
	own, ok := c.(*connection)
	if !ok {
		return true
	}
	if !own.state.CompareAndSwap(resting, busy) && own.state.Load() != busy {
		return false
	}
	own.turns.Add(1)
	return true
}

// end says that the handler has made its answer, and only has to send it.
func end(c net.Conn) {
	if own, ok := c.(*connection); ok {
		own.turns.Add(1)
	}
}

// changed is told by fasthttp that a request was answered, or a connection ended.
func (cs *connections) changed(c net.Conn, to fasthttp.ConnState) {
	own, ok := c.(*connection)
	if !ok {
		return
	}
	switch to {
	case fasthttp.StateIdle:
		own.state.CompareAndSwap(busy, resting)
		if cs.draining.Load() {
			own.closeResting()
		}
	case fasthttp.StateClosed, fasthttp.StateHijacked: // closed, or not ours any more
		own.leave()
		cs.mu.Lock()
		defer cs.mu.Unlock()
		delete(cs.open, own)
	}
}

// drain closes the connections at rest, and the others when they come to it.
func (cs *connections) drain() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.draining.Store(true)
	for c := range cs.open {
		c.closeResting()
	}
}

func (c *connection) closeResting() {
	if c.state.CompareAndSwap(resting, closed) {
		_ = c.Close()
	}
}
