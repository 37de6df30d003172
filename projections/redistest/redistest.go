// Package redistest runs real redis-server processes for tests.
package redistest

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// startTimeout is how long a server may take until it answers.
const startTimeout = 15 * time.Second

// Config says how to run a server; the zero value will do.
type Config struct {
	// Password that clients have to give; "" for none.
	Password string
	// Args are further arguments of redis-server, such as "--maxmemory", "64mb".
	Args []string
	// Persistent keeps the data over a Restart, by an append-only file that is
	// synced at every write.
	Persistent bool
}

// A Server is a redis-server process on a free port of the loopback interface.
// It ends with its test.
type Server struct {
	tb     testing.TB
	config Config
	port   int
	dir    string
	output *lockedBuffer

	process *exec.Cmd
	ended   chan struct{} // closed when the process has ended
}

// Start runs a server and returns when it answers. The configuration that the
// repository deploys, deploy/redis/redis.conf, is its base. A missing
// redis-server fails the test.
func Start(tb testing.TB, config Config) *Server {
	tb.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		tb.Fatal("redis-server is not installed, and the tests need it: `apt-get install redis-server`, or `make test`, which does that")
	}
	s := &Server{tb: tb, config: config, port: freePort(tb), dir: tb.TempDir(), output: &lockedBuffer{}}
	s.run()
	tb.Cleanup(s.Kill)
	return s
}

// Addr returns host and port of the server.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// URL returns where to reach the server, password included.
func (s *Server) URL() string {
	at := url.URL{Scheme: "redis", Host: s.Addr()}
	if s.config.Password != "" {
		at.User = url.UserPassword("default", s.config.Password)
	}
	return at.String()
}

// Output returns what the server has printed.
func (s *Server) Output() string { return s.output.String() }

// Kill ends the server at once, as kill -9 does. It may be called again.
func (s *Server) Kill() {
	_ = s.process.Process.Kill()
	<-s.ended
}

// Pause freezes the server (SIGSTOP): connections stay open, nothing answers.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP) }

// Resume lets a paused server go on.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(signal syscall.Signal) {
	s.tb.Helper()
	if err := s.process.Process.Signal(signal); err != nil {
		s.tb.Fatal(err)
	}
}

// Restart kills the server and starts it again on the same port. Without
// Config.Persistent it is empty then.
func (s *Server) Restart() {
	s.tb.Helper()
	s.Kill()
	s.run()
}

// Flush removes everything from the server.
func (s *Server) Flush() {
	s.tb.Helper()
	if err := s.do(func(ctx context.Context, rdb *redis.Client) error { return rdb.FlushAll(ctx).Err() }); err != nil {
		s.tb.Fatalf("flush redis: %v", err)
	}
}

// run starts the process and waits until it answers.
func (s *Server) run() {
	s.tb.Helper()
	var args []string
	if base := deployedConfig(); base != "" {
		args = append(args, base)
	}
	args = append(args,
		"--port", strconv.Itoa(s.port), "--bind", "127.0.0.1", "--dir", s.dir,
		"--daemonize", "no", "--logfile", "", "--save", "", "--requirepass", s.config.Password)
	if s.config.Persistent {
		args = append(args, "--appendonly", "yes", "--appendfsync", "always")
	} else {
		args = append(args, "--appendonly", "no")
	}
	process := exec.Command("redis-server", append(args, s.config.Args...)...) //nolint:gosec // a test's own arguments
	process.Stdout, process.Stderr = s.output, s.output
	if err := process.Start(); err != nil {
		s.tb.Fatalf("start redis-server: %v", err)
	}
	ended := make(chan struct{})
	go func() {
		_ = process.Wait()
		close(ended)
	}()
	s.process, s.ended = process, ended

	deadline := time.Now().Add(startTimeout)
	for {
		err := s.listens()
		if err == nil {
			err = s.do(func(ctx context.Context, rdb *redis.Client) error { return rdb.Ping(ctx).Err() })
		}
		if err == nil {
			return
		}
		select {
		case <-ended:
			s.tb.Fatalf("redis-server ended: %v\n%s", err, s.Output())
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			s.Kill()
			s.tb.Fatalf("redis-server does not answer: %v\n%s", err, s.Output())
		}
	}
}

// listens asks without go-redis, which would log every refusal.
func (s *Server) listens() error {
	conn, err := net.DialTimeout("tcp", s.Addr(), startTimeout)
	if err != nil {
		return err
	}
	return conn.Close()
}

func (s *Server) do(command func(context.Context, *redis.Client) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	rdb := redis.NewClient(&redis.Options{
		Addr: s.Addr(), Password: s.config.Password, MaxRetries: -1, DialerRetries: 1, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	return errors.Join(command(ctx, rdb), rdb.Close())
}

// deployedConfig finds the configuration that the repository deploys, "" for none.
func deployedConfig() string {
	dir, err := os.Getwd()
	if err != nil {
		return ""
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			return ""
		}
		dir = filepath.Dir(dir)
	}
	file := filepath.Join(dir, "deploy", "redis", "redis.conf")
	if _, err := os.Stat(file); err != nil {
		return ""
	}
	return file
}

func freePort(tb testing.TB) int {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("find a free port: %v", err)
	}
	defer l.Close()
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		tb.Fatalf("not a TCP address: %v", l.Addr())
	}
	return addr.Port
}

// A lockedBuffer keeps what a process prints while others read it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
