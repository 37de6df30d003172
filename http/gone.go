package http

import (
	"context"
	"net"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"
)

// lookEvery is how often the connections whose handler is at work are looked at. A
// client that left is noticed after one to two times of this.
const lookEvery = 150 * time.Millisecond

// watch ends the contexts of clients that have gone away, until done is closed.
//
// The framework reads from a connection between two requests only, so a handler that
// waits is not told that nobody waits for it any more. Nearly all of them are done
// before they are looked at once; those that are not cost one system call each, and
// the others nothing.
func (cs *connections) watch(done <-chan struct{}) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	var waiting []*connection
	for {
		select {
		case <-done:
			return
		case <-ticker.C:
		}
		waiting = cs.waiting(waiting[:0])
		for _, c := range waiting {
			if c.ctx.Err() == nil && hungUp(c.Conn) {
				cs.gone.Add(1)
				c.leave()
			}
		}
		clear(waiting)
	}
}

// waiting appends the connections whose handler has been at work on the same request
// since the last look.
func (cs *connections) waiting(to []*connection) []*connection {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for c := range cs.open {
		turns := c.turns.Load()
		if turns == c.seen && turns%2 == 1 {
			to = append(to, c)
		}
		c.seen = turns
	}
	return to
}

// clientContext ends when the client has gone away. What waits for something on the
// client's behalf has a context below it.
func clientContext(c *fiber.Ctx) context.Context { return contextOf(c.Context().Conn()) }

func contextOf(c net.Conn) context.Context {
	if own, ok := c.(*connection); ok {
		return own.ctx
	}
	return context.Background()
}

// clientGone says whether the client has gone away while its request waited.
func clientGone(c *fasthttp.RequestCtx) bool { return contextOf(c.Conn()).Err() != nil }
