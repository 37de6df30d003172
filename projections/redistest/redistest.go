// Package redistest runs real redis-server processes for tests: one server, a Redis
// Cluster, or a master with a replica and sentinels.
package redistest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"chatsessions/deploy/servertest"
	"chatsessions/projections/logtest"
)

// patience is how long a server may take to answer, or to replace another one.
const patience = 30 * time.Second

// aclPassword, with Config.ACL, holds every character that a URL treats in a special way.
const aclPassword = "pass:w/o@r?d#1&2=3+4 %20"

// Config says how to run a server. The zero value is usable.
type Config struct {
	Password string // "" for none; not with ACL
	// ACL loads the users that the repository deploys, deploy/redis/users.acl. URL then
	// names the service's user.
	ACL bool
	// TLS, if not nil, makes the server accept TLS connections only.
	TLS *Certificates
	// Args are further arguments of redis-server, such as "--maxmemory", "64mb".
	Args []string
}

func (c Config) password() string {
	if c.ACL {
		return aclPassword
	}
	return c.Password
}

// A Server is a redis-server process on a free loopback port. It ends with its test.
type Server struct {
	*servertest.Process
	tb     testing.TB
	config Config
	port   string
	dir    string
}

// Start runs a server with the deployed configuration, deploy/redis/redis.conf, and returns
// when it answers. Without redis-server, the test fails.
func Start(tb testing.TB, config Config) *Server {
	tb.Helper()
	s := newServer(tb, config)
	lines := append([]string{s.deployed("redis.conf")}, s.options()...)
	lines = append(lines, `save ""`, "appendonly no", "masterauth "+strconv.Quote(config.password()))
	if config.ACL {
		s.writeUsers("users.acl")
		lines = append(lines, "masteruser replica")
	} else {
		lines = append(lines, "requirepass "+strconv.Quote(config.Password))
	}
	s.writeFile("redis.conf", lines...)
	s.run()
	return s
}

// newServer returns a server that does not run yet.
func newServer(tb testing.TB, config Config) *Server {
	tb.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		tb.Fatal("redis-server is not installed, and the tests need it: `apt-get install redis-server`, or `make test`, which does that")
	}
	dir, port := tb.TempDir(), servertest.Port(tb)
	return &Server{Process: servertest.New(tb, "redis-server "+port), tb: tb, config: config, port: port, dir: dir}
}

// Addr returns host and port of the server.
func (s *Server) Addr() string { return "127.0.0.1:" + s.port }

// URL returns where to reach the server, password included.
func (s *Server) URL() string { return s.config.url("", []*Server{s}, "", nil) }

// url returns a URL for the servers.
func (c Config) url(run string, servers []*Server, path string, parameters url.Values) string {
	var addrs []string
	for _, s := range servers {
		addrs = append(addrs, s.Addr())
	}
	at := url.URL{Scheme: "redis", Host: strings.Join(addrs, ","), Path: path}
	if c.TLS != nil {
		at.Scheme = "rediss"
		own := url.Values{"tls_ca": {c.TLS.Cert}, "tls_cert": {c.TLS.Cert}, "tls_key": {c.TLS.Key}}
		maps.Copy(own, parameters)
		parameters = own
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

// Restart restarts the server on its port, empty unless its arguments make it keep its data.
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

// CheckRights fails the test if a client requested what Config.ACL does not allow.
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
	s.Begin(nil, "redis-server", append([]string{s.path("redis.conf")}, s.config.Args...)...)
	s.Await(func() error {
		conn, err := net.Dial("tcp", s.Addr()) // go-redis would log every refusal
		if err != nil {
			return err
		}
		_ = conn.Close()
		return s.ask("PING").Err()
	})
}

// options are what server and sentinel share. With TLS, clients must show a certificate.
func (s *Server) options() []string {
	lines := []string{"bind 127.0.0.1", "dir " + s.dir, `logfile ""`}
	if s.config.ACL {
		lines = append(lines, "aclfile "+s.path("users.acl"))
	}
	c := s.config.TLS
	if c == nil {
		return append(lines, "port "+s.port)
	}
	return append(lines, "port 0", "tls-port "+s.port, "tls-replication yes", "tls-cluster yes", "tls-auth-clients yes",
		"tls-cert-file "+c.Cert, "tls-key-file "+c.Key, "tls-ca-cert-file "+c.Cert)
}

// writeUsers writes the deployed users with the password, and enables the default one.
func (s *Server) writeUsers(file string) {
	s.tb.Helper()
	users := strings.ReplaceAll(s.deployed(file), "user default off", "user default on #SHA256 ~* &* +@all")
	digest := fmt.Sprintf("#%x", sha256.Sum256([]byte(s.config.password())))
	s.writeFile("users.acl", strings.ReplaceAll(users, "#SHA256", digest))
}

func (s *Server) path(file string) string { return filepath.Join(s.dir, file) }

func (s *Server) writeFile(name string, lines ...string) {
	s.tb.Helper()
	logtest.MustRun(s.tb, os.WriteFile(s.path(name), []byte(strings.Join(lines, "\n")+"\n"), 0o600))
}

// deployed returns the content of a file in deploy/redis.
func (s *Server) deployed(name string) string {
	s.tb.Helper()
	content, err := os.ReadFile(servertest.Deployed("redis", name))
	logtest.MustRun(s.tb, err)
	return string(content)
}

// ask sends a command on a connection of its own.
func (s *Server) ask(args ...any) *redis.Cmd {
	command := redis.NewCmd(context.Background(), args...)
	_ = s.send(command) // the command has the error
	return command
}

func (s *Server) send(command redis.Cmder) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
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

// follows returns an error unless the server is a replica in touch with its master.
func (s *Server) follows() error {
	info, err := s.ask("INFO", "replication").Text()
	if err == nil && !strings.Contains(info, "master_link_status:up") {
		err = fmt.Errorf("%s does not follow its master: %s", s.Addr(), info)
	}
	return err
}

// A group is servers that belong together.
type group struct {
	tb      testing.TB
	config  Config
	servers []*Server
}

// Servers returns all servers that run.
func (g *group) Servers() []*Server {
	return slices.DeleteFunc(slices.Clone(g.servers), func(s *Server) bool { return !s.Running() })
}

// CheckRights is Server.CheckRights for all servers that run.
func (g *group) CheckRights() {
	g.tb.Helper()
	for _, s := range g.Servers() {
		s.CheckRights()
	}
}

// at returns the server with an address.
func (g *group) at(addr string) *Server {
	g.tb.Helper()
	i := slices.IndexFunc(g.servers, func(s *Server) bool { return s.Addr() == addr })
	if i < 0 {
		g.tb.Fatalf("no server is at %s", addr)
	}
	return g.servers[i]
}
