package conn

import (
	"context"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"
)

// A Server serves a Fiber app.
type Server struct {
	app     *fiber.App
	tracker tracker
	ended   chan struct{} // closed when the server has shut down
	end     func()        // closes it
}

// NewServer returns a server that is not listening yet. observe, which may be nil, is
// called with each request when its response is ready to be sent, and how long that took
// from the request's head on. It must be quick.
func NewServer(app *fiber.App, observe func(*fasthttp.RequestCtx, time.Duration)) *Server {
	s := &Server{app: app, ended: make(chan struct{})}
	s.end = sync.OnceFunc(func() { close(s.ended) })
	handle := app.Handler()
	app.Server().ConnState = s.tracker.changed
	app.Server().KeepHijackedConns = true // a stream closes its connection itself
	app.Server().CloseOnShutdown = true   // clients take their next request to another node
	app.Server().Handler = func(ctx *fasthttp.RequestCtx) {
		if !begin(ctx.Conn()) {
			// The drain is closing the connection, which was at rest. A response, which
			// would be an empty 200, must not be sent before that.
			_ = ctx.Conn().Close()
			ctx.SetConnectionClose()
			return
		}
		// Fiber answers unknown methods itself, in plain text. No resource has TRACE, so
		// the app refuses that as it must refuse them.
		if !slices.Contains(fiber.DefaultMethods, string(ctx.Method())) {
			ctx.Request.Header.SetMethod(fiber.MethodTrace)
		}
		began := time.Now()
		handle(ctx)
		if observe != nil {
			observe(ctx, time.Since(began))
		}
		end(ctx.Conn())
	}
	return s
}

// Serve answers requests on the listener until Shutdown.
func (s *Server) Serve(l net.Listener) error {
	go s.tracker.watch(s.ended)
	go func() {
		<-s.ended
		_ = l.Close() // fasthttp does not know the listener yet if Shutdown was quicker
	}()
	err := s.app.Listener(listener{l, &s.tracker})
	if err != nil { // not by Shutdown
		s.end()
	}
	return err
}

// Drain closes the connections at rest, and each of the others when its response has
// been sent.
func (s *Server) Drain() { s.tracker.drain() }

// Shutdown stops listening, and returns when the requests in flight have been answered
// or ctx ends. Drain comes first.
func (s *Server) Shutdown(ctx context.Context) error {
	defer s.end()
	return s.app.ShutdownWithContext(ctx)
}

// Gone returns how many clients disconnected while their request waited.
func (s *Server) Gone() uint64 { return s.tracker.gone.Load() }
