package feed

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v2"

	"chatsessions/http/auth"
	"chatsessions/http/conn"
	"chatsessions/http/problem"
)

// A Hub reads the log once for all readers of the feed on this node.
type Hub struct {
	log    Log
	tokens auth.Verifier
	logger *slog.Logger
	limits limits
	// seats holds one element for each reader that reads the log for itself.
	seats chan struct{}

	mu      sync.Mutex
	reading *reading // nil while there is no reader
	closed  bool
	running sync.WaitGroup
	counts  counts
}

// Config is what a Hub needs.
type Config struct {
	Log     Log
	Tokens  auth.Verifier
	Readers int           // how many there may be; 0 for no limit
	Beat    time.Duration // between two heartbeats of a stream; 0 for DefaultHeartbeat
	Logger  *slog.Logger
}

// DefaultHeartbeat is the time between two heartbeats of a stream.
const DefaultHeartbeat = 15 * time.Second

// limits are what a test makes smaller.
type limits struct {
	readers    int64         // 0 for no limit
	heartbeat  time.Duration // between two heartbeats of a reader; its token is checked as often
	patience   time.Duration // how long a reader may take nothing of what is written to it
	batch      int           // events of the log that are published together, about
	ringEvents int           // newest events that are kept
	ringBytes  int           // and their size, about
	groups     int
	stepEvents int // events of the log that are read for one reader at a time
	stepBytes  int // and bytes of them that are sent, about
	lookups    int // events of sessions that are looked up rather than read
}

const (
	// maxSeats is how many readers read the log for themselves at once.
	maxSeats = 16
	// beats spreads the heartbeats of readers over that many parts of the period.
	beats = 16
)

type counts struct {
	readers, behind                  atomic.Int64
	sent, slow, revoked, ended, gone atomic.Uint64
}

// NewHub returns a hub. It reads nothing before the first reader comes.
func NewHub(c Config) *Hub {
	if c.Beat <= 0 {
		c.Beat = DefaultHeartbeat
	}
	return &Hub{
		log: c.Log, tokens: c.Tokens, logger: c.Logger, seats: make(chan struct{}, maxSeats),
		limits: limits{
			readers: int64(c.Readers), heartbeat: c.Beat, patience: 10 * time.Second,
			batch: 256, ringEvents: 16 << 10, ringBytes: 32 << 20, groups: runtime.GOMAXPROCS(0),
			stepEvents: 8 << 10, stepBytes: 256 << 10, lookups: 1000,
		},
	}
}

// The reasons for which a stream ends. Others are errors of the log.
var (
	errGone     = errors.New("the client is gone")
	errUnused   = errors.New("the feed has no readers")
	errDraining = problem.Unavailable(nil, "this node is shutting down; reconnect, and another node continues the stream from here")
	errRevoked  = problem.New(fiber.StatusUnauthorized, "the token is no longer valid, or now belongs to another account or role")
	errTooSlow  = problem.Unavailable(nil, "the client read more slowly than events arrived; reconnect, and the stream continues after the last event that was sent")
)

func logLost(err error) *problem.Problem {
	return problem.Unavailable(err, "the log cannot be followed from here any more: it was replaced, restored from an older copy, or cannot be reached for good; connect again to see")
}

// full reports whether the reader limit is reached.
func (h *Hub) full() bool { return h.limits.readers > 0 && h.counts.readers.Load() >= h.limits.readers }

// hasRead returns up to where the log is known, 0 while it is not read.
func (h *Hub) hasRead() uint64 {
	h.mu.Lock()
	g := h.reading
	h.mu.Unlock()
	if g == nil || g.ctx.Err() != nil {
		return 0
	}
	return g.head()
}

// open takes a reader, and sends it head. end is the end of the log, or was shortly before.
func (h *Hub) open(r *reader, end uint64, head []byte) {
	h.counts.readers.Add(1)
	h.counts.behind.Add(1)
	taken, err := conn.TryWrite(r.conn, head)
	g := h.join(r, end)
	switch {
	case g == nil:
		h.end(r, head[taken:], errDraining)
		return
	case err != nil:
		h.end(r, nil, errGone)
	case taken < len(head) || !g.goLive(r):
		g.catchUp(r, head[taken:])
	}
	h.running.Done()
}

// join assigns a reader to a group; nil if the hub is closed. The caller must call running.Done.
func (h *Hub) join(r *reader, end uint64) *reading {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil
	}
	if h.reading == nil {
		h.reading = h.begin(end)
	}
	g := h.reading
	h.running.Add(1)
	g.next++
	r.group, r.phase = g.groups[g.next%len(g.groups)], uint8(g.next/len(g.groups)%beats)
	return g
}

// move moves a reader to another state.
func (h *Hub) move(r *reader, to state) {
	if r.state == behind {
		h.counts.behind.Add(-1)
	}
	if to == behind {
		h.counts.behind.Add(1)
	}
	r.state = to
}

// check returns the reason for which a stream must end: a client that is gone, or its token.
func (h *Hub) check(r *reader) error {
	if conn.HungUp(r.conn) {
		return errGone
	}
	if caller, ok := h.tokens.Verify(r.token); !ok || caller != r.caller {
		return errRevoked
	}
	return nil
}

// end ends a stream, and sends the client the rest of an event that was begun and the reason.
func (h *Hub) end(r *reader, rest []byte, reason error) {
	h.move(r, ended)
	switch {
	case errors.Is(reason, errGone):
		h.counts.gone.Add(1)
	case errors.Is(reason, errTooSlow):
		h.counts.slow.Add(1)
		h.logger.Info("a reader of the feed was cut off, it is too slow", "account", r.caller.Account, "position", r.after)
	case errors.Is(reason, errRevoked):
		h.counts.revoked.Add(1)
		h.logger.Info("a reader of the feed was cut off, its token is not valid any more", "account", r.caller.Account, "position", r.after)
	default:
		h.counts.ended.Add(1)
	}
	if !errors.Is(reason, errGone) {
		r.writeLast(rest, problem.Of(reason))
	}
	_ = r.conn.Close()
	h.counts.readers.Add(-1)
}

// Close ends all streams, for good, and returns when that is done or ctx ends.
func (h *Hub) Close(ctx context.Context) {
	h.mu.Lock()
	h.closed = true
	g := h.reading
	h.mu.Unlock()
	if g != nil {
		g.close(errDraining)
	}
	done := make(chan struct{})
	go func() {
		h.running.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// Stats are what the feed counts.
type Stats struct {
	// Readers are connected now; CatchingUp are those of them that are behind.
	Readers, CatchingUp int64
	// Sent are the events that were sent, once for each reader.
	Sent uint64
	// TooSlow, Revoked, and Ended count the streams that the server ended: the reader was
	// too slow, its token was not valid any more, or the log or the node ended. Gone counts
	// the clients that disconnected.
	TooSlow, Revoked, Ended, Gone uint64
}

// Stats returns the current counts.
func (h *Hub) Stats() Stats {
	c := &h.counts
	return Stats{
		Readers: c.readers.Load(), CatchingUp: c.behind.Load(), Sent: c.sent.Load(),
		TooSlow: c.slow.Load(), Revoked: c.revoked.Load(), Ended: c.ended.Load(), Gone: c.gone.Load(),
	}
}
