// Package natstest runs real NATS servers as processes of their own, for tests that kill
// and pause them. The server is built from the module that go.mod pins, so tests and
// service use the same version. Whatever is missing fails the test.
package natstest

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sys/unix"

	"chatsessions/deploy/loopback"
)

// patience bounds every wait for a server.
const patience = 60 * time.Second

// Config describes a server. The zero value is a server with the deployed configuration
// and a store directory of its own.
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
	tb     testing.TB
	config Config
	name   string
	port   int
	dir    string   // holds the server's log, and its store by default
	env    []string // what the configuration refers to
	cmd    *exec.Cmd
	exited chan struct{}
}

// Start runs a server and returns when it serves JetStream.
func Start(tb testing.TB, config Config) *Server {
	tb.Helper()
	s := prepare(tb, config, "nats-server.conf", "chat-sessions-1")
	s.start()
	s.waitReady()
	return s
}

// binary builds the server that go.mod pins, and returns the path of its binary in the
// build cache.
var binary = sync.OnceValues(func() (string, error) {
	output, err := exec.Command("go", "tool", "-n", "nats-server").Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		err = fmt.Errorf("%w: %s", err, failed.Stderr)
	}
	return strings.TrimSpace(string(output)), err
})

// deployed returns the path of a configuration in deploy/nats.
func deployed(tb testing.TB, file string) string {
	tb.Helper()
	module, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		tb.Fatal(err)
	}
	return filepath.Join(filepath.Dir(string(module)), "deploy", "nats", file)
}

// prepare chooses a port and the credentials. The deployed configuration is the default.
func prepare(tb testing.TB, config Config, deployedFile, name string, env ...string) *Server {
	tb.Helper()
	port, err := loopback.Port()
	if err != nil {
		tb.Fatal(err)
	}
	s := &Server{tb: tb, config: config, name: name, port: port, dir: tb.TempDir()}
	if s.config.File == "" {
		s.config.File = deployed(tb, deployedFile)
	}
	if s.config.StoreDir == "" {
		s.config.StoreDir = filepath.Join(s.dir, "store")
	}
	if s.config.User == "" && s.config.Password == "" {
		s.config.User, s.config.Password = "chatsessions", "100% secret"
	}
	s.env = append(env,
		"NATS_STORE_DIR="+strconv.Quote(s.config.StoreDir),
		"NATS_USER="+strconv.Quote(s.config.User),
		"NATS_PASSWORD="+strconv.Quote(s.config.Password),
		"NATS_SERVER_NAME="+name,
	)
	tb.Cleanup(func() {
		s.Kill()
		if tb.Failed() {
			tb.Logf("log of nats-server %s:\n%s", name, s.logTail())
		}
	})
	return s
}

func (s *Server) logFile() string { return filepath.Join(s.dir, "nats-server.log") }

func (s *Server) logTail() []byte {
	log, _ := os.ReadFile(s.logFile())
	return log[max(0, len(log)-4000):]
}

// start runs the process and does not wait for it to serve.
func (s *Server) start() {
	s.tb.Helper()
	path, err := binary()
	if err != nil {
		s.tb.Fatalf("building nats-server: %v", err)
	}
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.tb.Fatal(err)
	}
	defer log.Close()
	args := append([]string{"-c", s.config.File, "--addr", "127.0.0.1", "--port", strconv.Itoa(s.port)}, s.config.Args...)
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), s.env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // ends with the test's process
	if err := cmd.Start(); err != nil {
		s.tb.Fatalf("starting nats-server: %v", err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	s.cmd, s.exited = cmd, exited
}

// waitReady returns when the server answers for JetStream.
func (s *Server) waitReady() {
	s.tb.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := s.ready()
		if err == nil {
			return
		}
		select {
		case <-s.exited:
			s.tb.Fatalf("nats-server %s ended: %s", s.name, s.logTail())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			s.tb.Fatalf("nats-server %s did not get ready: %v", s.name, err)
		}
	}
}

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
func (s *Server) Addr() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// Name returns the server's name, as streams name their leader.
func (s *Server) Name() string { return s.name }

// Kill ends the process at once (SIGKILL) and returns when it is gone.
func (s *Server) Kill() { s.end(syscall.SIGKILL) }

// Stop asks the process to end (SIGTERM) and returns when it is gone.
func (s *Server) Stop() { s.end(syscall.SIGTERM) }

func (s *Server) end(signal syscall.Signal) {
	s.tb.Helper()
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(signal)
	_ = s.cmd.Process.Signal(syscall.SIGCONT) // in case it is paused
	select {
	case <-s.exited:
		s.cmd = nil
	case <-time.After(patience):
		s.tb.Errorf("nats-server %s does not end", s.name)
	}
}

// Restart stops the server if it runs, starts it on the same port and store directory, and
// returns when it serves JetStream.
func (s *Server) Restart() {
	s.tb.Helper()
	s.Stop()
	s.start()
	s.waitReady()
}

// Pause stops the process (SIGSTOP) and returns when all of its threads stand still:
// connections stay open, nothing answers.
func (s *Server) Pause() {
	s.tb.Helper()
	s.signal(syscall.SIGSTOP)
	for {
		switch err := unix.Waitid(unix.P_PID, s.cmd.Process.Pid, nil, unix.WSTOPPED, nil); {
		case err == nil:
			return
		case !errors.Is(err, unix.EINTR):
			s.tb.Fatalf("pausing nats-server: %v", err)
		}
	}
}

// Resume continues a paused process.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

// Reload has the server read its configuration again, and returns when it has.
func (s *Server) Reload() {
	s.tb.Helper()
	before := s.reloads()
	s.signal(syscall.SIGHUP)
	for deadline := time.Now().Add(patience); s.reloads() == before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.tb.Fatalf("nats-server %s did not read its configuration again", s.name)
		}
	}
}

// reloads counts how often the server has said that it read its configuration again.
func (s *Server) reloads() int {
	s.tb.Helper()
	log, err := os.ReadFile(s.logFile())
	if err != nil {
		s.tb.Fatal(err)
	}
	return strings.Count(string(log), "Reloaded server configuration")
}

func (s *Server) signal(signal syscall.Signal) {
	s.tb.Helper()
	if err := s.cmd.Process.Signal(signal); err != nil {
		s.tb.Fatal(err)
	}
}
