package http

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/gofiber/fiber/v2"

	"chatsessions/domain"
	"chatsessions/http/auth"
	"chatsessions/http/conn"
	"chatsessions/http/problem"
)

// A long history costs time and memory: of those with more than shortHistory events,
// longHistories are read at a time.
const (
	shortHistory  = 32
	longHistories = 4
)

// requestedPast is past for the session, the caller, and the position of a request.
func (s *Server) requestedPast(c *fiber.Ctx) iter.Seq2[domain.Record, error] {
	return func(yield func(domain.Record, error) bool) {
		id, known := sessionID(c)
		err := s.awaitInLog(c)
		if err == nil && !known {
			err = problem.NotFound()
		}
		if err != nil {
			yield(domain.Record{}, err)
			return
		}
		ctx, cancel := context.WithTimeout(conn.Context(c), readDeadline)
		defer cancel()
		s.past(ctx, auth.Caller(c), id)(yield)
	}
}

// past returns the events of a session that the caller may see, the newest first, as the
// log's leader has them, so every answered write is among them. A caller who may see the
// session as it is now may see all of its past. An error ends it. ctx must have a deadline.
func (s *Server) past(ctx context.Context, caller domain.Caller, id string) iter.Seq2[domain.Record, error] {
	return func(yield func(domain.Record, error) bool) {
		n, position := 0, uint64(0) // events so far, and the position of the oldest
		for r, err := range s.Log.History(ctx, id) {
			if err == nil && n == 0 {
				err = s.admitToPast(ctx, caller, &r)
			}
			if err == nil && n == shortHistory {
				select {
				case s.histories <- struct{}{}:
					defer func() { <-s.histories }()
				case <-ctx.Done():
					err = ctx.Err()
				}
			}
			if err != nil {
				yield(domain.Record{}, endOfPast(ctx, err, id, position))
				return
			}
			if !yield(r, nil) {
				return
			}
			n, position = n+1, r.Position
		}
	}
}

// admitToPast checks by the newest event whether the caller may see the session, and makes
// sure that no client is shown an older state from now on.
func (s *Server) admitToPast(ctx context.Context, caller domain.Caller, newest *domain.Record) error {
	if err := s.Reads.AwaitEverywhere(ctx, newest.Position); err != nil {
		return err
	}
	s.Reads.Observe(newest.Position)
	if !caller.MaySee(&newest.Event.Session) {
		return problem.NotFound()
	}
	return nil
}

// endOfPast is the error of a past that is readable only back to a position, 0 for none.
func endOfPast(ctx context.Context, err error, id string, position uint64) error {
	var event interface {
		error
		EventPosition() uint64
	}
	newer := fmt.Sprintf("%s/%s/events?after=%d", pathSessions, id, position-1)
	switch {
	case errors.As(err, &event) && position > 0:
		return problem.Unavailable(err, "event %d of the log, one of this session, cannot be read, so nothing before position %d can be shown; the rest is at %s, and the operator finds more with `chatsessions verify`",
			event.EventPosition(), position, newer).With(fiber.HeaderRetryAfter, "3600")
	case errors.As(err, &event):
		p := problem.Unreadable(err)
		p.Detail += fmt.Sprintf(" (position %d)", event.EventPosition())
		p.Message = p.Detail
		return p
	case errors.Is(ctx.Err(), context.DeadlineExceeded) && position > 0:
		return problem.Unavailable(err, "it took too long to read the session's history: within %d s only what is from position %d on was read; that is at %s, and the command `chatsessions history` shows all of it",
			readDeadline/time.Second, position, newer)
	}
	return err
}

// awaitInLog is awaitPosition for what is read from the log. The log has every position
// that a client ever got, so there is nothing to wait for.
func (s *Server) awaitInLog(c *fiber.Ctx) error {
	position, err := parsePosition(c)
	if err != nil || position == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(conn.Context(c), positionDeadline)
	defer cancel()
	end, err := s.Log.End(ctx)
	if err != nil {
		return err
	}
	if position > end {
		return problem.New(fiber.StatusGatewayTimeout, "the log has not reached position %d; its newest event is at %d", position, end)
	}
	return nil
}
