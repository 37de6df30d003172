package http

import (
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v2"

	"chatsessions/http/auth"
	"chatsessions/http/feed"
	"chatsessions/http/problem"
)

// admission counts and bounds POSTs and PATCHes in flight: with a slow log, more delay all.
type admission struct {
	limit    int64 // 0 for none
	inFlight atomic.Int64
	refused  atomic.Uint64
	warned   atomic.Int64 // when a warning was logged last, ns
}

// warnEvery is the shortest time between two warnings about refused commands.
const warnEvery = 10 * time.Second

// admit is a middleware that gives a command a place, or refuses it before it costs anything. A
// caller who may not write is not asked to try again.
func (s *Server) admit(c *fiber.Ctx) error {
	if err := auth.CheckWriter(c); err != nil {
		return err
	}
	if !s.admission.enter() {
		return s.overloaded()
	}
	defer s.admission.inFlight.Add(-1)
	return c.Next()
}

// enter takes a place, or returns false when there is none left.
func (c *admission) enter() bool {
	if n := c.inFlight.Add(1); c.limit > 0 && n > c.limit {
		c.inFlight.Add(-1)
		return false
	}
	return true
}

func (s *Server) overloaded() error {
	limit := s.admission.limit
	refused := s.admission.refused.Add(1)
	last, now := s.admission.warned.Load(), s.Now().UnixNano()
	if now-last >= int64(warnEvery) && s.admission.warned.CompareAndSwap(last, now) {
		s.Logger.Warn("commands are refused: the limit of commands in flight is reached", "limit", limit, "refused since the start", refused)
	}
	return problem.Unavailable(nil, "this node has reached its limit of %d changes in flight; nothing was written, try again", limit).Quietly().Written(false)
}

// Stats are what a server counts.
type Stats struct {
	// Commands is how many are in flight now; Refused counts those beyond MaxCommands.
	Commands int64
	Refused  uint64
	// Gone counts the clients that disconnected while their request waited.
	Gone uint64
	Feed feed.Stats
}

// Stats returns the current counts.
func (s *Server) Stats() Stats {
	return Stats{Commands: s.admission.inFlight.Load(), Refused: s.admission.refused.Load(), Gone: s.conns.Gone(), Feed: s.feed.Stats()}
}
