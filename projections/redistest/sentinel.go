package redistest

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"chatsessions/deploy/servertest"
)

// MasterName is the name under which the sentinels watch the master.
const MasterName = "chatsessions"

const sentinels, quorum = 3, 2

// A Watched is a master with a replica, and three sentinels that watch them: processes on
// free ports of the loopback interface. It ends with its test.
type Watched struct {
	tb        testing.TB
	config    Config
	servers   []*Server
	sentinels []*Server
}

// StartSentinel runs a master, its replica, and the sentinels, with the users that the
// repository deploys. It returns when the sentinels know all of them and the replica
// follows.
func StartSentinel(tb testing.TB, certificates *Certificates) *Watched {
	tb.Helper()
	config := Config{ACL: true, TLS: certificates}
	w := &Watched{tb: tb, config: config}
	config.Args = []string{"--repl-diskless-sync-delay", "0"}
	master := Start(tb, config)
	config.Args = append(config.Args, "--replicaof", "127.0.0.1 "+master.port)
	replica := Start(tb, config)
	w.servers = []*Server{master, replica}
	servertest.Eventually(tb, patience, replica.follows)
	for range sentinels {
		s := newServer(tb, w.config)
		s.sentinel = true
		s.writeUsers("sentinel-users.acl")
		s.writeFile("redis.conf", w.sentinelConfig(s, master))
		s.run()
		w.sentinels = append(w.sentinels, s)
	}
	w.AwaitWhole()
	return w
}

func (w *Watched) sentinelConfig(s, master *Server) string {
	lines := []string{"bind 127.0.0.1", "dir " + s.dir, `logfile ""`}
	for _, option := range s.listenOptions() {
		lines = append(lines, option[0]+" "+option[1])
	}
	// The credentials come before what is said about the master.
	password := strconv.Quote(w.config.password())
	lines = append(lines,
		"aclfile "+s.path("users.acl"), "sentinel sentinel-user sentinels", "sentinel sentinel-pass "+password,
		fmt.Sprintf("sentinel monitor %s 127.0.0.1 %s %d", MasterName, master.port, quorum),
		fmt.Sprintf("sentinel down-after-milliseconds %s %d", MasterName, silence.Milliseconds()),
		fmt.Sprintf("sentinel failover-timeout %s %d", MasterName, (3*silence).Milliseconds()),
		"sentinel auth-user "+MasterName+" sentinel",
		"sentinel auth-pass "+MasterName+" "+password,
	)
	return strings.Join(lines, "\n") + "\n"
}

// URL returns where to reach the sentinels, and through them the master.
func (w *Watched) URL() string {
	return w.config.url("+sentinel", addrs(w.sentinels), "/0", url.Values{
		"master": {MasterName}, "sentinel_user": {"chatsessions"}, "sentinel_password": {w.config.password()},
	})
}

// Sentinels returns the sentinels.
func (w *Watched) Sentinels() []*Server { return slices.Clone(w.sentinels) }

// Master returns the master that all sentinels name.
func (w *Watched) Master() *Server {
	w.tb.Helper()
	var named []string
	servertest.Eventually(w.tb, patience, func() error {
		named = nil
		for _, s := range w.sentinels {
			addr, err := s.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MasterName).StringSlice()
			if err != nil {
				return err
			}
			named = append(named, strings.Join(addr, ":"))
		}
		if named = slices.Compact(named); len(named) > 1 {
			return fmt.Errorf("the sentinels do not agree: %v", named)
		}
		return nil
	})
	return at(w.tb, w.servers, named[0])
}

// KillMasterOf ends the master, which has every key, as kill -9 does, and returns it. The
// replica takes over; AwaitServed waits for that.
func (w *Watched) KillMasterOf(string) *Server {
	w.tb.Helper()
	victim := w.Master()
	victim.Kill()
	return victim
}

// AwaitServed returns when the sentinels agree on a master that runs.
func (w *Watched) AwaitServed() {
	w.tb.Helper()
	servertest.Eventually(w.tb, patience, func() error {
		master := w.Master()
		info, err := master.info("replication")
		if err == nil && !strings.Contains(info, "role:master") {
			err = fmt.Errorf("%s is no master yet", master.Addr())
		}
		return err
	})
}

// AwaitWhole returns when the replica follows, and the sentinels know it and each other.
func (w *Watched) AwaitWhole() {
	w.tb.Helper()
	w.AwaitServed()
	master := w.Master()
	for _, s := range w.servers {
		if s != master {
			servertest.Eventually(w.tb, patience, s.follows)
		}
	}
	for _, s := range w.sentinels {
		servertest.Eventually(w.tb, patience, func() error {
			known, err := s.ask("SENTINEL", "CKQUORUM", MasterName).Text()
			if err != nil {
				return err
			}
			info, err := s.info("sentinel")
			if err != nil {
				return err
			}
			for _, part := range []string{fmt.Sprintf("OK %d usable", sentinels), "status=ok", fmt.Sprintf("slaves=%d", len(w.servers)-1)} {
				if !strings.Contains(known+info, part) {
					return fmt.Errorf("%s: %s %s", s.Addr(), known, info)
				}
			}
			return nil
		})
	}
}

// CheckRights is Server.CheckRights for all servers that run.
func (w *Watched) CheckRights() {
	w.tb.Helper()
	for _, s := range running(slices.Concat(w.servers, w.sentinels)) {
		s.CheckRights()
	}
}
