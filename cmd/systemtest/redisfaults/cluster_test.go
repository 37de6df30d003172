package main

import (
	"bytes"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"chatsessions/eventstore/natstest"
	"chatsessions/projections/redistest"
)

// A failingRedis loses a master and has a successor for it by itself.
type failingRedis interface {
	URL() string
	KillMasterOf(key string) *redistest.Server
	AwaitServed() // by servers that run
	AwaitWhole()
	CheckRights()
}

// In each round one master dies, under load, and comes back empty as a replica.
func TestWhenAMasterOfRedisClusterDiesNothingIsLostAndNothingStale(t *testing.T) {
	redis := redistest.StartCluster(t, redistest.Config{ACL: true})
	loseMasters(t, redis, "--redis-partitions", "4")
}

func TestWhenAMasterUnderSentinelsDiesNothingIsLostAndNothingStale(t *testing.T) {
	redis := redistest.StartSentinel(t, redistest.Config{ACL: true, TLS: redistest.NewCertificates(t)})
	loseMasters(t, redis)
}

func loseMasters(t *testing.T, redis failingRedis, args ...string) {
	nodes := startNodes(t, redis.URL(), args...)
	answered := &answeredWrites{versions: map[string]float64{}}
	for round := range 2 {
		t.Run(fmt.Sprintf("round %d", round), func(t *testing.T) {
			var victim *redistest.Server
			underLoad(t, nodes, answered, func(more func(int64)) {
				victim = redis.KillMasterOf(checkpointOf(round))
				more(100) // while nobody has taken over
				redis.AwaitServed()
			})
			victim.Restart()
			redis.AwaitWhole()
		})
	}
	redis.CheckRights()
}

func TestWhenASlotOfRedisClusterChangesHandsNothingIsStale(t *testing.T) {
	redis := redistest.StartCluster(t, redistest.Config{ACL: true})
	nodes := startNodes(t, redis.URL(), "--redis-partitions", "4")
	answered := &answeredWrites{versions: map[string]float64{}}
	t.Run("an operator has a replica take over", func(t *testing.T) {
		underLoad(t, nodes, answered, func(func(int64)) { redis.FailOver(checkpointOf(0)) })
	})
	t.Run("an operator moves it to another master", func(t *testing.T) {
		underLoad(t, nodes, answered, func(more func(int64)) {
			redis.BeginMove(checkpointOf(0))
			more(100)
			redis.EndMove(checkpointOf(0))
			redis.AwaitServed()
		})
	})
	redis.CheckRights()
}

// checkpointOf is a key of a partition of the read model.
func checkpointOf(partition int) string { return fmt.Sprintf("cs1:{%d}:checkpoint", partition) }

func startNodes(t *testing.T, redisURL string, args ...string) []*service {
	args = append([]string{"--dev", "--nats-url", natstest.Start(t, natstest.Config{}).URL(), "--redis-url", redisURL}, args...)
	return []*service{startService(t, args...), startService(t, args...)}
}

