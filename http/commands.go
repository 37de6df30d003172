package http

import (
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v2"

	"chatsessions/http/auth"
	"chatsessions/http/feed"
	"chatsessions/http/problem"
)

// commands are the POSTs and PATCHes that are being carried out. Their number is
// bounded: each takes memory and a place in the queue for the log, and behind a log
// that is slow or gone one more would only make all of them later.
type commands struct {
	limit    int64 // 0 for none
	inFlight atomic.Int64
	refused  atomic.Uint64
	warned   atomic.Int64 // when the log was told last that some were refused, ns
}

// warnEvery is how often, at most, the log says that commands are refused.
const warnEvery = 10 * time.Second

// admit gives a command its place, or refuses it at once. That comes behind what is
// wrong with the caller, who would otherwise be told to come again in vain, and
// before everything that costs.
func (s *Server) admit(c *fiber.Ctx) error {
	if err := auth.CheckWriter(c); err != nil {
		return err
	}
	if !s.commands.enter() {
		return s.overloaded()
	}
	defer s.commands.inFlight.Add(-1)
	return c.Next()
}

// enter takes a place; false when there is none left.
func (c *commands) enter() bool {
	for {
		n := c.inFlight.Load()
		if c.limit > 0 && n >= c.limit {
			return false
		}
		if c.inFlight.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (s *Server) overloaded() error {
	limit := s.commands.limit
	refused := s.commands.refused.Add(1)
	last, now := s.commands.warned.Load(), s.Now().UnixNano()
	if now-last >= int64(warnEvery) && s.commands.warned.CompareAndSwap(last, now) {
		s.Logger.Warn("commands are refused: as many as may be are in flight", "limit", limit, "refused since the start", refused)
	}
	return problem.Unavailable(nil, "this node has as many changes in flight as it takes, %d; nothing was written, try again", limit).Quietly().Written(false)
}

// Stats are what a server counts.
type Stats struct {
	// Commands are in flight now; Refused were those beyond MaxCommands.
	Commands int64
	Refused  uint64
	// Gone are the clients that left while their request waited.
	Gone uint64
	Feed feed.Stats
}

// Stats returns what is so now.
func (s *Server) Stats() Stats {
	return Stats{Commands: s.commands.inFlight.Load(), Refused: s.commands.refused.Load(), Gone: s.conns.Gone(), Feed: s.feed.Stats()}
}
