// Package http is the REST interface of the service: it turns requests into
// commands and queries, and what comes of them into answers.
//
// It is imported as chathttp. What a client sees is settled in docs/api.md.
package http

import (
	"context"
	"iter"
	"log/slog"
	"net"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/middleware/recover"
	"github.com/google/uuid"
	"github.com/valyala/fasthttp"

	"chatsessions/domain"
	"chatsessions/domain/query"
	"chatsessions/http/auth"
)

// A Log is where commands leave their events.
type Log interface {
	// Transact loads a session, lets decide say what is to happen to it, and
	// appends the events that it returns, all or none; on a conflict it decides
	// again. It returns the session after the newest event, and where there is
	// nothing to append the session as it is, together with decide's error. A
	// request whose key is in the log already gets the first answer again.
	Transact(ctx context.Context, r domain.Request, decide func(domain.Session) ([]domain.Event, error)) (domain.Result, error)
	// Load returns the newest state of a session, never an older one.
	Load(ctx context.Context, id string) (*domain.Record, error)
	// History gives the events of a session, the newest first, which is never older than
	// an answered write. An error ends it; one about an event that cannot be read tells
	// its EventPosition.
	History(ctx context.Context, id string) iter.Seq2[domain.Record, error]
	// End is the position of the newest event of all.
	End(ctx context.Context) (uint64, error)
}

// A ReadModel answers queries. It returns domain.ErrUnavailable rather than an
// answer that may be older than a write which was answered.
type ReadModel interface {
	// Get returns a session, and whether the account may see it; "" may see all.
	Get(ctx context.Context, id, account string) (query.Document, error)
	List(ctx context.Context, q query.Query) (query.Page, error)
	// WaitFor returns when the read model has reached the position, and an error when
	// it has not at most so much later.
	WaitFor(ctx context.Context, position uint64, atMost time.Duration) error
	// Settle returns when no node shows an older state than that of the position,
	// which the log has told, or domain.ErrUnavailable.
	Settle(ctx context.Context, position uint64) error
	// Observe tells it a position that a client has been shown.
	Observe(position uint64)
	// SaveQuery and LoadQuery keep an account's long query behind a short paging
	// cursor.
	SaveQuery(ctx context.Context, account, text string) (digest string, err error)
	LoadQuery(ctx context.Context, account, digest string) (text string, err error)
}

// Config is what a Server needs.
type Config struct {
	Log    Log
	Reads  ReadModel
	Tokens auth.Verifier
	// WriteWait is how long a write's answer waits for the read model. What is not
	// projected by then, readers know to be missing.
	WriteWait time.Duration
	// RateLimit is how many requests a second an account may make; 0 is no limit.
	RateLimit float64
	// MaxCommands is how many commands (POST and PATCH) may be in flight; one more is
	// refused. 0 is no limit.
	MaxCommands int
	// Feed is the log for readers of the feed. MaxReaders is how many of them there may
	// be, 0 for no limit; FeedHeartbeat how often each of them gets a sign of life, 0 for
	// DefaultFeedHeartbeat.
	Feed          FeedLog
	MaxReaders    int
	FeedHeartbeat time.Duration
	// Observe, where it is set, is told of every request.
	Observe Observer
	Now     func() time.Time
	Logger  *slog.Logger
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
	// hangingReads is how long a GET by id waits for the read model before it asks
	// the log instead.
	hangingReads = 500 * time.Millisecond

	cachePrivately = "private, no-cache" // a cache asks with the ETag before it answers
)

// The resources.
const (
	pathSessions = "/chat-sessions"
	pathSession  = "/chat-sessions/:id"
	pathHistory  = "/chat-sessions/:id/events"
	pathEvents   = "/chat-sessions/events"
)

// A Server serves the REST interface.
type Server struct {
	Config
	app         *fiber.App
	gate        *auth.Gate
	commands    commands
	histories   chan struct{} // holds one for each long history that is being read
	connections connections
	hub         *hub          // of the feed
	ended       chan struct{} // closed when nobody waits any more
	end         func()        // closes it
}

