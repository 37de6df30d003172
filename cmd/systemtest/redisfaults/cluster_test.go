package redisfaults

import (
	"bytes"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"chatsessions/cmd/systemtest/rig"
	"chatsessions/eventstore/natstest"
	"chatsessions/projections/redistest"
)

// A failingRedis loses a master and has a successor for it by itself.
type failingRedis interface {
	URL() string
	MasterOf(key string) *redistest.Server
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
	redis := redistest.StartSentinel(t, redistest.NewCertificates(t))
	loseMasters(t, redis)
}

func loseMasters(t *testing.T, redis failingRedis, args ...string) {
	nodes := startNodes(t, redis.URL(), args...)
	answered := &answeredWrites{versions: map[string]float64{}}
	for round := range 2 {
		t.Run(fmt.Sprintf("round %d", round), func(t *testing.T) {
			var victim *redistest.Server
			underLoad(t, nodes, answered, func(more func(int64)) {
				victim = redis.MasterOf(checkpointOf(round))
				victim.Kill()
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
			end := redis.BeginMove(checkpointOf(0))
			more(100)
			end()
			redis.AwaitServed()
		})
	})
	redis.CheckRights()
}

// checkpointOf is a key of a partition of the read model.
func checkpointOf(partition int) string { return fmt.Sprintf("cs1:{%d}:checkpoint", partition) }

func startNodes(t *testing.T, redisURL string, args ...string) []*rig.Service {
	args = append([]string{"--dev", "--nats-url", natstest.Start(t, natstest.Config{}).URL(), "--redis-url", redisURL}, args...)
	return []*rig.Service{rig.Start(t, args...), rig.Start(t, args...)}
}

// underLoad has clients write, read and list, on both nodes, while something happens to
// Redis. Then all has to heal, and nothing answered may be lost.
func underLoad(t *testing.T, nodes []*rig.Service, answered *answeredWrites, happen func(more func(answers int64))) {
	t.Helper()
	var tally rig.Tally
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
		from := tally.Answered.Load()
		rig.Eventually(t, func() error {
			if got := tally.Answered.Load() - from; got < n {
				return fmt.Errorf("%d of %d requests were answered", got, n)
			}
			return nil
		})
	}
	more(300)
	happen(more)
	for _, node := range nodes {
		rig.Eventually(t, func() error { return readsRedis(node) })
	}
	more(300)
	over.Store(true)
	running.Wait()
	t.Logf("%d answered, %d refused with a 503", tally.Answered.Load(), tally.Refused.Load())
	events := nodes[0].SettledLog()
	answered.check(t, events)
	for _, node := range nodes {
		rig.CheckReadModel(t, node, events)
	}
}

// readsRedis returns an error while the service does not answer from Redis.
func readsRedis(s *rig.Service) error {
	desk := s.As("service-desk")
	list, err := desk.Do("GET", "/chat-sessions?$limit=1", "")
	if err != nil || list.Status != 200 {
		return list.Instead(err)
	}
	for _, session := range list.List(s.T) {
		a, err := desk.Do("GET", fmt.Sprint("/chat-sessions/", session["id"]), "")
		if err != nil || a.Status != 200 || a.Header.Get("Chat-Sessions-Source") != "" {
			return a.Instead(err)
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
func (w *answeredWrites) writeReadAndList(y *rig.Tally, first, second *rig.Service, account, room string) error {
	written, err := y.Send(first.As(account), "POST", "/chat-sessions", fmt.Sprintf(`{"room": %q}`, room))
	if err != nil || written.Status != 200 {
		return err
	}
	path := written.Header.Get("Location")
	w.note(path, 1)
	if err := readAndList(y, second.As(account), path, written, room); err != nil {
		return err
	}
	written, err = y.Send(second.As(account), "PATCH", path, `{"start": true}`)
	if err != nil || written.Status != 200 {
		return err
	}
	w.note(path, 2)
	return readAndList(y, first.As(account), path, written, room)
}

func readAndList(y *rig.Tally, c *rig.Client, path string, written rig.Answer, room string) error {
	read, err := y.Send(c, "GET", path, "")
	if err != nil {
		return err
	}
	if read.Status == 200 && (!bytes.Equal(read.Body, written.Body) || read.Header.Get("ETag") != written.Header.Get("ETag")) {
		return fmt.Errorf("written was %s, read was %s", written.Body, read.Body)
	}
	for _, query := range []string{"$limit=20", "room=" + url.QueryEscape(room)} {
		list, err := y.Send(c, "GET", "/chat-sessions?"+query, "")
		if err != nil {
			return err
		}
		if list.Status == 200 && !bytes.Contains(list.Body, written.Body) {
			return fmt.Errorf("the list of %s lacks %s: %s", query, written.Body, list.Body)
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
func (w *answeredWrites) check(t *testing.T, events []rig.Event) {
	t.Helper()
	newest := map[string]float64{}
	for _, e := range events {
		newest["/chat-sessions/"+fmt.Sprint(e.Session["id"])] = e.Session["version"].(float64)
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
	status, out, errs := rig.Command(t, nil, "serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir", t.TempDir(), "--redis-url", node.URL())
	if want := "redis+cluster://default:xxxxx@" + node.Addr(); status == 0 || !strings.Contains(errs, want) || strings.Contains(out+errs, "topsecret") {
		t.Errorf("exit status %d, %s%s; want %s", status, out, errs, want)
	}
}
