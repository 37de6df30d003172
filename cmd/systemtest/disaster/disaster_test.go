package disaster

import (
	"chatsessions/deploy/servertest"

	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chatsessions/cmd/systemtest/rig"
	"chatsessions/eventstore/natstest"
	"chatsessions/projections/redistest"
)

// nodes are three NATS servers, a Redis, and services on them.
type nodes struct {
	nats   *natstest.Cluster
	stores []string // directories
	checks []string // URLs of the monitoring endpoints
}

func startNodes(t *testing.T) *nodes {
	t.Helper()
	n := &nodes{}
	var configs []natstest.Config
	for range 3 {
		port, dir := servertest.Port(t), t.TempDir()
		n.stores, n.checks = append(n.stores, dir), append(n.checks, "http://127.0.0.1:"+port)
		configs = append(configs, natstest.Config{StoreDir: dir, Args: []string{"--http_port", port}})
	}
	n.nats = natstest.StartCluster(t, configs...)
	return n
}

// serve starts a service, which the test stops.
func serve(t *testing.T, args ...string) *rig.Service {
	t.Helper()
	return rig.Start(t, append([]string{"--dev", "--ops-listen", "127.0.0.1:0"}, args...)...)
}

func opsURL(s *rig.Service) string {
	_, url, _ := strings.Cut(s.Errors.String(), "url=")
	url, _, _ = strings.Cut(url, "\n")
	return strings.TrimSpace(url)
}

// lives writes sessions.
func lives(s *rig.Service, n int) {
	alice, bob := s.As("account-alice"), s.As("account-bob")
	for i := range n {
		path := send(alice, "POST", "/chat-sessions", fmt.Sprintf(`{"participants": ["bob"], "room": "room %d"}`, i)).Header.Get("Location")
		send(alice, "PATCH", path, `{"start": true, "room": "consultation"}`)
		send(bob, "PATCH", path, `{"accept": true}`)
	}
}

// send sends a write until it is answered: a cluster that has lost a server refuses some.
func send(c *rig.Client, method, path, body string) (a rig.Answer) {
	c.T.Helper()
	key := "Idempotency-Key: " + rand.Text()
	rig.Eventually(c.T, func() (err error) {
		if a, err = c.Do(method, path, body, key); err != nil || a.Status != 200 {
			err = a.Instead(err)
		}
		return err
	})
	return a
}

// caughtUp waits until the service shows all of its log.
func caughtUp(s *rig.Service) {
	s.T.Helper()
	rig.Eventually(s.T, func() error {
		if status, body := s.Ask("/readyz"); status != 200 {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
}

// TestEveryDisasterHasAWayBack makes each of the losses, and runs the page's commands.
func TestEveryDisasterHasAWayBack(t *testing.T) {
	p := openPage(t)
	if err := os.Mkdir(filepath.Join(p.srv, "backup"), 0o700); err != nil {
		t.Fatal(err)
	}
	redis := redistest.Start(t, redistest.Config{})
	n := startNodes(t)
	p.env = []string{"NATS=" + n.nats.URL(), "REDIS=" + redis.URL()}
	stores := []string{"--nats-url", n.nats.URL(), "--redis-url", redis.URL()}
	one, other := serve(t, stores...), serve(t, stores...)
	lives(one, 3)
	p.run("Before")
	lives(one, 2)

	one.Kill()
	n.nats.Servers[0].Kill()
	lives(other, 1)
	caughtUp(other)
	p.replace["http://node-2:9090"] = opsURL(other)
	p.run("A lost node")
	n.nats.Servers[0].Restart()
	one.Start()
	p.run("A lost node")

	n.nats.Servers[2].Kill()
	empty(t, n.stores[2])
	n.nats.Servers[2].Restart()
	p.replace["http://nats-3:8222"] = n.checks[2]
	rig.Eventually(t, func() error { // as the page says, wait for it
		if out := p.execute("curl -s http://nats-3:8222/healthz"); !strings.Contains(out, `"ok"`) {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	p.run("A lost disk")
	want := other.Content()

	one.Stop()
	other.Stop()
	for i, s := range n.nats.Servers {
		s.Kill()
		if i != 1 {
			empty(t, n.stores[i])
		}
	}
	if err := os.CopyFS(filepath.Join(p.srv, "nats"), os.DirFS(n.stores[1])); err != nil {
		t.Fatal(err)
	}
	p.run("A lost majority")
	n = startNodes(t)
	p.env = []string{"NATS=" + n.nats.URL(), "REDIS=" + redis.URL()}
	stores = []string{"--nats-url", n.nats.URL(), "--redis-url", redis.URL()}
	p.run("A lost majority")
	again := serve(t, stores...)
	caughtUp(again)
	want.Check(again)
	again.Stop()

	// The backup of the beginning is older than the read model.
	for i, s := range n.nats.Servers {
		s.Kill()
		empty(t, n.stores[i])
	}
	n = startNodes(t)
	p.env = []string{"NATS=" + n.nats.URL(), "REDIS=" + redis.URL()}
	stores = []string{"--nats-url", n.nats.URL(), "--redis-url", redis.URL()}
	p.run("Everything is lost")
	p.run("Everything is lost")
	embedded := serve(t, "--data-dir", filepath.Join(p.srv, "new"))
	if got := len(embedded.Content().Sessions); got != 3 {
		t.Errorf("%d sessions were restored, want 3", got)
	}
	embedded.Stop()

	damage(t, p.srv)
	p.run("A damaged file")
	p.run("A damaged file")
	salvaged := serve(t, "--data-dir", filepath.Join(p.srv, "salvaged"))
	lives(salvaged, 1)

	older := serve(t, stores...)
	caughtUp(older)
	p.run("A wrong restore")
	if got := len(older.Content().Sessions); got != 3 {
		t.Errorf("%d sessions are shown, want 3", got)
	}
	p.end()
}

// empty removes what a server has stored.
func empty(t *testing.T, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
}

// damage writes the log of an embedded service, and flips a bit of its fifth event.
func damage(t *testing.T, srv string) {
	t.Helper()
	s := serve(t, "--data-dir", filepath.Join(srv, "data"))
	lives(s, 3)
	rig.Eventually(t, func() error { // the durable position is noted once a second
		note, err := os.ReadFile(filepath.Join(srv, "data", "log", "durable"))
		if err == nil && !bytes.Contains(note, []byte("durable 1 to 12 ")) {
			err = fmt.Errorf("%q", note)
		}
		return err
	})
	s.Kill()
	path := filepath.Join(srv, "data", "log", "jetstream", "$G", "streams", "CHAT_SESSIONS", "msgs", "1.blk")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := 0
	for range 5 {
		at += 1 + bytes.Index(content[at+1:], []byte("chat-sessions."))
	}
	content[at+200] ^= 1
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	refused := &rig.Service{T: t, Args: []string{"serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir", filepath.Join(srv, "data")}}
	if err := refused.Begin(); err != nil {
		t.Fatal(err)
	}
	if refused.AwaitReady() == nil || !strings.Contains(refused.Errors.String(), path) {
		t.Errorf("the service does not name %s: %s", path, refused.Errors)
	}
}
