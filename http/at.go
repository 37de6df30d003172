package http

import (
	"context"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"

	"chatsessions/domain"
	"chatsessions/http/auth"
	"chatsessions/http/problem"
)

// getAt is GET /chat-sessions/:id?at=<time>: the session as it had been recorded by
// the end of that millisecond.
func (s *Server) getAt(c *fiber.Ctx, at int64, condition conditions, names selection) error {
	if err := s.awaitInLog(c); err != nil {
		return err
	}
	id, known := sessionID(c)
	if !known {
		return problem.NotFound()
	}
	ctx, cancel := context.WithTimeout(clientContext(c), readDeadline)
	defer cancel()
	var recordedAt int64 // of the oldest event so far
	newest := true
	for r, err := range s.past(ctx, auth.Caller(c), id) {
		if err != nil {
			return err
		}
		session := &r.Event.Session
		recordedAt = session.UpdatedAt
		// The newest event may be of a node whose clock is ahead of this one's.
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
		return sendSession(c, names.project(r.JSON()), session.Version)
	}
	return problem.New(fiber.StatusNotFound, "at %s there was no such session yet: its first event was recorded at %s",
		timestamp(at), timestamp(recordedAt))
}

// inTheFuture refuses a time of which nobody can say yet what will be recorded by then.
func inTheFuture(at, now int64) error {
	return problem.New(fiber.StatusUnprocessableEntity,
		"at is %s, and here it is %s: what will be recorded until then cannot be told; leave at out to get the session as it is",
		timestamp(at), timestamp(now))
}

func timestamp(ms int64) string { return time.UnixMilli(ms).UTC().Format(domain.TimeFormat) }

// A sessionQuery is the query of a GET of a single session.
type sessionQuery struct {
	names selection
	at    *int64 // epoch milliseconds; nil for now
}

func parseSessionQuery(text string) (sessionQuery, error) {
	var q sessionQuery
	params, err := parseParams(text)
	if err != nil {
		return q, err
	}
	for _, p := range params {
		switch name := p.path[0]; {
		case len(p.path) == 1 && name == "$select":
			err = q.names.add(p)
		case len(p.path) == 1 && name == "at" && q.at != nil:
			err = problem.BadRequest("at is given twice")
		case len(p.path) == 1 && name == "at":
			var at int64
			at, err = p.instant()
			q.at = &at
		default:
			err = problem.BadRequest("%s means nothing for a single session; there are $select, and at for the session as it was", p.key)
		}
		if err != nil {
			return q, err
		}
	}
	return q, nil
}

// instant reads a time: epoch milliseconds, plain or tagged, or RFC 3339, of which what
// is finer than a millisecond is cut off.
func (p param) instant() (int64, error) {
	if ms, ok := readWhole(strings.TrimPrefix(p.value, "#")); ok {
		if ms < 0 || ms > domain.MaxTime {
			return 0, problem.BadRequest("%s in epoch milliseconds is from 0 to %d, not %s", p.key, domain.MaxTime, p.value)
		}
		return ms, nil
	}
	if t, ok := parseRFC3339(p.value); ok {
		return t.UnixMilli(), nil
	}
	if _, ok := parseRFC3339(strings.ReplaceAll(p.value, " ", "+")); ok {
		return 0, problem.BadRequest("%s is %q: in a query, + stands for a space; write %%2B, or give the time in UTC, with Z", p.key, p.value)
	}
	return 0, problem.BadRequest("%s must be epoch milliseconds, such as 1795348800000, or RFC 3339 with Z or an offset, such as 2026-11-22T12:00:00Z, not %q", p.key, p.value)
}

// parseRFC3339 reads a time, of which T and Z may be in lower case (RFC 3339,
// section 5.6).
func parseRFC3339(text string) (time.Time, bool) {
	t, err := time.Parse(time.RFC3339, strings.ToUpper(text))
	return t, err == nil
}
