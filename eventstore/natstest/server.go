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
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"chatsessions/deploy/loopback"
)

// patience bounds every wait for a server.
const patience = 60 * time.Second

// Config says how to run a server. The zero value is a server with the deployed
// configuration and a store directory of its own.
type Config struct {
	StoreDir string // "" for a temporary one, which goes with the test
	// User and Password are what clients have to give; both "" for some that URL
	// tells.
	User, Password string
	// File is the configuration, "" for the one that is deployed.
	File string
	// Args are appended to the server's command line.
	Args []string
	// Options are what a client needs beside the URL, such as certificates.
	Options []nats.Option
}

// Server is a nats-server process with JetStream and the configuration that is
// deployed: it acknowledges only what is on disk. It listens on a port of
// 127.0.0.1 that stays the same over Restart. The process is killed when the test
// ends.
type Server struct {
	tb     testing.TB
	config Config
	name   string
	port   int
	dir    string   // the server's log, and its store unless told otherwise
	env    []string // what the configuration refers to
	cmd    *exec.Cmd
	exited chan struct{}
}

// Start runs a server and returns when it serves JetStream.
func Start(tb testing.TB, config Config) *Server {
	tb.Helper()
	if config.File == "" {
		config.File = deployed(tb, "nats-server.conf")
	}
	s := prepare(tb, config, "chat-sessions-1")
	s.start()
	s.waitReady()
	return s
}

// deployed is the path of a configuration in deploy/nats.
func deployed(tb testing.TB, file string) string {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			tb.Fatal("no go.mod in this directory or above")
		}
		dir = filepath.Dir(dir)
	}
	path := filepath.Join(dir, "deploy", "nats", file)
	if _, err := os.Stat(path); err != nil {
		tb.Fatal(err)
	}
	return path
}

// prepare chooses a port and the credentials.
func prepare(tb testing.TB, config Config, name string, env ...string) *Server {
	tb.Helper()
	s := &Server{tb: tb, config: config, name: name, port: freePort(tb), dir: tb.TempDir()}
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
			log, _ := os.ReadFile(s.logFile())
			tb.Logf("log of nats-server %s:\n%s", name, tail(log, 4000))
		}
	})
	return s
}

func (s *Server) logFile() string { return filepath.Join(s.dir, "nats-server.log") }

// start runs the process and does not wait for it to serve.
func (s *Server) start() {
	s.tb.Helper()
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.tb.Fatal(err)
	}
	defer log.Close()
	args := append([]string{"-c", s.config.File, "--addr", "127.0.0.1", "--port", strconv.Itoa(s.port)}, s.config.Args...)
	cmd := exec.Command(Build(s.tb), args...)
	cmd.Env = append(os.Environ(), s.env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = dieWithParent()
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
			log, _ := os.ReadFile(s.logFile())
			s.tb.Fatalf("nats-server %s ended: %s", s.name, tail(log, 4000))
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
	if err != nil {
		return err
	}
	if strings.Contains(string(answer.Data), `"error"`) {
		return errors.New(string(answer.Data))
	}
	return nil
}

// URL is where clients reach the server, with the credentials in it.
func (s *Server) URL() string {
	u := url.URL{Scheme: "nats", Host: s.Addr(), User: url.UserPassword(s.config.User, s.config.Password)}
	return u.String()
}

// Addr is the server's host and port.
func (s *Server) Addr() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// Name is the server's name, by which streams tell their leader.
func (s *Server) Name() string { return s.name }

// Kill ends the process at once (SIGKILL) and returns when it is gone. A server
// that is not running stays so.
func (s *Server) Kill() { s.end(syscall.SIGKILL) }

// Stop asks the process to end (SIGTERM) and returns when it is gone.
func (s *Server) Stop() { s.end(syscall.SIGTERM) }

func (s *Server) end(signal syscall.Signal) {
	s.tb.Helper()
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(signal)
	if signal != syscall.SIGKILL {
		_ = s.cmd.Process.Signal(syscall.SIGCONT) // in case it is paused
	}
	select {
	case <-s.exited:
		s.cmd = nil
	case <-time.After(patience):
		s.tb.Errorf("nats-server %s does not end", s.name)
	}
}

// Restart starts the server again after Kill or Stop, or stops it first, on the
// same port and store directory, and returns when it serves JetStream.
func (s *Server) Restart() {
	s.tb.Helper()
	s.Stop()
	s.start()
	s.waitReady()
}

// Pause freezes the process (SIGSTOP) and returns when it stands still:
// connections stay open, nothing answers.
func (s *Server) Pause() {
	s.tb.Helper()
	s.signal(syscall.SIGSTOP)
	if err := waitStopped(s.cmd.Process.Pid); err != nil {
		s.tb.Fatalf("pausing nats-server: %v", err)
	}
}

// Resume lets a paused process go on.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(signal syscall.Signal) {
	s.tb.Helper()
	if err := s.cmd.Process.Signal(signal); err != nil {
		s.tb.Fatal(err)
	}
}

// freePort returns a port that no other server gets.
func freePort(tb testing.TB) int {
	tb.Helper()
	port, err := loopback.Port()
	if err != nil {
		tb.Fatal(err)
	}
	return port
}

func tail(b []byte, n int) []byte { return b[max(0, len(b)-n):] }
