package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"chatsessions/docs/events"
	chathttp "chatsessions/http"
	"chatsessions/http/auth"
	"chatsessions/projections"
	"chatsessions/projections/projector"
	"chatsessions/projections/readmodel"
)

type serveCommand struct {
	Listen string `default:"127.0.0.1:8080" placeholder:"HOST:PORT" help:"Address of the API (${default}). Port 0 takes a free one."`
	Dev    bool   `help:"For trying it out: only on loopback, and any token dev-<role>-<account> is valid."`
	Only   string `enum:"all,api,projector" default:"all" help:"Run one part alone, api or projector; needs --nats-url and --redis-url."`

	storeFlags

	AuthTokens  string `default:"" placeholder:"FILE" type:"path" help:"Tokens that are valid: a file of the lines that chatsessions token prints. Read again on SIGHUP."`
	OpsListen   string `placeholder:"HOST:PORT" help:"Address for operators: /metrics, /healthz, /readyz and /debug/pprof/, without a token. Off unless given."`
	MaxCommands int    `default:"2048" placeholder:"N" help:"POSTs and PATCHes in flight, at most (${default}); one more is refused with a 503 at once. 0 is no limit."`

	MaxReaders    int           `default:"12288" placeholder:"N" help:"Streams of GET /chat-sessions/events at once, at most (${default}); one more is a 503. Each is an open file. 0 is no limit."`
	FeedHeartbeat time.Duration `default:"15s" placeholder:"DURATION" help:"How often such a stream shows that it lives, and its token is checked again (${default})."`

	RateLimit float64 `default:"0" placeholder:"N" help:"Requests a second that an account may make; 0, the default, is no limit."`

	LogLevel  slog.Level `default:"info" help:"debug, info, warn or error."`
	LogFormat string     `enum:"text,json" default:"text" help:"text or json, on standard error."`
}

// drainTimeout bounds how long the requests in flight may take to end: longer
// than any of them may take.
const drainTimeout = 15 * time.Second

// minHeartbeat is the least time between two heartbeats of the feed: beyond that they
// would be a load.
const minHeartbeat = 100 * time.Millisecond

