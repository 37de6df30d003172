package http

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v2"

	"chatsessions/domain"
	"chatsessions/http/auth"
	"chatsessions/http/conn"
	"chatsessions/http/problem"
)

// A hub reads the log once for all readers of the feed on this node.
//
// A reader that has everything waits in a room, without a goroutine or a buffer, and is
// written to without waiting. One that is behind, because it begins in the past or took
// less than it was sent, is brought up to date by a goroutine of its own (see pursuit):
// from the recent events that the hub keeps, or from the log; then it goes back to its
// room.
type hub struct {
	log    FeedLog
	tokens auth.Verifier
	logger *slog.Logger
	hubLimits
	// catchUps holds one element for each reader that reads the log for itself.
	catchUps chan struct{}

	mu      sync.Mutex
	reading *reading // nil while nobody reads
	closed  bool
	running sync.WaitGroup
	counts  feedCounts
}

// hubLimits are what a test makes smaller.
type hubLimits struct {
	most        int64         // readers; 0 for no limit
	heartbeat   time.Duration // every reader gets one so often, and its token is checked
	patience    time.Duration // for a reader to take some of what is written to it
	batch       int           // events of the log that are shown together, about
	ringEvents  int           // recent events that are kept
	ringBytes   int           // and their size, about
	rooms       int
	stepEvents  int // events of the log that are looked at for one reader at a time
	stepBytes   int // and what of them is sent, about
	historyMost int // events of sessions that are looked up rather than read
}

const (
	maxCatchUps = 16
	// beats is into how many parts the time between two heartbeats is divided, so that
	// not all readers are written to at once.
	beats = 16
)

type feedCounts struct {
	readers, behind                  atomic.Int64
	sent, slow, revoked, ended, gone atomic.Uint64
}

func newHub(log FeedLog, tokens auth.Verifier, logger *slog.Logger, most int, heartbeat time.Duration) *hub {
	if heartbeat <= 0 {
		heartbeat = DefaultFeedHeartbeat
	}
	return &hub{
		log: log, tokens: tokens, logger: logger, catchUps: make(chan struct{}, maxCatchUps),
		hubLimits: hubLimits{
			most: int64(most), heartbeat: heartbeat, patience: 10 * time.Second,
			batch: 256, ringEvents: 16 << 10, ringBytes: 32 << 20, rooms: runtime.GOMAXPROCS(0),
			stepEvents: 8 << 10, stepBytes: 256 << 10, historyMost: 1000,
		},
	}
}

// A reading is one pass of a hub over the log: from the first reader that came until
// nobody is left, or until the log cannot be followed any more.
type reading struct {
	hub   *hub
	ctx   context.Context // its cause says why the readers are sent away
	stop  context.CancelCauseFunc
	rooms []*feedRoom

	readers int // guarded by the hub
	next    int // room for the next reader; guarded by the hub

	mu   sync.Mutex // before a room's
	ring feedRing
}

// Why streams end, other than by their reader.
var (
	errUnused   = errors.New("nobody reads the feed")
	errDraining = problem.Unavailable(nil, "this node is ending; connect again, and another one goes on from here")
	errRevoked  = problem.New(fiber.StatusUnauthorized, "the token is not valid any more, or stands for somebody else now")
)

func logLost(err error) *problem.Problem {
	return problem.Unavailable(err, "the log cannot be followed from here any more: it was replaced, restored from an older copy, or cannot be reached for good; connect again to see")
}

// full says whether there are as many readers as may be.
func (h *hub) full() bool { return h.most > 0 && h.counts.readers.Load() >= h.most }

// hasRead says whether the log is known to have the position.
func (h *hub) hasRead(position uint64) bool {
	h.mu.Lock()
	g := h.reading
	h.mu.Unlock()
	return g != nil && g.ctx.Err() == nil && position <= g.head()
}

// open takes a reader, and with it its connection, to which head is sent first.
func (h *hub) open(r *feedReader, head []byte) {
	h.counts.readers.Add(1)
	g, err := h.join(r)
	if err != nil {
		h.logger.Warn("a stream of the feed cannot begin", "error", err)
		_, _ = conn.TryWrite(r.conn, head)
		h.sendAway(r, nil, err)
		return
	}
	defer h.running.Done()
	taken, err := conn.TryWrite(r.conn, head)
	if err != nil {
		g.leave(r)
		return
	}
	if rest := head[taken:]; len(rest) > 0 || !g.settle(r) {
		g.pursue(r, rest)
	}
}

// join finds a reader its place in the reading, which it begins if there is none. Without
// an error, it has told running.
func (h *hub) join(r *feedReader) (*reading, error) {
	var end uint64
	for asked := false; ; asked = true {
		h.mu.Lock()
		if h.closed {
			h.mu.Unlock()
			return nil, errDraining
		}
		if h.reading == nil && asked {
			h.reading = h.begin(end)
		}
		if g := h.reading; g != nil {
			h.running.Add(1)
			g.readers++
			g.next++
			r.room, r.phase = g.rooms[g.next%len(g.rooms)], uint8(g.next/len(g.rooms)%beats)
			h.mu.Unlock()
			return g, nil
		}
		h.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), readDeadline)
		var err error
		end, err = h.log.End(ctx)
		cancel()
		if err != nil {
			return nil, err
		}
	}
}

