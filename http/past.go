package http

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/gofiber/fiber/v2"

	"chatsessions/domain"
	"chatsessions/http/conn"
	"chatsessions/http/problem"
)

// Reading a long history costs, and what was read of it is kept until it is told. So
// many events are read at once; for what has more there are so many places, and others
// wait for one.
const (
	shortHistory  = 32
	longHistories = 4
)

// past gives the events of a session that the caller may see, the newest first, as the
// log's leader has them: what was answered is among them. Who may see the session as it
// is now may see all of its past. An error ends it. ctx has to have a deadline.
func (s *Server) past(ctx context.Context, caller domain.Caller, id string) iter.Seq2[domain.Record, error] {
	return func(yield func(domain.Record, error) bool) {
		told, position := 0, uint64(0) // events, and where the oldest of them is
		for r, err := range s.Log.History(ctx, id) {
			if err == nil && told == 0 {
				err = s.admitToPast(ctx, caller, &r)
			}
			if err == nil && told == shortHistory {
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
			told, position = told+1, r.Position
		}
	}
}

// admitToPast judges by the newest event whether the caller may see the session, and
// sees to it that nobody is shown an older state from now on.
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

// endOfPast says why the past cannot be told, or only back to a position, which is not
// 0 then.
func endOfPast(ctx context.Context, err error, id string, position uint64) error {
	var event interface {
		error
		EventPosition() uint64
	}
	newer := fmt.Sprintf("%s/%s/events?after=%d", pathSessions, id, position-1)
	switch {
	case errors.As(err, &event) && position > 0:
		return problem.Unavailable(err, "event %d of the log, one of this session, cannot be read, so nothing before position %d can be told; the rest is at %s, and `chatsessions verify` tells whoever runs the service more",
			event.EventPosition(), position, newer).With(fiber.HeaderRetryAfter, "3600")
	case errors.As(err, &event):
		p := problem.Unreadable(err)
		p.Detail += fmt.Sprintf(" (position %d)", event.EventPosition())
		p.Message = p.Detail
		return p
	case errors.Is(ctx.Err(), context.DeadlineExceeded) && position > 0:
		return problem.Unavailable(err, "it took too long to read the session's history: within %d s only what is from position %d on was read; that is at %s, and the command chatsessions history tells all of it",
			readDeadline/time.Second, position, newer)
	}
	return err
}

// awaitInLog is awaitPosition for what is read from the log: there, every position that
// a client was ever told is, so nothing has to be waited for.
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