// underLoad has clients write, read and list, on both nodes, while something happens to
// Redis. Then all has to heal, and nothing answered may be lost.
func underLoad(t *testing.T, nodes []*service, answered *answeredWrites, happen func(more func(answers int64))) {
	t.Helper()
	var tally tally
	var over atomic.Bool
	var running sync.WaitGroup
	for i := range 16 {
		running.Go(func() {
			for n := 0; !over.Load(); n++ {
				if err := answered.writeReadAndList(&tally, nodes[n%2], nodes[(n+1)%2], fmt.Sprintf("account-team-%d", i), fmt.Sprint(t.Name(), i, n)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	defer running.Wait()
	defer over.Store(true)
	more := func(n int64) {
		t.Helper()
		from := tally.answered.Load()
		eventually(t, func() error {
			if got := tally.answered.Load() - from; got < n {
				return fmt.Errorf("%d of %d requests were answered", got, n)
			}
			return nil
		})
	}
	more(300)
	happen(more)
	for _, node := range nodes {
		eventually(t, node.readsRedis)
	}
	more(300)
	over.Store(true)
	running.Wait()
	t.Logf("%d answered, %d refused with a 503", tally.answered.Load(), tally.refused.Load())
	events := nodes[0].settledLog()
	answered.check(t, events)
	for _, node := range nodes {
		checkReadModel(t, node, events)
	}
}

// readsRedis returns an error while the service does not answer from Redis.
func (s *service) readsRedis() error {
	desk := s.as("service-desk")
	list, err := desk.do("GET", "/chat-sessions?$limit=1", "")
	if err != nil || list.status != 200 {
		return list.instead(err)
	}
	for _, session := range list.list(s.t) {
		a, err := desk.do("GET", fmt.Sprint("/chat-sessions/", session["id"]), "")
		if err != nil || a.status != 200 || a.header.Get("Chat-Sessions-Source") != "" {
			return a.instead(err)
		}
	}
	return nil
}

// answeredWrites are the versions that writes were answered with, by path.
type answeredWrites struct {
	mu       sync.Mutex
	versions map[string]float64
}

// writeReadAndList creates a session on one node, and reads and lists it at once on
// another one; then it changes it there, and reads and lists it on the first. A 503 is
// no answer; any other shows the write, to the byte.
func (w *answeredWrites) writeReadAndList(y *tally, first, second *service, account, room string) error {
	written, err := y.send(first.as(account), "POST", "/chat-sessions", fmt.Sprintf(`{"room": %q}`, room))
	if err != nil || written.status != 200 {
		return err
	}
	path := written.header.Get("Location")
	w.note(path, 1)
	if err := readAndList(y, second.as(account), path, written, room); err != nil {
		return err
	}
	written, err = y.send(second.as(account), "PATCH", path, `{"start": true}`)
	if err != nil || written.status != 200 {
		return err
	}
	w.note(path, 2)
	return readAndList(y, first.as(account), path, written, room)
}

func readAndList(y *tally, c *client, path string, written answer, room string) error {
	read, err := y.send(c, "GET", path, "")
	if err != nil {
		return err
	}
	if read.status == 200 && (!bytes.Equal(read.body, written.body) || read.header.Get("ETag") != written.header.Get("ETag")) {
		return fmt.Errorf("written was %s, read was %s", written.body, read.body)
	}
	for _, query := range []string{"$limit=20", "room=" + url.QueryEscape(room)} {
		list, err := y.send(c, "GET", "/chat-sessions?"+query, "")
		if err != nil {
			return err
		}
		if list.status == 200 && !bytes.Contains(list.body, written.body) {
			return fmt.Errorf("the list of %s lacks %s: %s", query, written.body, list.body)
		}
	}
	return nil
}

func (w *answeredWrites) note(path string, version float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.versions[path] = version
}

// check fails the test when the log lacks what was answered.
func (w *answeredWrites) check(t *testing.T, events []event) {
	t.Helper()
	newest := map[string]float64{}
	for _, e := range events {
		newest["/chat-sessions/"+fmt.Sprint(e.session["id"])] = e.session["version"].(float64)
	}
	for path, version := range w.versions {
		if newest[path] < version {
			t.Errorf("%s was answered with version %v, the log has %v", path, version, newest[path])
		}
	}
}

// The text of what is wrong with --redis-url reaches the operator, and no password does.
func TestARedisOfAnotherKindIsToldAtTheStart(t *testing.T) {
	redis := redistest.StartCluster(t, redistest.Config{Password: "topsecret"})
	node := redis.Servers()[0]
	status, out, errs := command(t, nil, "serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir", t.TempDir(), "--redis-url", node.URL())
	if want := "redis+cluster://default:xxxxx@" + node.Addr(); status == 0 || !strings.Contains(errs, want) || strings.Contains(out+errs, "topsecret") {
		t.Errorf("exit status %d, %s%s; want %s", status, out, errs, want)
	}
}
