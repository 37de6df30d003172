// Package redistest runs real redis-server processes for tests: one server, a Redis
// Cluster, or a master with a replica and sentinels.
package redistest

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"chatsessions/deploy/loopback"
	"chatsessions/projections/logtest"
)

// startTimeout is how long a server may take until it answers.
const startTimeout = 15 * time.Second

// aclPassword is used where Config.ACL is set without a password. It holds every character
// that a URL treats in a special way.
const aclPassword = "pass:w/o@r?d#1&2=3+4 %20"

// Config says how to run a server. The zero value is usable.
type Config struct {
	Password string // "" for none
	// ACL loads the users that the repository deploys, deploy/redis/users.acl. URL then
	// names the service's user.
	ACL bool
	// TLS, if not nil, makes the server accept TLS connections only.
	TLS *Certificates
	// Args are further arguments of redis-server, such as "--maxmemory", "64mb".
	Args []string
	// Persistent keeps the data over a Restart, in an append-only file that is synced at
	// every write.
	Persistent bool
}

func (c Config) password() string {
	if c.ACL {
		return cmp.Or(c.Password, aclPassword)
	}
	return c.Password
}

// A Server is a redis-server process on a free port of the loopback interface. It ends
// with its test.
type Server struct {
	tb     testing.TB
	config Config
	port   int
	dir    string
	file   string // the configuration
	output logtest.Buffer

	sentinel bool

	process *exec.Cmd
	ended   chan struct{} // closed when the process has ended
}

// Start runs a server with the configuration that the repository deploys,
// deploy/redis/redis.conf, and returns when it answers. Without redis-server, the test
// fails.
func Start(tb testing.TB, config Config) *Server {
	tb.Helper()
	s := newServer(tb, config)
	s.writeFile(s.file, deployed(tb, "redis.conf"))
	s.run()
	return s
}

// newServer returns a server that does not run yet.
func newServer(tb testing.TB, config Config) *Server {
	tb.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		tb.Fatal("redis-server is not installed, and the tests need it: `apt-get install redis-server`, or `make test`, which does that")
	}
	s := &Server{tb: tb, config: config, port: freePort(tb), dir: tb.TempDir()}
	s.file = filepath.Join(s.dir, "redis.conf")
	if config.ACL {
		s.writeUsers("users.acl")
	}
	tb.Cleanup(s.Kill)
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

// Kill ends the server at once, as kill -9 does. It may be called again.
func (s *Server) Kill() {
	if s.process != nil {
		_ = s.process.Process.Kill()
		<-s.ended
	}
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

// Resume ends a pause.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(signal syscall.Signal) {
	s.tb.Helper()
	logtest.MustRun(s.tb, s.process.Process.Signal(signal))
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
	logtest.MustRun(s.tb, s.ask("FLUSHALL").Err())
}

// CheckRights fails the test if a client requested something that Config.ACL does not
// allow.
func (s *Server) CheckRights() {
	s.tb.Helper()
	denied := redis.NewACLLogCmd(context.Background(), "ACL", "LOG", 10)
	if err := s.send(denied); err != nil {
		s.tb.Error(err)
	}
	for _, d := range denied.Val() {
		if d.Reason != "auth" {
			s.tb.Errorf("redis has refused %s to %s: %s %s", d.Username, d.Reason, d.Object, d.Context)
		}
	}
}

// run starts the process and waits until it answers.
func (s *Server) run() {
	s.tb.Helper()
	process := exec.Command("redis-server", s.args()...) //nolint:gosec // a test's own arguments
	process.Stdout, process.Stderr = &s.output, &s.output
	logtest.MustRun(s.tb, process.Start())
	ended := make(chan struct{})
	go func() {
		_ = process.Wait()
		close(ended)
	}()
	s.process, s.ended = process, ended
	eventually(s.tb, startTimeout, func() error {
		conn, err := net.Dial("tcp", s.Addr()) // go-redis would log every refusal
		if err == nil {
			_ = conn.Close()
			err = s.ask("PING").Err()
		}
		if err != nil {
			err = fmt.Errorf("redis-server does not answer: %w\n%s", err, s.output.String())
			if !s.alive() {
				s.tb.Fatal(err)
			}
		}
		return err
	})
}

