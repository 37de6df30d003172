package redistest

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// MasterName is the name under which the sentinels watch the master.
const MasterName = "chatsessions"

const sentinels, quorum = 3, 2

// A Watched is a master with a replica and three sentinels that watch them, processes
// on free ports of the loopback interface. It ends with its test.
type Watched struct {
	tb        testing.TB
	config    Config
	servers   []*Server
	sentinels []*Server
}

// StartSentinel runs a master, its replica and the sentinels, and returns when the
// sentinels know everybody and the replica follows.
func StartSentinel(tb testing.TB, config Config) *Watched {
	tb.Helper()
	w := &Watched{tb: tb, config: config}
	config.Args = slices.Concat(config.Args, []string{"--repl-diskless-sync-delay", "0"})
	master := Start(tb, config)
	config.Args = slices.Concat(config.Args, []string{"--replicaof", "127.0.0.1 " + strconv.Itoa(master.port)})
	replica := Start(tb, config)
	w.servers = []*Server{master, replica}
	eventually(tb, startTimeout, replica.follows)
	for range sentinels {
		s := newServer(tb, w.config)
		s.sentinelConfig = filepath.Join(s.dir, "sentinel.conf")
		if err := os.WriteFile(s.sentinelConfig, []byte(w.sentinelConfig(s, master)), 0o600); err != nil {
			tb.Fatal(err)
		}
		s.run()
		tb.Cleanup(s.Kill)
		w.sentinels = append(w.sentinels, s)
	}
	w.AwaitWhole()
	return w
}

func (w *Watched) sentinelConfig(s, master *Server) string {
	lines := []string{"bind 127.0.0.1", "dir " + s.dir, `logfile ""`}
	if w.config.TLS != nil {
		lines = append(lines, "port 0", "tls-port "+strconv.Itoa(s.port), "tls-replication yes")
		for _, option := range w.config.TLS.serverOptions() {
			lines = append(lines, option[0]+" "+option[1])
		}
	} else {
		lines = append(lines, "port "+strconv.Itoa(s.port))
	}
	// Before what is said about the master.
	password := strconv.Quote(w.config.password())
	switch {
	case w.config.ACL:
		s.writeUsers("sentinel-users.acl")
		lines = append(lines, "aclfile "+s.usersFile(), "sentinel sentinel-user sentinels", "sentinel sentinel-pass "+password)
	case w.config.Password != "":
		lines = append(lines, "requirepass "+password, "sentinel sentinel-pass "+password)
	}
	lines = append(lines,
		fmt.Sprintf("sentinel monitor %s 127.0.0.1 %d %d", MasterName, master.port, quorum),
		fmt.Sprintf("sentinel down-after-milliseconds %s %d", MasterName, silence.Milliseconds()),
		fmt.Sprintf("sentinel failover-timeout %s %d", MasterName, (3*silence).Milliseconds()),
	)
	if w.config.ACL {
		lines = append(lines, "sentinel auth-user "+MasterName+" sentinel")
	}
	if w.config.password() != "" {
		lines = append(lines, "sentinel auth-pass "+MasterName+" "+password)
	}
	return strings.Join(lines, "\n") + "\n"
}

// URL returns where to reach the sentinels, and through them the master.
func (w *Watched) URL() string {
	parameters := url.Values{"master": {MasterName}}
	if w.config.ACL {
		parameters.Set("sentinel_user", "chatsessions")
	}
	if password := w.config.password(); password != "" {
		parameters.Set("sentinel_password", password)
	}
	var addrs []string
	for _, s := range w.sentinels {
		addrs = append(addrs, s.Addr())
	}
	return w.config.url("+sentinel", addrs, "/0", parameters)
}

// Sentinels returns the sentinels.
func (w *Watched) Sentinels() []*Server { return slices.Clone(w.sentinels) }

// Master returns the server that the sentinels say is the master.
func (w *Watched) Master() *Server {
	w.tb.Helper()
	var addrs []string
	eventually(w.tb, failoverTimeout, func() error {
		addrs = nil
		for _, s := range w.sentinels {
			err := s.do(func(ctx context.Context, rdb *redis.Client) error {
				addr, err := rdb.Do(ctx, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", MasterName).StringSlice()
				addrs = append(addrs, strings.Join(addr, ":"))
				return err
			})
			if err != nil {
				return err
			}
		}
		if len(slices.Compact(slices.Clone(addrs))) > 1 {
			return fmt.Errorf("the sentinels do not agree: %v", addrs)
		}
		return nil
	})
	i := slices.IndexFunc(w.servers, func(s *Server) bool { return s.Addr() == addrs[0] })
	if i < 0 {
		w.tb.Fatalf("no server is at %s", addrs[0])
	}
	return w.servers[i]
}

// KillMasterOf ends the master, who has every key, as kill -9 does, and returns it. The
// replica takes over by itself; AwaitServed waits for that.
func (w *Watched) KillMasterOf(string) *Server {
	w.tb.Helper()
	victim := w.Master()
	victim.Kill()
	return victim
}

// AwaitServed returns when the sentinels agree on a master that runs.
func (w *Watched) AwaitServed() {
	w.tb.Helper()
	eventually(w.tb, failoverTimeout, func() error {
		master := w.Master()
		if !master.alive() {
			return fmt.Errorf("%s has ended", master.Addr())
		}
		return master.do(func(ctx context.Context, rdb *redis.Client) error {
			info, err := rdb.Info(ctx, "replication").Result()
			if err == nil && !strings.Contains(info, "role:master") {
				err = fmt.Errorf("%s is no master yet", master.Addr())
			}
			return err
		})
	})
}

// AwaitWhole returns when the replica follows, and the sentinels know it and each other.
func (w *Watched) AwaitWhole() {
	w.tb.Helper()
	w.AwaitServed()
	master := w.Master()
	for _, s := range w.servers {
		if s != master {
			eventually(w.tb, failoverTimeout, s.follows)
		}
	}
	for _, s := range w.sentinels {
		eventually(w.tb, failoverTimeout, func() error {
			return s.do(func(ctx context.Context, rdb *redis.Client) error {
				known, err := rdb.Do(ctx, "SENTINEL", "CKQUORUM", MasterName).Text()
				if err != nil {
					return err
				}
				if !strings.Contains(known, fmt.Sprintf("OK %d usable", sentinels)) {
					return fmt.Errorf("%s: %s", s.Addr(), known)
				}
				info, err := rdb.Info(ctx, "sentinel").Result()
				if err == nil && !strings.Contains(info, "status=ok") || !strings.Contains(info, fmt.Sprintf("slaves=%d", len(w.servers)-1)) {
					err = fmt.Errorf("%s: %s", s.Addr(), info)
				}
				return err
			})
		})
	}
}

// CheckRights fails the test when somebody asked a server for what Config.ACL does not
// allow.
func (w *Watched) CheckRights() {
	w.tb.Helper()
	for _, s := range slices.Concat(w.servers, w.sentinels) {
		if s.alive() {
			s.CheckRights()
		}
	}
}
