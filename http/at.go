package http

import (
	"time"

	"github.com/gofiber/fiber/v2"

	"chatsessions/domain"
	"chatsessions/http/feathers"
	"chatsessions/http/problem"
)

// getAt is GET /chat-sessions/:id?at=<time>: the session at the end of that millisecond.
func (s *Server) getAt(c *fiber.Ctx, at int64, condition conditions, names feathers.Selection) error {
	var recordedAt int64 // of the oldest event so far
	newest := true
	for r, err := range s.requestedPast(c) {
		if err != nil {
			return err
		}
		session := &r.Event.Session
		recordedAt = session.UpdatedAt
		// The newest event may come from a node whose clock is ahead.
		if now := max(s.Now().UnixMilli(), recordedAt); newest && at > now {
			return inTheFuture(at, now)
		}
		newest = false
		if recordedAt > at {
			continue
		}
		if answered, err := condition.answer(c, session.Version, problem.ETag(session.Version)); answered || err != nil {
			return err
		}
		return sendSession(c, names.Project(r.JSON()), session.Version)
	}
	return problem.New(fiber.StatusNotFound, "at %s there was no such session yet: its first event was recorded at %s",
		timestamp(at), timestamp(recordedAt))
}

// inTheFuture refuses a time by which more may still be recorded.
func inTheFuture(at, now int64) error {
	return problem.New(fiber.StatusUnprocessableEntity,
		"at is %s, and here it is %s: what will be recorded until then is unknown; leave at out to get the session as it is",
		timestamp(at), timestamp(now))
}

func timestamp(ms int64) string { return time.UnixMilli(ms).UTC().Format(domain.TimeFormat) }
