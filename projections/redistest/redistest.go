// Package redistest runs real redis-server processes for tests: one server, a Redis
// Cluster, or a master with a replica and sentinels.
package redistest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"chatsessions/deploy/loopback"
)

// startTimeout is how long a server may take until it answers.
const startTimeout = 15 * time.Second

// aclPassword is the password of everybody where Config.ACL is set and gives none. It
// has all that a URL treats in a special way.
const aclPassword = "pass:w/o@r?d#1&2=3+4 %20"

// Config says how to run a server; the zero value will do.
type Config struct {
	// Password that clients have to give; "" for none.
	Password string
	// ACL has the server know the users that the repository deploys,
	// deploy/redis/users.acl, and URL name the service as the user.
	ACL bool
	// TLS has the server take TLS connections, and no others.
	TLS *Certificates
	// Args are further arguments of redis-server, such as "--maxmemory", "64mb".
	Args []string
	// Persistent keeps the data over a Restart, by an append-only file that is
	// synced at every write.
	Persistent bool
}

func (c Config) password() string {
	if c.ACL {
		return cmp.Or(c.Password, aclPassword)
	}
	return c.Password
}

// A Server is a redis-server process on a free port of the loopback interface.
// It ends with its test.
type Server struct {
	tb     testing.TB
	config Config
	port   int
	dir    string
	base   string // the deployed configuration, "" for none
	output *lockedBuffer

	sentinelConfig string // a file; the server is a sentinel then

	process *exec.Cmd
	ended   chan struct{} // closed when the process has ended
}

// Start runs a server and returns when it answers. The configuration that the
// repository deploys, deploy/redis/redis.conf, is its base. A missing
// redis-server fails the test.
func Start(tb testing.TB, config Config) *Server {
	tb.Helper()
	s := newServer(tb, config)
	s.run()
	tb.Cleanup(s.Kill)
	return s
}

func newServer(tb testing.TB, config Config) *Server {
	tb.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		tb.Fatal("redis-server is not installed, and the tests need it: `apt-get install redis-server`, or `make test`, which does that")
	}
	s := &Server{tb: tb, config: config, port: freePort(tb), dir: tb.TempDir(), output: &lockedBuffer{}}
	if config.ACL {
		s.writeUsers("users.acl")
	}
	if deployed := deployed("redis.conf"); deployed != "" {
		s.base = filepath.Join(s.dir, "redis.conf")
		content, err := os.ReadFile(deployed) //nolint:gosec // the repository's own
		if err == nil {
			err = os.WriteFile(s.base, content, 0o600) // a copy: sentinels have it rewritten
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
	return s
}

// Addr returns host and port of the server.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// URL returns where to reach the server, password included.
func (s *Server) URL() string { return s.config.url("", []string{s.Addr()}, "", nil) }

// url returns a URL for the addresses.
func (c Config) url(run string, addrs []string, path string, parameters url.Values) string {
	at := url.URL{Scheme: "redis", Host: strings.Join(addrs, ","), Path: path}
	if c.TLS != nil {
		at.Scheme = "rediss"
		parameters = c.TLS.parameters(parameters)
	}
	at.Scheme += run
	switch {
	case c.ACL:
		at.User = url.UserPassword("chatsessions", c.password())
	case c.Password != "":
		at.User = url.UserPassword("default", c.Password)
	}
	at.RawQuery = strings.ReplaceAll(parameters.Encode(), "+", "%20")
	return at.String()
}

// Output returns what the server has printed.
func (s *Server) Output() string { return s.output.String() }

// Kill ends the server at once, as kill -9 does. It may be called again.
func (s *Server) Kill() {
	_ = s.process.Process.Kill()
	<-s.ended
}

func (s *Server) alive() bool {
	select {
	case <-s.ended:
		return false
	default:
		return true
	}
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

// CheckRights fails the test when somebody asked the server for what Config.ACL does
// not allow.
func (s *Server) CheckRights() {
	s.tb.Helper()
	err := s.do(func(ctx context.Context, rdb *redis.Client) error {
		refused, err := rdb.ACLLog(ctx, 10).Result()
		for _, r := range refused {
			if r.Reason != "auth" {
				s.tb.Errorf("redis has refused %s to %s: %s %s", r.Username, r.Reason, r.Object, r.Context)
			}
		}
		return err
	})
	if err != nil {
		s.tb.Error(err)
	}
}

// run starts the process and waits until it answers.
func (s *Server) run() {
	s.tb.Helper()
	process := exec.Command("redis-server", s.args()...) //nolint:gosec // a test's own arguments
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

func (s *Server) args() []string {
	if s.sentinelConfig != "" {
		return []string{s.sentinelConfig, "--sentinel"}
	}
	var args []string
	if s.base != "" {
		args = append(args, s.base)
	}
	args = append(args, "--bind", "127.0.0.1", "--dir", s.dir, "--daemonize", "no", "--logfile", "", "--save", "")
	if s.config.TLS != nil {
		args = append(args, "--port", "0", "--tls-port", strconv.Itoa(s.port), "--tls-replication", "yes", "--tls-cluster", "yes")
		for _, option := range s.config.TLS.serverOptions() {
			args = append(args, "--"+option[0], option[1])
		}
	} else {
		args = append(args, "--port", strconv.Itoa(s.port))
	}
	if s.config.ACL {
		args = append(args, "--aclfile", s.usersFile(), "--masteruser", "replica", "--masterauth", s.config.password())
	} else {
		args = append(args, "--requirepass", s.config.Password, "--masterauth", s.config.Password)
	}
	if s.config.Persistent {
		args = append(args, "--appendonly", "yes", "--appendfsync", "always")
	} else {
		args = append(args, "--appendonly", "no")
	}
	return slices.Concat(args, s.config.Args)
}

// writeUsers writes the users that the repository deploys in a file with the password in
// place, and lets the default user in, who is the test's own.
func (s *Server) writeUsers(file string) {
	s.tb.Helper()
	content, err := os.ReadFile(deployed(file))
	if err != nil {
		s.tb.Fatal(err)
	}
	users := strings.ReplaceAll(string(content), "user default off", "user default on #SHA256 ~* &* +@all")
	digest := fmt.Sprintf("#%x", sha256.Sum256([]byte(s.config.password())))
	if err := os.WriteFile(s.usersFile(), []byte(strings.ReplaceAll(users, "#SHA256", digest)), 0o600); err != nil {
		s.tb.Fatal(err)
	}
}

func (s *Server) usersFile() string { return filepath.Join(s.dir, "users.acl") }

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
	options := &redis.Options{
		Addr: s.Addr(), Password: s.config.password(), MaxRetries: -1, DialerRetries: 1, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	if s.config.TLS != nil {
		options.TLSConfig = s.config.TLS.client(s.tb)
	}
	rdb := redis.NewClient(options)
	return errors.Join(command(ctx, rdb), rdb.Close())
}

// deployed finds a file that the repository deploys, "" for none.
func deployed(name string) string {
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
	file := filepath.Join(dir, "deploy", "redis", name)
	if _, err := os.Stat(file); err != nil {
		return ""
	}
	return file
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

// eventually tries until it succeeds.
func eventually(tb testing.TB, atMost time.Duration, try func() error) {
	tb.Helper()
	deadline := time.Now().Add(atMost)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("after %s: %v", atMost, err)
		}
		<-time.After(20 * time.Millisecond)
	}
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
