package conn

import (
	"context"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"
)

// Context ends when the client disconnects. It is for whatever waits on behalf of the client.
func Context(c *fiber.Ctx) context.Context { return c.Context().Conn().(*connection).ctx }

// Gone reports whether the client disconnected while its request waited.
func Gone(c *fasthttp.RequestCtx) bool { return c.Conn().(*connection).ctx.Err() != nil }

// lookEvery is how often connections with a running handler are checked.
const lookEvery = 150 * time.Millisecond

// watch ends the contexts of clients that disconnected, until done is closed. Only a handler that
// is seen twice costs a system call.
func (t *tracker) watch(done <-chan struct{}) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	var waiting []*connection
	for {
		select {
		case <-done:
			return
		case <-ticker.C:
		}
		waiting = t.waiting(waiting[:0])
		for _, c := range waiting {
			if c.ctx.Err() == nil && HungUp(c.Conn) {
				t.gone.Add(1)
				c.cancel()
			}
		}
		clear(waiting)
	}
}

// waiting appends the connections that have had the same handler since the last call.
func (t *tracker) waiting(to []*connection) []*connection {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.open {
		turns := c.turns.Load()
		if turns == c.seen && turns%2 == 1 {
			to = append(to, c)
		}
		c.seen = turns
	}
	return to
}