// Run serves until ctx ends, and drains.
func (c serveCommand) Run(ctx context.Context, s streams) error {
	if err := c.check(); err != nil {
		return usageError{err}
	}
	tokens, reload, err := c.tokens()
	if err != nil {
		return err
	}
	logger := c.logger(s.err)
	if faulty {
		logger.Warn("this build can be made to fail (-tags faults); it is not one to deploy")
	}
	caughtUp := tuneMemory(logger)
	if c.NATS.URL == "" {
		tuneProcessors()
	}
	hangup := make(chan os.Signal, 1) // caught from here on: it must not end a service that is starting
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)

	var listener net.Listener
	if c.Only != "projector" {
		if listener, err = net.Listen("tcp", c.Listen); err != nil {
			return fmt.Errorf("listening on %s: %w", c.Listen, err)
		}
		defer listener.Close()
	}
	var measured *metrics // nobody asks for them without a listener
	if c.OpsListen != "" {
		measured = newMetrics()
	}
	ops, err := startOps(c.OpsListen, measured, logger)
	if err != nil {
		return err
	}
	defer ops.Close()
	stores, err := openStores(ctx, c.storeFlags, measured, logger)
	if err != nil {
		return err
	}
	defer stores.Close()

	running, stop := context.WithCancel(ctx)
	defer stop()
	parts, running := errgroup.WithContext(running)
	private := c.RedisURL == ""
	var api atomic.Pointer[chathttp.Server] // nil until it serves
	reads := readmodel.New(stores.redis, stores.log, readmodel.Options{
		Logger: logger, Partitions: c.RedisPartitions, Private: private, AskEnd: c.NATS.URL != "" && private,
		Writes: func() int {
			if server := api.Load(); server != nil {
				return int(server.Stats().Commands)
			}
			return 0
		},
		Connections: func() uint64 { return stores.redisConnections.Load() + stores.log.Connections() },
	})
	measured.progress(reads)
	// The read model outlives ctx: requests that are being drained still read.
	tracking, stopTracking := context.WithCancel(context.WithoutCancel(ctx))
	defer stopTracking()
	parts.Go(func() error { return reads.Run(tracking) })
	if c.Only != "api" {
		projector := projector.New(stores.redis, stores.log, projector.Options{
			Logger: logger, Partitions: c.RedisPartitions, Notify: reads.Projected, Applied: measured.applied(), Private: private,
		})
		parts.Go(func() error { return projector.Run(tracking) })
	}
	parts.Go(func() error { return stores.watch(running) })
	parts.Go(func() error { return reloadOnHangup(running, hangup, reload, logger) })
	parts.Go(func() error {
		defer stopTracking()
		if err := awaitCaughtUp(running, reads, logger); err != nil {
			return ignoreEnd(running, err)
		}
		caughtUp()
		ops.becomes(readyWhile(running, reads))
		if listener == nil {
			fmt.Fprintln(s.out, "chatsessions projector is ready")
			<-running.Done()
			return nil
		}
		server := chathttp.NewServer(chathttp.Config{
			Log: measured.log(stores.log), Feed: stores.log, Reads: measured.reads(reads), Tokens: tokens,
			WriteWait: projections.Bound, RateLimit: c.RateLimit, MaxCommands: c.MaxCommands,
			MaxReaders: c.MaxReaders, FeedHeartbeat: c.FeedHeartbeat,
			Observe: measured.requests(), Now: now, Logger: logger,
		})
		for _, d := range events.Documents() {
			server.Static(d.Path, d.MediaType, d.Content)
		}
		measured.server(server)
		checkOpenFiles(c.MaxReaders, logger)
		api.Store(server)
		return c.serveHTTP(running, listener, server, s.out, logger)
	})
	if err := parts.Wait(); err != nil {
		return err
	}
	return stores.failure() // it may have happened while requests were drained
}

// serveHTTP answers requests until ctx ends, and then those that are in flight.
func (c serveCommand) serveHTTP(ctx context.Context, l net.Listener, server *chathttp.Server, out io.Writer, logger *slog.Logger) error {
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	url := "http://" + l.Addr().String()
	fmt.Fprintln(out, "chatsessions is ready on", url)
	if c.Dev {
		printExamples(out, url)
	}
	select {
	case err := <-served:
		return fmt.Errorf("serving HTTP: %w", err)
	case <-ctx.Done():
	}
	logger.Info("draining", "at most", drainTimeout.String())
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if err := server.Shutdown(drain); err != nil {
		logger.Error("not every request in flight was answered", "error", err)
		return nil
	}
	return <-served
}

// awaitCaughtUp returns when the read model has all that was in the log.
func awaitCaughtUp(ctx context.Context, reads *readmodel.ReadModel, logger *slog.Logger) error {
	const patience = 5 * time.Second
	for {
		attempt, cancel := context.WithTimeout(ctx, patience)
		err := reads.CaughtUp(attempt)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		logger.Warn("the read model has not caught up with the log yet; is a projector running?", "error", err)
	}
}

// readyWhile says that the service is ready when the log can be reached and the read
// model has all that is in it, until ctx ends: then it is drained.
func readyWhile(ctx context.Context, reads *readmodel.ReadModel) readiness {
	return func(asked context.Context) error {
		if ctx.Err() != nil {
			return errors.New("the service is ending")
		}
		if err := reads.CaughtUp(asked); err != nil {
			return fmt.Errorf("the log cannot be reached, or the read model is behind it: %w", err)
		}
		return nil
	}
}

