package feed

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"

	"chatsessions/domain"
	"chatsessions/http/auth"
	"chatsessions/http/conn"
	"chatsessions/http/problem"
)

// A Log is the log as the feed reads it.
type Log interface {
	// End returns the position of the newest event, or domain.ErrUnavailable.
	End(ctx context.Context) (uint64, error)
	// Follow calls handle with every event after a position, in order and in batches of
	// about limit events, first those that exist and then new ones. It returns when ctx
	// ends, handle fails, or the log cannot be followed any more. It recovers from lost
	// connections.
	Follow(ctx context.Context, after uint64, limit int, handle func([]domain.Entry) error) error
	// Read is Follow up to a position, which must be in the log.
	Read(ctx context.Context, after, upTo uint64, limit int, handle func([]domain.Entry) error) error
	// History returns the events of a session, the newest first.
	History(ctx context.Context, id string) iter.Seq2[domain.Record, error]
	// Durable returns when the events up to a position are on disk.
	Durable(ctx context.Context, position uint64) error
}

const (
	// Path is the resource of the feed.
	Path = "/chat-sessions/events"

	headerLastEventID = "Last-Event-ID"
	mimeEventStream   = "text/event-stream"

	readDeadline = 5 * time.Second

	// A client whose stream has ended reconnects after reconnectAfter, plus a random part
	// of reconnectSpread, so that the clients of a node do not all come at once.
	reconnectAfter  = time.Second
	reconnectSpread = 2 * time.Second
)

// Events is GET /chat-sessions/events. After the head, the hub has the connection.
func (h *Hub) Events(c *fiber.Ctx) error {
	query, err := parseQuery(conn.Query(c))
	if err != nil {
		return err
	}
	from, err := asked(c, query.after)
	if err != nil {
		return err
	}
	after, end, err := h.start(conn.Context(c), from)
	if err != nil {
		return err
	}
	if h.full() {
		return problem.Unavailable(nil, "this node has reached its limit of %d readers of the feed; try again, or try another node", h.limits.readers).Quietly()
	}
	c.Set(fiber.HeaderContentType, mimeEventStream)
	c.Set(fiber.HeaderCacheControl, "no-store")
	c.Set("X-Accel-Buffering", "no") // nginx would hold events back
	if c.Method() == fiber.MethodHead {
		return nil
	}
	r := &reader{query: query, caller: auth.Caller(c), token: auth.Token(c), after: after}
	conn.TakeOver(c, func(connection net.Conn, head []byte) {
		r.take(connection)
		h.open(r, end, append(head, preamble(after)...))
	})
	return nil
}

// preamble begins a stream: the time until a reconnection, and the position.
func preamble(after uint64) []byte {
	retry := reconnectAfter + rand.N(reconnectSpread)
	return fmt.Appendf(nil, "retry: %d\n: the feed of chat-sessions, after position %d\nid: %d\n\n", retry.Milliseconds(), after, after)
}

// asked returns the position that Last-Event-ID or else the query asks for, or nil. A client
// that reconnects sends the URL with which it began, so the header has precedence.
func asked(c *fiber.Ctx, after *uint64) (*uint64, error) {
	for i, given := range c.Request().Header.PeekAll(headerLastEventID) {
		if len(given) == 0 {
			continue
		}
		position, err := parsePosition(string(given))
		if err != nil || i > 0 {
			return nil, problem.BadRequest("%s: %q is not a position; send the id of the last event that was received, one whole number", headerLastEventID, given)
		}
		after = &position
	}
	return after, nil
}

// start returns where a stream begins, by default at the end, and the end of the log.
func (h *Hub) start(ctx context.Context, after *uint64) (position, end uint64, err error) {
	if end = h.hasRead(); after != nil && end > 0 && *after <= end {
		return *after, end, nil
	}
	ctx, cancel := context.WithTimeout(ctx, readDeadline)
	defer cancel()
	end, err = h.log.End(ctx)
	switch {
	case err != nil:
		return 0, 0, err
	case after == nil:
		return end, end, nil
	case *after > end:
		return 0, 0, beyondEnd(*after, end)
	}
	return *after, end, nil
}

// parsePosition reads a position, plain (10) or tagged (#10).
func parsePosition(text string) (uint64, error) {
	return strconv.ParseUint(strings.TrimPrefix(text, "#"), 10, 64)
}

// beyondEnd refuses a position that the log does not have. The client has read events that
// are gone, so the stream does not continue as if nothing had happened.
func beyondEnd(after, end uint64) error {
	p := problem.New(fiber.StatusConflict,
		"the log ends at position %d, so nothing can follow position %d: it was restored from an older copy, or the position is of another log; start again, with after=0 or without after", end, after)
	p.LogEnd = &end
	return p
}
