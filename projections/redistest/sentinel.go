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
	group     // of all of them
	data      []*Server
	sentinels []*Server
}

// StartSentinel runs a Watched with the deployed users. It returns when the sentinels know all
// of its servers and the replica follows.
func StartSentinel(tb testing.TB, certificates *Certificates) *Watched {
	tb.Helper()
	config := Config{ACL: true, TLS: certificates, Args: []string{"--repl-diskless-sync-delay", "0"}}
	w := &Watched{group: group{tb: tb, config: config}}
	master := Start(tb, config)
	config.Args = append(config.Args, "--replicaof", "127.0.0.1 "+master.port)
	replica := Start(tb, config)
	w.data = []*Server{master, replica}
	servertest.Eventually(tb, patience, replica.follows)
	for range sentinels {
		s := newServer(tb, Config{ACL: true, TLS: certificates, Args: []string{"--sentinel"}})
		s.writeUsers("sentinel-users.acl")
		password := strconv.Quote(config.password())
		s.writeFile("redis.conf", append(s.options(), // the credentials come before what is said about the master
			"sentinel sentinel-user sentinels", "sentinel sentinel-pass "+password,
			fmt.Sprintf("sentinel monitor %s 127.0.0.1 %s %d", MasterName, master.port, quorum),
			fmt.Sprintf("sentinel down-after-milliseconds %s %d", MasterName, silence.Milliseconds()),
			fmt.Sprintf("sentinel failover-timeout %s %d", MasterName, (3*silence).Milliseconds()),
			"sentinel auth-user "+MasterName+" sentinel", "sentinel auth-pass "+MasterName+" "+password,
		)...)
		s.run()
		w.sentinels = append(w.sentinels, s)
	}
	w.servers = slices.Concat(w.data, w.sentinels)
	w.AwaitWhole()
	return w
}

// URL returns where to reach the sentinels, and through them the master.
func (w *Watched) URL() string {
	return w.config.url("+sentinel", w.sentinels, "/0", url.Values{
		"master": {MasterName}, "sentinel_user": {"chatsessions"}, "sentinel_password": {w.config.password()},
	})
}

// Sentinels returns the sentinels.
func (w *Watched) Sentinels() []*Server { return slices.Clone(w.sentinels) }

// MasterOf returns the master that all sentinels name: it has every key.
func (w *Watched) MasterOf(string) *Server {
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
	return w.at(named[0])
}

// AwaitServed returns when the sentinels agree on a master that runs.
func (w *Watched) AwaitServed() {
	w.tb.Helper()
	servertest.Eventually(w.tb, patience, func() error {
		master := w.MasterOf("")
		info, err := master.ask("INFO", "replication").Text()
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
	master := w.MasterOf("")
	for _, s := range w.data {
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
			info, err := s.ask("INFO", "sentinel").Text()
			if err != nil {
				return err
			}
			for _, part := range []string{fmt.Sprintf("OK %d usable", sentinels), "status=ok", fmt.Sprintf("slaves=%d", len(w.data)-1)} {
				if !strings.Contains(known+info, part) {
					return fmt.Errorf("%s: %s %s", s.Addr(), known, info)
				}
			}
			return nil
		})
	}
}
