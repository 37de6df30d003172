package http

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"net"
	"strconv"
	"time"

	"github.com/gofiber/fiber/v2"

	"chatsessions/domain"
	"chatsessions/http/auth"
	"chatsessions/http/conn"
	"chatsessions/http/problem"
)

// A FeedLog is the log as the feed reads it.
type FeedLog interface {
	// End is the position of the newest event. It returns domain.ErrUnavailable.
	End(ctx context.Context) (uint64, error)
	// Follow gives every event after a position to handle, in order and in batches of
	// about limit events, those that are there and then the new ones, until ctx ends,
	// handle fails, or the log cannot be followed any more. It makes good for lost
	// connections by itself.
	Follow(ctx context.Context, after uint64, limit int, handle func([]domain.Entry) error) error
	// Read is Follow up to a position, which has to be in the log.
	Read(ctx context.Context, after, upTo uint64, limit int, handle func([]domain.Entry) error) error
	// History returns the events of a session, the newest first.
	History(ctx context.Context, id string) iter.Seq2[domain.Record, error]
	// Durable returns when the events up to a position are on disk. Nothing is shown
	// before.
	Durable(ctx context.Context, position uint64) error
}

const (
	// DefaultFeedHeartbeat is how often a stream of the feed shows that it lives.
	DefaultFeedHeartbeat = 15 * time.Second

	headerLastEventID = "Last-Event-ID"
	mimeEventStream   = "text/event-stream"

	// A client whose stream has ended comes back after reconnectAfter, and up to
	// reconnectSpread later: those of one node not all at once.
	reconnectAfter  = time.Second
	reconnectSpread = 2 * time.Second
)

// events is GET /chat-sessions/events, a stream of server-sent events (HTML Living
// Standard, section 9.2). From its head on, the connection is the hub's.
func (s *Server) events(c *fiber.Ctx) error {
	query, err := parseFeedQuery(queryString(c))
	if err != nil {
		return err
	}
	after, err := s.feedStart(c, query.after)
	if err != nil {
		return err
	}
	if s.hub.full() {
		return problem.Unavailable(nil, "this node has as many readers of the feed as it takes, %d; try again, or another node", s.hub.most).Quietly()
	}
	c.Set(fiber.HeaderContentType, mimeEventStream)
	c.Set(fiber.HeaderCacheControl, "no-store")
	c.Set("X-Accel-Buffering", "no") // nginx would hold events back
	if c.Method() == fiber.MethodHead {
		return nil
	}
	r := &feedReader{feedQuery: query, caller: auth.Caller(c), token: auth.Token(c), after: after}
	conn.TakeOver(c, func(connection net.Conn, head []byte) {
		r.takes(connection)
		s.hub.open(r, append(head, preamble(after)...))
	})
	return nil
}

// preamble begins a stream: how long to wait before the next, and where this one is.
func preamble(after uint64) []byte {
	retry := reconnectAfter + rand.N(reconnectSpread)
	return fmt.Appendf(nil, "retry: %d\n: the feed of chat-sessions, after position %d\nid: %d\n\n", retry.Milliseconds(), after, after)
}

// feedStart is the position after which the stream begins: what Last-Event-ID says, or
// ?after, or else the end of the log. A client that reconnects sends the URL with
// which it began, so the header has precedence.
func (s *Server) feedStart(c *fiber.Ctx, after *uint64) (uint64, error) {
	for i, given := range c.Request().Header.PeekAll(headerLastEventID) {
		if len(given) == 0 {
			continue
		}
		position, err := parsePlace(string(given))
		if err != nil || i > 0 {
			return 0, problem.BadRequest("%s: %q is not a position; send the id of the last event that was received, one whole number", headerLastEventID, given)
		}
		after = &position
	}
	if after != nil && s.hub.hasRead(*after) {
		return *after, nil
	}
	ctx, cancel := context.WithTimeout(conn.Context(c), readDeadline)
	defer cancel()
	end, err := s.Feed.End(ctx)
	switch {
	case err != nil:
		return 0, err
	case after == nil:
		return end, nil
	case *after > end:
		return 0, beyondEnd(*after, end)
	}
	return *after, nil
}

// parsePlace reads a position, plain (10) or tagged (#10).
func parsePlace(text string) (uint64, error) {
	if len(text) > 0 && text[0] == '#' {
		text = text[1:]
	}
	return strconv.ParseUint(text, 10, 64)
}

// beyondEnd refuses a position that the log does not have. Whoever was given it has read
// events that are gone, so he is not sent on as if nothing had happened.
func beyondEnd(after, end uint64) error {
	p := problem.New(fiber.StatusConflict,
		"the log ends at position %d, so nothing can follow position %d: it was restored from an older copy, or the position is of another log; begin anew, with after=0 or without it", end, after)
	p.LogEnd = &end
	return p
}

// methodNotAllowed answers for a resource that can only be read, where the router would
// find another one that can be more.
func methodNotAllowed(c *fiber.Ctx) error {
	c.Set(fiber.HeaderAllow, "GET, HEAD")
	return fiber.ErrMethodNotAllowed
}