func (s *Server) args() []string {
	if s.sentinel {
		return []string{s.file, "--sentinel"}
	}
	args := []string{s.file, "--bind", "127.0.0.1", "--dir", s.dir, "--daemonize", "no", "--logfile", "", "--save", ""}
	for _, option := range s.listenOptions() {
		args = append(args, "--"+option[0], option[1])
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

// listenOptions are the options of redis-server that say where it listens.
func (s *Server) listenOptions() [][2]string {
	port := strconv.Itoa(s.port)
	if s.config.TLS == nil {
		return [][2]string{{"port", port}}
	}
	return append(s.config.TLS.serverOptions(), [2]string{"port", "0"}, [2]string{"tls-port", port})
}

// writeUsers writes the users that the repository deploys in a file, with the password
// filled in. It enables the default user, which the tests use.
func (s *Server) writeUsers(file string) {
	s.tb.Helper()
	users := strings.ReplaceAll(deployed(s.tb, file), "user default off", "user default on #SHA256 ~* &* +@all")
	digest := fmt.Sprintf("#%x", sha256.Sum256([]byte(s.config.password())))
	s.writeFile(s.usersFile(), strings.ReplaceAll(users, "#SHA256", digest))
}

func (s *Server) usersFile() string { return filepath.Join(s.dir, "users.acl") }

func (s *Server) writeFile(path, content string) {
	s.tb.Helper()
	logtest.MustRun(s.tb, os.WriteFile(path, []byte(content), 0o600))
}

// ask sends a command on a connection of its own.
func (s *Server) ask(args ...any) *redis.Cmd {
	command := redis.NewCmd(context.Background(), args...)
	_ = s.send(command) // the command has the error
	return command
}

func (s *Server) send(command redis.Cmder) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	options := &redis.Options{
		Addr: s.Addr(), Password: s.config.password(), MaxRetries: -1, DialerRetries: 1, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	if s.config.TLS != nil {
		options.TLSConfig = s.config.TLS.client
	}
	rdb := redis.NewClient(options)
	defer rdb.Close()
	return rdb.Process(ctx, command)
}

// info returns a section of INFO.
func (s *Server) info(section string) (string, error) { return s.ask("INFO", section).Text() }

// follows returns an error unless the server is a replica in touch with its master.
func (s *Server) follows() error {
	info, err := s.info("replication")
	if err == nil && !strings.Contains(info, "master_link_status:up") {
		err = fmt.Errorf("%s does not follow its master: %s", s.Addr(), info)
	}
	return err
}

// addrs returns the addresses of servers.
func addrs(servers []*Server) []string {
	var all []string
	for _, s := range servers {
		all = append(all, s.Addr())
	}
	return all
}

// at returns the server with an address.
func at(tb testing.TB, servers []*Server, addr string) *Server {
	tb.Helper()
	i := slices.IndexFunc(servers, func(s *Server) bool { return s.Addr() == addr })
	if i < 0 {
		tb.Fatalf("no server is at %s", addr)
	}
	return servers[i]
}

// running returns the servers that run.
func running(servers []*Server) []*Server {
	return slices.DeleteFunc(slices.Clone(servers), func(s *Server) bool { return !s.alive() })
}

// deployed returns the content of a file in deploy/redis.
func deployed(tb testing.TB, name string) string {
	tb.Helper()
	_, here, _, _ := runtime.Caller(0)
	content, err := os.ReadFile(filepath.Join(filepath.Dir(here), "..", "..", "deploy", "redis", name))
	logtest.MustRun(tb, err)
	return string(content)
}

// freePort returns a port that no other server gets.
func freePort(tb testing.TB) int {
	tb.Helper()
	port, err := loopback.Port()
	logtest.MustRun(tb, err)
	return port
}

// eventually tries until it succeeds.
func eventually(tb testing.TB, atMost time.Duration, try func() error) {
	tb.Helper()
	for deadline := time.Now().Add(atMost); ; time.Sleep(10 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("after %s: %v", atMost, err)
		}
	}
}