// NewServer returns a server that is not listening yet.
func NewServer(c Config) *Server {
	s := &Server{Config: c, gate: auth.NewGate(c.Tokens, c.RateLimit, c.Now)}
	s.commands.limit = int64(c.MaxCommands)
	s.histories = make(chan struct{}, longHistories)
	s.hub = newHub(c.Feed, c.Tokens, c.Logger, c.MaxReaders, c.FeedHeartbeat)
	s.ended = make(chan struct{})
	s.end = sync.OnceFunc(func() { close(s.ended) })
	s.app = fiber.New(fiber.Config{
		AppName:               "chatsessions",
		CaseSensitive:         true,
		DisableStartupMessage: true,
		ErrorHandler:          s.fail,
		// Bodies are streamed so that the right thing is said first: 401 to a
		// stranger, not 413. takeBody takes them in, up to maxBody.
		StreamRequestBody:            true,
		DisablePreParseMultipartForm: true, // it would be refused by its parser before its turn
		BodyLimit:                    maxBody,
		ReadBufferSize:               maxHead + 1<<10, // checkHead draws the line
		ReadTimeout:                  30 * time.Second,
		WriteTimeout:                 30 * time.Second,
		IdleTimeout:                  2 * time.Minute,
	})
	s.app.Use(s.trace, recover.New(recover.Config{EnableStackTrace: true, StackTraceHandler: s.logPanic}), takeBody, checkHead)
	s.app.Post(pathSessions, s.gate.Authenticate, s.admit, s.create)
	s.app.Get(pathSessions, s.gate.Authenticate, s.list)
	s.app.Get(pathEvents, s.gate.Authenticate, s.events)
	s.app.All(pathEvents, methodNotAllowed)
	s.app.Get(pathSession, s.gate.Authenticate, s.get)
	s.app.Patch(pathSession, s.gate.Authenticate, s.admit, s.change)
	s.app.Get(pathHistory, s.gate.Authenticate, s.history)

	handle := s.app.Handler()
	s.app.Server().ConnState = s.connections.changed
	s.app.Server().KeepHijackedConns = true // they are the feed's
	s.app.Server().CloseOnShutdown = true   // tells clients to take their next request elsewhere
	s.app.Server().Handler = func(ctx *fasthttp.RequestCtx) {
		if !begin(ctx.Conn()) {
			// It is being closed by whoever found it resting; an answer, an empty 200 if
			// it is left to the framework, must not be quicker.
			_ = ctx.Conn().Close()
			ctx.SetConnectionClose()
			return
		}
		// Fiber answers methods that it has never heard of by itself, in plain text.
		// No resource has TRACE, so that is refused just as they have to be.
		if !slices.Contains(fiber.DefaultMethods, string(ctx.Method())) {
			ctx.Request.Header.SetMethod(fiber.MethodTrace)
		}
		if s.Observe == nil {
			handle(ctx)
		} else {
			began := time.Now()
			handle(ctx)
			s.Observe(endpointOf(ctx), observedStatus(ctx), time.Since(began))
		}
		end(ctx.Conn())
	}
	return s
}

func (s *Server) logPanic(c *fiber.Ctx, cause any) {
	s.Logger.Error("panic", "cause", cause, "request", correlationID(c), "stack", string(debug.Stack()))
}

// Serve answers requests on the listener until Shutdown.
func (s *Server) Serve(l net.Listener) error {
	go s.connections.watch(s.ended)
	go func() {
		<-s.ended
		_ = l.Close() // of which the framework has not heard yet where Shutdown was quicker
	}()
	err := s.app.Listener(listener{l, &s.connections})
	if err != nil { // not by Shutdown
		s.end()
	}
	return err
}

// Shutdown stops listening and returns when the requests in flight have been
// answered and the readers of the feed sent away, or ctx ends.
func (s *Server) Shutdown(ctx context.Context) error {
	defer s.end()
	s.connections.drain()
	s.hub.close(ctx)
	return s.app.ShutdownWithContext(ctx)
}

// newID returns a UUIDv7 (RFC 9562): ids of one node grow with time.
func newID() string { return uuid.Must(uuid.NewV7()).String() }
