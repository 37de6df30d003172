package http

import (
	"context"
	"iter"
	"log/slog"
	"net"
	"runtime/debug"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/middleware/recover"
	"github.com/google/uuid"
	"github.com/valyala/fasthttp"

	"chatsessions/domain"
	"chatsessions/domain/query"
	"chatsessions/http/auth"
	"chatsessions/http/conn"
	"chatsessions/http/feed"
)

// A Log is where commands append their events.
type Log interface {
	// Transact loads a session and appends what decide returns, all or none; on a conflict it
	// decides again. It returns the session after the newest event; where nothing is appended,
	// the session as it is, with decide's error. A request whose key is in the log already
	// gets the recorded response.
	Transact(ctx context.Context, r domain.Request, decide func(domain.Session) ([]domain.Event, error)) (domain.Result, error)
	// Load returns the newest state of a session, never an older one.
	Load(ctx context.Context, id string) (*domain.Record, error)
	// History returns the events of a session, the newest first. The newest is never older
	// than an answered write. An error ends it. An error about an event that cannot be
	// read has a method EventPosition.
	History(ctx context.Context, id string) iter.Seq2[domain.Record, error]
	// End returns the position of the newest event of all.
	End(ctx context.Context) (uint64, error)
}

// A ReadModel answers queries. It returns domain.ErrUnavailable rather than a response
// that may be older than an answered write.
type ReadModel interface {
	// Get returns a session, and whether the account may see it; "" may see all.
	Get(ctx context.Context, id, account string) (query.Document, error)
	List(ctx context.Context, q query.Query) (query.Page, error)
	// WaitFor returns when the read model has the position, or an error after atMost.
	WaitFor(ctx context.Context, position uint64, atMost time.Duration) error
	// AwaitEverywhere returns when no node shows an older state than that of the position, which
	// came from the log, or with domain.ErrUnavailable.
	AwaitEverywhere(ctx context.Context, position uint64) error
	// Observe notes a position that a client was shown.
	Observe(position uint64)
	// SaveQuery and LoadQuery keep an account's long query behind a short paging cursor.
	SaveQuery(ctx context.Context, account, text string) (digest string, err error)
	LoadQuery(ctx context.Context, account, digest string) (text string, err error)
}

// Config is what a Server needs.
type Config struct {
	Log    Log
	Reads  ReadModel
	Tokens auth.Verifier
	// WriteWait is how long the response to a write waits for the read model.
	WriteWait   time.Duration
	RateLimit   float64 // requests a second of an account; 0 is no limit
	MaxCommands int     // POSTs and PATCHes in flight; 0 is no limit
	// Feed is the log as the feed reads it.
	Feed          feed.Log
	MaxReaders    int           // of the feed; 0 is no limit
	FeedHeartbeat time.Duration // between two heartbeats; 0 is feed.DefaultHeartbeat
	Observe       Observer      // may be nil
	Now           func() time.Time
	Logger        *slog.Logger
}

// Limits of a request, in bytes, and how long its parts may take.
const (
	maxBody   = 64 << 10
	maxURI    = 8 << 10
	maxHeader = 8 << 10 // of a single header's value
	maxHead   = 16 << 10

	writeDeadline    = 5 * time.Second
	readDeadline     = 5 * time.Second
	positionDeadline = 5 * time.Second
	// hangingReads is how long a GET by id waits for the read model before it asks the log.
	hangingReads = 500 * time.Millisecond

	cachePrivately = "private, no-cache" // a cache must revalidate with the ETag
)

// The resources.
const (
	pathSessions = "/chat-sessions"
	pathSession  = "/chat-sessions/:id"
	pathHistory  = "/chat-sessions/:id/events"
)

// A Server serves the REST interface.
type Server struct {
	Config
	app       *fiber.App
	conns     *conn.Server
	gate      *auth.Gate
	admission admission
	histories chan struct{} // holds an element for each long history that is being read
	feed      *feed.Hub
}

// NewServer returns a server that is not listening yet.
func NewServer(c Config) *Server {
	s := &Server{Config: c, gate: auth.NewGate(c.Tokens, c.RateLimit, c.Now)}
	s.admission.limit = int64(c.MaxCommands)
	s.histories = make(chan struct{}, longHistories)
	s.feed = feed.NewHub(feed.Config{Log: c.Feed, Tokens: c.Tokens, Readers: c.MaxReaders, Beat: c.FeedHeartbeat, Logger: c.Logger})
	s.app = fiber.New(fiber.Config{
		AppName:               "chatsessions",
		CaseSensitive:         true,
		DisableStartupMessage: true,
		ErrorHandler:          s.fail,
		// Bodies are streamed so that errors come in order: a request without a token gets
		// a 401, not a 413. conn.TakeBody reads them.
		StreamRequestBody:            true,
		DisablePreParseMultipartForm: true, // its parser would refuse it before its turn
		BodyLimit:                    maxBody,
		ReadBufferSize:               maxHead + 1<<10, // above the limit of checkHead
		ReadTimeout:                  30 * time.Second,
		WriteTimeout:                 30 * time.Second,
		IdleTimeout:                  2 * time.Minute,
	})
	s.routes()
	var observe func(*fasthttp.RequestCtx, time.Duration)
	if c.Observe != nil {
		observe = s.observe
	}
	s.conns = conn.NewServer(s.app, observe)
	return s
}

func (s *Server) routes() {
	s.markEndpoints()
	s.app.Use(s.trace, recover.New(recover.Config{EnableStackTrace: true, StackTraceHandler: s.logPanic}), conn.TakeBody(maxBody), checkHead)
	s.app.Post(pathSessions, s.gate.Authenticate, s.admit, s.create)
	s.app.Get(pathSessions, s.gate.Authenticate, s.list)
	s.app.Get(feed.Path, s.gate.Authenticate, s.feed.Events)
	s.app.All(feed.Path, methodNotAllowed)
	s.app.Get(pathSession, s.gate.Authenticate, s.get)
	s.app.Patch(pathSession, s.gate.Authenticate, s.admit, s.change)
	s.app.Get(pathHistory, s.gate.Authenticate, s.history)
}

func (s *Server) logPanic(c *fiber.Ctx, cause any) {
	s.Logger.Error("panic", "cause", cause, "request", correlationID(c), "stack", string(debug.Stack()))
}

// Serve answers requests on the listener until Shutdown.
func (s *Server) Serve(l net.Listener) error { return s.conns.Serve(l) }

// Shutdown stops listening, answers the requests in flight, and ends the streams of the feed.
func (s *Server) Shutdown(ctx context.Context) error {
	s.conns.Drain()
	s.feed.Close(ctx)
	return s.conns.Shutdown(ctx)
}

// methodNotAllowed is for the feed, which the router would take for a session named "events".
func methodNotAllowed(c *fiber.Ctx) error {
	c.Set(fiber.HeaderAllow, "GET, HEAD")
	return fiber.ErrMethodNotAllowed
}

// newID returns a UUIDv7 (RFC 9562): the ids of one node grow with time.
func newID() string { return uuid.Must(uuid.NewV7()).String() }
