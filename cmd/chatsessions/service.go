package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"chatsessions/docs/events"
	chathttp "chatsessions/http"
	"chatsessions/http/auth"
	"chatsessions/projections"
	"chatsessions/projections/projector"
	"chatsessions/projections/readmodel"
)

// A service is the composition root: it wires the parts of one process. Requests and
// events flow through them like this:
//
//	POST, PATCH   server → measured.log → log: load, decide, append, wait for the disk
//	log           → projector → Redis: the read model's documents and indexes
//	GET           server → measured.readModel → read model → Redis, or the log where it
//	              cannot answer
//	log           → server's feed → readers of GET /chat-sessions/events
type service struct {
	flags    serveCommand
	stores   *stores
	tokens   auth.Verifier
	reload   func() error // reads the tokens again
	hangup   <-chan os.Signal
	listener net.Listener // nil for a projector alone
	ops      *opsServer
	measured *metrics
	caughtUp func() // to be called when the read model has caught up
	out      io.Writer
	logger   *slog.Logger

	server atomic.Pointer[chathttp.Server] // nil until it serves
}

// drainTimeout bounds the drain. It is longer than any request may take.
const drainTimeout = 15 * time.Second

// run runs the parts until ctx ends or one of them fails.
func (s *service) run(ctx context.Context) error {
	parts, running := errgroup.WithContext(ctx)
	// The read model and the projector outlive ctx: requests that are drained still read.
	tracking, stopTracking := context.WithCancel(context.WithoutCancel(ctx))
	defer stopTracking()

	model := s.newReadModel()
	parts.Go(func() error { return model.Run(tracking) })
	if s.flags.Only != "api" {
		parts.Go(func() error { return s.newProjector(model).Run(tracking) })
	}
	parts.Go(func() error { return s.stores.watch(running) })
	parts.Go(func() error { return s.reloadOnHangup(running) })
	parts.Go(func() error {
		defer stopTracking()
		return s.serve(running, model)
	})
	if err := parts.Wait(); err != nil {
		return err
	}
	return s.stores.failure() // it may have come while requests were drained
}

func (s *service) newReadModel() *readmodel.ReadModel {
	private := s.flags.RedisURL == ""
	model := readmodel.New(s.stores.redis, s.stores.log, readmodel.Options{
		Logger: s.logger, Partitions: s.flags.RedisPartitions,
		Private: private, CheckEviction: !private, AskEnd: s.flags.NATS.URL != "" && private,
		Writes: func() int {
			if server := s.server.Load(); server != nil {
				return int(server.Stats().Commands)
			}
			return 0
		},
		Connections: func() uint64 { return s.stores.redisConnections.Load() + s.stores.log.Connections() },
	})
	s.measured.progress(model)
	return model
}

func (s *service) newProjector(model *readmodel.ReadModel) *projector.Projector {
	return projector.New(s.stores.redis, s.stores.log, projector.Options{
		Logger: s.logger, Partitions: s.flags.RedisPartitions, Notify: model.Projected,
		Applied: s.measured.applied(), Private: s.flags.RedisURL == "", CheckEviction: s.flags.RedisURL != "",
	})
}

func (s *service) newServer(model *readmodel.ReadModel) *chathttp.Server {
	server := chathttp.NewServer(chathttp.Config{
		Log: s.measured.log(s.stores.log), Feed: s.stores.log, Reads: s.measured.readModel(model), Tokens: s.tokens,
		WriteWait: projections.Bound, RateLimit: s.flags.RateLimit, MaxCommands: s.flags.MaxCommands,
		MaxReaders: s.flags.MaxReaders, FeedHeartbeat: s.flags.FeedHeartbeat,
		Observe: s.measured.requests(), Now: clock(), Logger: s.logger,
	})
	for _, d := range events.Documents() {
		server.Static(d.Path, d.MediaType, d.Content)
	}
	s.measured.server(server)
	return server
}

// serve waits until the read model has caught up, and serves until ctx ends.
func (s *service) serve(ctx context.Context, model *readmodel.ReadModel) error {
	if err := s.awaitCaughtUp(ctx, model); err != nil {
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			return nil
		}
		return err
	}
	s.caughtUp()
	s.ops.setReadiness(readyWhile(ctx, model))
	if s.listener == nil {
		fmt.Fprintln(s.out, "chatsessions projector is ready")
		<-ctx.Done()
		return nil
	}
	checkOpenFiles(s.flags.MaxReaders, s.logger)
	server := s.newServer(model)
	s.server.Store(server)
	return s.serveHTTP(ctx, server)
}

// serveHTTP answers requests until ctx ends, and then those that are in flight.
func (s *service) serveHTTP(ctx context.Context, server *chathttp.Server) error {
	served := make(chan error, 1)
	go func() { served <- server.Serve(s.listener) }()
	url := "http://" + s.listener.Addr().String()
	fmt.Fprintln(s.out, "chatsessions is ready on", url)
	if s.flags.Dev {
		printExamples(s.out, url)
	}
	select {
	case err := <-served:
		return fmt.Errorf("serving HTTP: %w", err)
	case <-ctx.Done():
	}
	s.logger.Info("draining", "at most", drainTimeout.String())
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if err := server.Shutdown(drain); err != nil {
		s.logger.Error("not every request in flight was answered", "error", err)
		return nil
	}
	return <-served
}

// awaitCaughtUp returns when the read model has everything that was in the log.
func (s *service) awaitCaughtUp(ctx context.Context, model *readmodel.ReadModel) error {
	const patience = 5 * time.Second
	for {
		attempt, cancel := context.WithTimeout(ctx, patience)
		err := model.CaughtUp(attempt)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		s.logger.Warn("the read model has not caught up with the log yet; is a projector running?", "error", err)
	}
}

// readyWhile returns the readiness of a service: until ctx ends, it is ready if its read
// model has everything that is in the log.
func readyWhile(ctx context.Context, model *readmodel.ReadModel) readiness {
	return func(request context.Context) error {
		if ctx.Err() != nil {
			return errors.New("the service is ending")
		}
		if err := model.CaughtUp(request); err != nil {
			return fmt.Errorf("the log cannot be reached, or the read model is behind it: %w", err)
		}
		return nil
	}
}

// reloadOnHangup reads the tokens again on every SIGHUP.
func (s *service) reloadOnHangup(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.hangup:
			if err := s.reload(); err != nil {
				s.logger.Error("tokens not read again; the previous ones stay valid", "error", err)
				continue
			}
			s.logger.Info("tokens read again")
		}
	}
}
