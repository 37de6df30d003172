package operation

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"chatsessions/cmd/systemtest/rig"
	"chatsessions/deploy/servertest"
	"chatsessions/eventstore/natstest"
	"chatsessions/projections/redistest"
)

// lazyConf is a nats-server as it comes, which syncs every two minutes.
const lazyConf = `
server_name: lazy
jetstream { store_dir: $NATS_STORE_DIR }
authorization { users: [ { user: $NATS_USER, password: $NATS_PASSWORD } ] }
`

// monitored returns a server's configuration with a monitoring endpoint, and its URL.
func monitored(t *testing.T) (natstest.Config, string) {
	t.Helper()
	port := servertest.Port(t)
	return natstest.Config{Args: []string{"--http_port", port}}, "http://127.0.0.1:" + port
}

func startLazy(t *testing.T) (server *natstest.Server, monitor string) {
	t.Helper()
	config, monitor := monitored(t)
	config.File = filepath.Join(t.TempDir(), "lazy.conf")
	if err := os.WriteFile(config.File, []byte(lazyConf), 0o600); err != nil {
		t.Fatal(err)
	}
	return natstest.Start(t, config), monitor
}

const (
	unchecked  = "nothing checked whether the NATS servers"
	oneCopy    = "one copy of the log"
	notAllWere = "leaves servers of the log out"
)

func TestAnExternalLogThatSyncsAlwaysPassesTheCheck(t *testing.T) {
	config, monitor := monitored(t)
	nats, redis := natstest.Start(t, config), redistest.Start(t, redistest.Config{})
	s := rig.Start(t, "--dev", "--nats-url", nats.URL(), "--redis-url", redis.URL(), "--nats-monitor-urls", monitor)
	s.As("account-alice").Create(`{}`)
	log := s.Errors.String()
	if strings.Contains(log, unchecked) || strings.Contains(log, notAllWere) {
		t.Error("a warning although all is well, see the log")
	}
	if !strings.Contains(log, oneCopy) || !strings.Contains(log, nats.Name()) {
		t.Error("no warning that one server alone has the log")
	}
	if t.Failed() {
		t.Log(log)
	}
}

func TestAnExternalLogThatIsNotCheckedIsWarnedOf(t *testing.T) {
	lazy, _ := startLazy(t)
	redis := redistest.Start(t, redistest.Config{})
	s := rig.Start(t, "--dev", "--nats-url", lazy.URL(), "--redis-url", redis.URL())
	if log := s.Errors.String(); !strings.Contains(log, unchecked) {
		t.Errorf("no warning:\n%s", log)
	}
	embedded := rig.Start(t, "--dev")
	if log := embedded.Errors.String(); strings.Contains(log, unchecked) || strings.Contains(log, oneCopy) {
		t.Errorf("the embedded log is warned of:\n%s", log)
	}
}

func TestAnExternalLogThatDoesNotSyncIsRefused(t *testing.T) {
	lazy, lazyMonitor := startLazy(t)
	config, goodMonitor := monitored(t)
	natstest.Start(t, config)
	gone := "http://127.0.0.1:" + servertest.Port(t)

	for _, test := range []struct {
		monitors string
		status   int
		says     []string
	}{
		{lazyMonitor, 1, []string{"nats-server lazy", lazyMonitor, "sync_interval is 2m0s", "sync_interval: always"}},
		{goodMonitor + "," + lazyMonitor, 1, []string{"nats-server lazy", lazyMonitor}},
		{gone, 1, []string{gone, "refused"}},
		{lazyMonitor + "," + gone, 1, []string{"nats-server lazy", gone}},
		{"http://127.0.0.1:" + lazy.Addr()[strings.LastIndexByte(lazy.Addr(), ':')+1:], 1, []string{"asking http://"}}, // the port for clients
		{"nats://x:4222", 2, []string{"--nats-monitor-urls", "http://HOST:PORT"}},
	} {
		status, _, stderr := rig.Command(t, nil, "serve", "--dev", "--listen", "127.0.0.1:0", "--nats-url", lazy.URL(), "--nats-monitor-urls", test.monitors)
		if status != test.status || slices.ContainsFunc(test.says, func(part string) bool { return !strings.Contains(stderr, part) }) {
			t.Errorf("%s: status %d, %s\nwant %d and %q", test.monitors, status, stderr, test.status, test.says)
		}
	}
	if status, _, stderr := rig.Command(t, nil, "serve", "--dev", "--nats-monitor-urls", goodMonitor); status != 2 || !strings.Contains(stderr, "--nats-url") {
		t.Errorf("an embedded log with --nats-monitor-urls: %d %s", status, stderr)
	}
}

func TestEveryServerOfAClusterIsAsked(t *testing.T) {
	configs, monitors := make([]natstest.Config, 3), make([]string, 3)
	for i := range configs {
		configs[i], monitors[i] = monitored(t)
	}
	cluster := natstest.StartCluster(t, configs...)
	redis := redistest.Start(t, redistest.Config{})
	flags := []string{"--dev", "--nats-url", cluster.URL(), "--redis-url", redis.URL(), "--nats-monitor-urls"}
	s := rig.Start(t, append(flags, strings.Join(monitors, ","))...)
	if log := s.Errors.String(); strings.Contains(log, unchecked) || strings.Contains(log, oneCopy) || strings.Contains(log, notAllWere) {
		t.Errorf("a warning although all is well:\n%s", log)
	}
	s = rig.Start(t, append(flags, strings.Join(monitors[:2], ","))...)
	if log := s.Errors.String(); !strings.Contains(log, notAllWere) || !strings.Contains(log, cluster.Servers[2].Name()) {
		t.Error(fmt.Errorf("%s was not asked, and no warning says so:\n%s", cluster.Servers[2].Name(), log))
	}
}