// ignoreEnd drops an error that only says that ctx has ended.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// check finds flags that do not go together.
func (c serveCommand) check() error {
	if c.Only != "all" && (c.NATS.URL == "" || c.RedisURL == "") {
		return fmt.Errorf("--only %s needs --nats-url and --redis-url: the other parts run in other processes", c.Only)
	}
	if err := c.storeFlags.check(); err != nil {
		return err
	}
	if _, err := hostOf(c.OpsListen); c.OpsListen != "" && err != nil {
		return fmt.Errorf("--ops-listen %s: want HOST:PORT", c.OpsListen)
	}
	if c.Only == "projector" {
		return nil
	}
	if math.IsNaN(c.RateLimit) || math.IsInf(c.RateLimit, 0) || c.RateLimit < 0 {
		return fmt.Errorf("--rate-limit %v: want a number of requests a second, or 0 for no limit", c.RateLimit)
	}
	if c.MaxCommands < 0 {
		return fmt.Errorf("--max-commands %d: want a number of commands, or 0 for no limit", c.MaxCommands)
	}
	if c.MaxReaders < 0 {
		return fmt.Errorf("--max-readers %d: want a number of streams, or 0 for no limit", c.MaxReaders)
	}
	if c.FeedHeartbeat < minHeartbeat {
		return fmt.Errorf("--feed-heartbeat %s: want at least %s", c.FeedHeartbeat, minHeartbeat)
	}
	if !c.Dev && c.AuthTokens == "" {
		return errors.New("no way to check tokens: set --auth-tokens FILE (chatsessions token makes its lines), or --dev to try the service out")
	}
	host, err := hostOf(c.Listen)
	if err != nil {
		return fmt.Errorf("--listen %s: want HOST:PORT", c.Listen)
	}
	if c.Dev && !isLoopback(host) {
		return fmt.Errorf("--dev accepts any token, so it listens on loopback only, not on %q", c.Listen)
	}
	return nil
}

// hostOf returns the host of a HOST:PORT.
func hostOf(address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	_, err = net.LookupPort("tcp", port)
	return host, err
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// tokens returns who checks tokens, and how to read them again.
func (c serveCommand) tokens() (auth.Verifier, func() error, error) {
	var verifiers auth.AnyOf
	reload := func() error { return nil }
	if c.AuthTokens != "" && c.Only != "projector" {
		file, err := auth.OpenTokenFile(c.AuthTokens)
		if err != nil {
			return nil, nil, err
		}
		verifiers, reload = append(verifiers, file), file.Reload
	}
	if c.Dev {
		verifiers = append(verifiers, auth.DevTokens{})
	}
	return verifiers, reload, nil
}

// reloadOnHangup reads the tokens again whenever SIGHUP comes.
func reloadOnHangup(ctx context.Context, hangup <-chan os.Signal, reload func() error, logger *slog.Logger) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangup:
			if err := reload(); err != nil {
				logger.Error("tokens not read again; those of before stay valid", "error", err)
				continue
			}
			logger.Info("tokens read again")
		}
	}
}

func (c serveCommand) logger(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// printExamples shows a developer what to paste.
func printExamples(w io.Writer, url string) {
	fmt.Fprintf(w, `
Any token dev-<role>-<account> is valid here. To try it out, paste:

  curl -s %[1]s/chat-sessions -H 'Authorization: Bearer dev-account-alice' \
    -H 'Content-Type: application/json' -d '{"participants": ["bob"], "room": "r1"}'

  id=$(curl -s '%[1]s/chat-sessions?$limit=1' -g -H 'Authorization: Bearer dev-account-alice' | sed 's/.*"id":"\([^"]*\)".*/\1/')

  curl -s -X PATCH %[1]s/chat-sessions/$id -H 'Authorization: Bearer dev-account-alice' \
    -H 'Content-Type: application/json' -d '{"start": true}'

  curl -s -X PATCH %[1]s/chat-sessions/$id -H 'Authorization: Bearer dev-account-bob' \
    -H 'Content-Type: application/json' -d '{"accept": true}'

  curl -s %[1]s/chat-sessions/$id -H 'Authorization: Bearer dev-account-bob'

`, url)
}