// begin follows the log after a position. The hub is locked.
func (h *hub) begin(after uint64) *reading {
	g := &reading{hub: h, ring: feedRing{floor: after, head: after, maxEvents: h.ringEvents, maxBytes: h.ringBytes}}
	g.ctx, g.stop = context.WithCancelCause(context.Background())
	for range h.rooms {
		g.rooms = append(g.rooms, newFeedRoom(after))
	}
	h.running.Go(func() {
		err := h.log.Follow(g.ctx, after, h.batch, g.publish)
		if g.ctx.Err() == nil {
			h.logger.Error("the feed's reading of the log has ended", "error", err)
		}
		g.end(logLost(err))
	})
	h.running.Go(g.keepAlive)
	h.logger.Debug("the feed reads the log", "after", after)
	return g
}

// publish shows new events to the readers that wait for them.
func (g *reading) publish(events []domain.Entry) error {
	b := newFeedBatch(events)
	if err := g.hub.log.Durable(g.ctx, b.last); err != nil {
		return err
	}
	g.mu.Lock()
	g.ring.add(b)
	g.mu.Unlock()
	var others sync.WaitGroup
	for _, room := range g.rooms[1:] {
		others.Go(func() { room.deliver(g, b) })
	}
	g.rooms[0].deliver(g, b)
	others.Wait()
	return nil
}

func (g *reading) head() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ring.head
}

// settle puts a reader that has everything into its room; false for one that has not,
// or when the reading has ended.
func (g *reading) settle(r *feedReader) bool {
	// What is not in the ring yet finds the reader in the room.
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ctx.Err() == nil && r.after >= g.ring.head && r.room.enter(r)
}

// keepAlive gives every room its heartbeats, and ends the reading when nobody was left
// for the time between two of them.
func (g *reading) keepAlive() {
	ticker := time.NewTicker(max(g.hub.heartbeat/beats, time.Millisecond))
	defer ticker.Stop()
	idle := 0
	for phase := uint8(0); ; phase = (phase + 1) % beats {
		select {
		case <-g.ctx.Done():
			return
		case <-ticker.C:
		}
		for _, room := range g.rooms {
			room.beat(g, phase)
		}
		g.hub.mu.Lock()
		if idle++; g.readers > 0 {
			idle = 0
		}
		unused := idle > beats
		if unused && g.hub.reading == g {
			g.hub.reading = nil // whoever comes now begins another one
		}
		g.hub.mu.Unlock()
		if unused {
			g.end(errUnused)
		}
	}
}

// end sends all readers away, for the first reason that there was.
func (g *reading) end(why error) {
	g.stop(why)
	g.hub.mu.Lock()
	if g.hub.reading == g {
		g.hub.reading = nil
	}
	g.hub.mu.Unlock()
	for _, room := range g.rooms {
		for _, r := range room.close() { // those behind are told by who pursues them
			g.cutOff(r, nil, context.Cause(g.ctx))
		}
	}
}

// leave drops a reader whose client is gone.
func (g *reading) leave(r *feedReader) {
	_ = r.conn.Close()
	g.left()
	g.hub.counts.readers.Add(-1)
}

// cutOff sends a reader away, behind the rest of an event that was begun.
func (g *reading) cutOff(r *feedReader, rest []byte, why error) {
	g.left()
	g.hub.sendAway(r, rest, why)
}

func (g *reading) left() {
	g.hub.mu.Lock()
	defer g.hub.mu.Unlock()
	g.readers--
}

// sendAway ends a stream with an event that says why.
func (h *hub) sendAway(r *feedReader, rest []byte, why error) {
	var p *problem.Problem
	switch {
	case errors.Is(why, errTooSlow):
		h.counts.slow.Add(1)
		h.logger.Info("a reader of the feed was cut off, it is too slow", "account", r.caller.Account, "position", r.after)
		p = problem.Unavailable(why, "the client did not read as fast as there were events; connect again, and the stream goes on after the last one that was sent")
	case errors.Is(why, errRevoked):
		h.counts.revoked.Add(1)
		h.logger.Info("a reader of the feed was cut off, its token is not valid any more", "account", r.caller.Account, "position", r.after)
		p = errRevoked
	default:
		h.counts.ended.Add(1)
		p = problem.Of(why)
	}
	r.farewell(rest, p)
	h.counts.readers.Add(-1)
}

// close sends all readers away, for good, and returns when that is done or ctx ends.
func (h *hub) close(ctx context.Context) {
	h.mu.Lock()
	h.closed = true
	g := h.reading
	h.mu.Unlock()
	if g != nil {
		g.end(errDraining)
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

// FeedStats are what the feed counts.
type FeedStats struct {
	// Readers are connected now; CatchingUp are those of them that are behind.
	Readers, CatchingUp int64
	// Sent are the events that were sent, once for each reader.
	Sent uint64
	// TooSlow, Revoked and Ended were cut off: because they read too slowly, because
	// their token was not valid any more, and with the log or the node. Gone are those
	// that left by themselves.
	TooSlow, Revoked, Ended, Gone uint64
}

func (h *hub) stats() FeedStats {
	c := &h.counts
	return FeedStats{
		Readers: c.readers.Load(), CatchingUp: c.behind.Load(), Sent: c.sent.Load(),
		TooSlow: c.slow.Load(), Revoked: c.revoked.Load(), Ended: c.ended.Load(), Gone: c.gone.Load(),
	}
}
