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
	"syscall"
	"time"

	"chatsessions/eventstore/embedded"
	"chatsessions/http/auth"
)

type serveCommand struct {
	Listen string `default:"127.0.0.1:8080" placeholder:"HOST:PORT" help:"Address of the API (${default}). Port 0 takes a free one."`
	Dev    bool   `help:"For trying it out: only on loopback, and any token dev-<role>-<account> is valid."`
	Only   string `enum:"all,api,projector" default:"all" help:"Run one part alone, api or projector; needs --nats-url and --redis-url."`

	storeFlags

	AuthTokens  string `default:"" placeholder:"FILE" type:"path" help:"File of valid tokens, with the lines that chatsessions token prints. SIGHUP reads it again."`
	OpsListen   string `placeholder:"HOST:PORT" help:"Address for operators: /metrics, /healthz, /readyz and /debug/pprof/, without a token. Off unless given."`
	MaxCommands int    `default:"2048" placeholder:"N" help:"Maximum number of POSTs and PATCHes in flight (${default}); one more is refused with a 503 at once. 0 is no limit."`

	MaxReaders    int           `default:"12288" placeholder:"N" help:"Maximum number of streams of GET /chat-sessions/events (${default}); one more is a 503. Each is an open file. 0 is no limit."`
	FeedHeartbeat time.Duration `default:"15s" placeholder:"DURATION" help:"Interval at which each stream gets a sign of life and its token is checked again (${default})."`

	RateLimit float64 `default:"0" placeholder:"N" help:"Maximum number of requests that an account may make in a second; 0, the default, is no limit."`

	LogLevel  slog.Level `default:"info" help:"debug, info, warn or error."`
	LogFormat string     `enum:"text,json" default:"text" help:"text or json, on standard error."`
}

// minHeartbeat is the shortest interval between heartbeats of the feed.
const minHeartbeat = 100 * time.Millisecond

// Run serves until ctx ends, and drains. If ctx ends while the service starts, a start that
// fails is no failure.
func (c serveCommand) Run(ctx context.Context, s streams) error {
	// Whoever reads our log may end before us. That must not end the service without a drain;
	// the log is then lost. (A command, which writes for its reader, ends with it.)
	signal.Ignore(syscall.SIGPIPE)
	tokens, reload, err := c.tokens()
	if err != nil {
		return err
	}
	logger := c.logger(s.err)
	if faulty {
		logger.Warn("this build can be made to fail (-tags faults); it is not one to deploy")
	}
	hangup := make(chan os.Signal, 1) // caught from here on: it must not end a service that is starting
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)

	caughtUp := tuneMemory(logger)
	if c.NATS.URL == "" {
		tuneProcessors()
	}
	var listener net.Listener
	if c.Only != "projector" {
		if listener, err = net.Listen("tcp", c.Listen); err != nil {
			return fmt.Errorf("listening on %s: %w", c.Listen, err)
		}
		defer listener.Close()
	}
	var measured *metrics // without a listener for operators, nothing is measured
	if c.OpsListen != "" {
		measured = newMetrics()
	}
	ops, err := startOps(c.OpsListen, measured, logger)
	if err != nil {
		return err
	}
	defer ops.Close()
	stores, err := openStores(ctx, c.storeFlags, measured, logger)
	if err != nil && ctx.Err() != nil && !errors.As(err, new(*embedded.DamageError)) {
		logger.Info("ended while starting", "error", err)
		return nil
	}
	if err != nil {
		return err
	}
	defer stores.Close()
	service := &service{
		flags: c, stores: stores, tokens: tokens, reload: reload, hangup: hangup, listener: listener,
		ops: ops, measured: measured, caughtUp: caughtUp, out: s.out, logger: logger,
	}
	return service.run(ctx)
}

// Validate finds flags that do not go together.
func (c serveCommand) Validate() error {
	if c.Only != "all" && (c.NATS.URL == "" || c.RedisURL == "") {
		return fmt.Errorf("--only %s needs --nats-url and --redis-url: the other parts run in other processes", c.Only)
	}
	if err := c.storeFlags.Validate(); err != nil {
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
	if c.Dev && host != "localhost" && !net.ParseIP(host).IsLoopback() {
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

// tokens returns what checks tokens, and a function that reads them again.
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

func (c serveCommand) logger(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// printExamples prints requests for a developer to paste.
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
