package conn

import (
	"context"
	"net"
	"slices"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"
)

// A Server serves a Fiber app.
type Server struct {
	app     *fiber.App
	tracker tracker
	ended   context.Context // ends when the server has shut down
	end     context.CancelFunc
}

// NewServer returns a server that is not listening yet. observe, which may be nil, is called with
// each response that is ready, and the time since the request's head. It must be quick.
func NewServer(app *fiber.App, observe func(*fasthttp.RequestCtx, time.Duration)) *Server {
	s := &Server{app: app}
	s.ended, s.end = context.WithCancel(context.Background())
	handle := app.Handler()
	app.Server().ConnState = s.tracker.changed
	app.Server().KeepHijackedConns = true // a stream closes its connection itself
	app.Server().CloseOnShutdown = true   // clients take their next request to another node
	app.Server().Handler = func(ctx *fasthttp.RequestCtx) {
		c := ctx.Conn().(*connection)
		if !c.begin() {
			_ = c.Close() // before fasthttp sends a response, which would be an empty 200
			ctx.SetConnectionClose()
			return
		}
		// Fiber answers unknown methods itself, in plain text. The app refuses TRACE, which no
		// resource has, as it must refuse them.
		if !slices.Contains(fiber.DefaultMethods, string(ctx.Method())) {
			ctx.Request.Header.SetMethod(fiber.MethodTrace)
		}
		began := time.Now()
		handle(ctx)
		if observe != nil {
			observe(ctx, time.Since(began))
		}
		c.turns.Add(1)
	}
	return s
}

// Serve answers requests on the listener until Shutdown.
func (s *Server) Serve(l net.Listener) error {
	go s.tracker.watch(s.ended.Done())
	// fasthttp does not know the listener yet if Shutdown was quicker.
	context.AfterFunc(s.ended, func() { _ = l.Close() })
	err := s.app.Listener(listener{l, &s.tracker})
	if err != nil { // not by Shutdown
		s.end()
	}
	return err
}

// Drain closes the connections at rest now, and the others after their response.
func (s *Server) Drain() { s.tracker.drain() }

// Shutdown stops listening, and waits for requests in flight or ctx's end. Drain comes first.
func (s *Server) Shutdown(ctx context.Context) error {
	defer s.end()
	return s.app.ShutdownWithContext(ctx)
}

// Gone returns how many clients disconnected while their request waited.
func (s *Server) Gone() uint64 { return s.tracker.gone.Load() }
