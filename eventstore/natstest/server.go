// Package natstest runs real NATS servers as processes of their own, for tests that kill
// and pause them. The server is built from the module that go.mod pins, so tests and
// service use the same version. Whatever is missing fails the test.
package natstest

import (
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"chatsessions/deploy/servertest"
)

// Config describes a server; zero is the deployed configuration with its own store directory.
type Config struct {
	StoreDir string // "" for a temporary one
	// User and Password are the credentials of the clients; both "" for a default.
	User, Password string
	File           string        // the configuration; "" for the deployed one
	Args           []string      // of the command line, besides ours
	Options        []nats.Option // that clients need besides the URL
}

// Server is a nats-server process with JetStream. By default it acknowledges only what is
// on disk. It keeps its port of 127.0.0.1 over Restart, and is killed when the test ends.
type Server struct {
	*servertest.Process
	tb     testing.TB
	config Config
	name   string
	port   string
	env    []string // what the configuration refers to
}

// Start runs a server and returns when it serves JetStream.
func Start(tb testing.TB, config Config) *Server {
	tb.Helper()
	s := prepare(tb, config, "nats-server.conf", "chat-sessions-1")
	s.Restart()
	return s
}

// binary builds the server that go.mod pins, and returns its path in the build cache.
var binary = sync.OnceValues(func() (string, error) {
	output, err := exec.Command("go", "tool", "-n", "nats-server").Output()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, failed.Stderr)
	}
	return strings.TrimSpace(string(output)), err
})

// prepare chooses a port and the credentials. The deployed configuration is the default.
func prepare(tb testing.TB, config Config, deployedFile, name string, env ...string) *Server {
	tb.Helper()
	if config.File == "" {
		config.File = servertest.Deployed("nats", deployedFile)
	}
	if config.StoreDir == "" {
		config.StoreDir = filepath.Join(tb.TempDir(), "store")
	}
	if config.User == "" && config.Password == "" {
		config.User, config.Password = "chatsessions", "100% secret"
	}
	env = append(env,
		"NATS_STORE_DIR="+strconv.Quote(config.StoreDir),
		"NATS_USER="+strconv.Quote(config.User),
		"NATS_PASSWORD="+strconv.Quote(config.Password),
		"NATS_SERVER_NAME="+name,
	)
	return &Server{servertest.New(tb, "nats-server "+name), tb, config, name, servertest.Port(tb), env}
}

// begin runs the process and does not wait for it to serve.
func (s *Server) begin() {
	s.tb.Helper()
	path, err := binary()
	if err != nil {
		s.tb.Fatalf("building nats-server: %v", err)
	}
	s.Begin(s.env, path, append([]string{"-c", s.config.File, "--addr", "127.0.0.1", "--port", s.port}, s.config.Args...)...)
}

// ready returns nil when the server answers for JetStream.
func (s *Server) ready() error {
	options := append([]nats.Option{nats.Timeout(time.Second), nats.MaxReconnects(0)}, s.config.Options...)
	nc, err := nats.Connect(s.URL(), options...)
	if err != nil {
		return err
	}
	defer nc.Close()
	answer, err := nc.Request("$JS.API.INFO", nil, time.Second)
	if err == nil && strings.Contains(string(answer.Data), `"error"`) {
		err = errors.New(string(answer.Data))
	}
	return err
}

// URL returns the address for clients, with the credentials.
func (s *Server) URL() string {
	u := url.URL{Scheme: "nats", Host: s.Addr(), User: url.UserPassword(s.config.User, s.config.Password)}
	return u.String()
}

// Addr returns the server's host and port.
func (s *Server) Addr() string { return "127.0.0.1:" + s.port }

// Name returns the server's name, as streams name their leader.
func (s *Server) Name() string { return s.name }

// Restart restarts the server on its port and store, and waits until it serves JetStream.
func (s *Server) Restart() {
	s.tb.Helper()
	s.Stop()
	s.begin()
	s.Await(s.ready)
}

// Reload has the server read its configuration again, and returns when it has.
func (s *Server) Reload() {
	s.tb.Helper()
	reloads := func() int { return strings.Count(s.Output.String(), "Reloaded server configuration") }
	before := reloads()
	s.Signal(syscall.SIGHUP)
	servertest.Eventually(s.tb, servertest.Patience, func() error {
		if reloads() == before {
			return fmt.Errorf("%s did not read its configuration again", s.name)
		}
		return nil
	})
}
