package rebuild

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"chatsessions/cmd/systemtest/rig"
)

func TestRebuildsUnderLoadRefuseNothingAndShowNothingOld(t *testing.T) {
	check := func(t *testing.T, rebuilds int, flags []string, nodes ...*rig.Service) {
		load := startMixedLoad(t, withLists, nodes...)
		load.more(200)
		for range rebuilds {
			rebuilt := rebuild(t, rig.ExitDone, flags...)
			rebuilt.expect(t, `: the old one had 0 differences to the log; it answers now\.`)
			load.more(200)
		}
		load.end()
		t.Logf("%d rebuilds beside %s", rebuilds, load)
		if n := load.Refused.Load(); n != 0 {
			t.Errorf("%d requests were refused with a 503", n)
		}
		rig.CheckReadModel(t, nodes[0], nodes[0].Log())
	}
	t.Run("two nodes", func(t *testing.T) {
		servers := rig.StartServers(t)
		nodes := []*rig.Service{rig.Start(t, servers.Flags()...), rig.Start(t, servers.Flags()...)}
		check(t, 8, servers.Stores(), nodes...)
		checkOneGeneration(t, openRedis(nodes[0]))
	})
	t.Run("two nodes, three partitions", func(t *testing.T) {
		servers := rig.StartServers(t)
		flags := append(servers.Flags(), "--redis-partitions", "3")
		check(t, 4, append(servers.Stores(), "--redis-partitions", "3"), rig.Start(t, flags...), rig.Start(t, flags...))
	})
	t.Run("everything embedded", func(t *testing.T) {
		s := rig.Start(t, "--dev")
		check(t, 4, []string{"--data-dir", s.Flag("--data-dir")}, s)
		checkOneGeneration(t, openRedis(s))
	})
}

func TestRebuildsThatAreKilledUnderLoadRefuseNothingAndLoseNothing(t *testing.T) {
	servers := rig.StartServers(t)
	nodes := []*rig.Service{rig.Start(t, servers.Flags()...), rig.Start(t, servers.Flags()...)}
	rdb := openRedis(nodes[0])
	load := startMixedLoad(t, withLists, nodes...)
	load.more(200)

	// How long one takes, from when it begins to its end.
	whole := startRebuild(t, servers.Stores()...)
	rig.Eventually(t, func() error { return whole.begun(t, rdb) })
	began := time.Now()
	if run := whole.wait(); run.status != rig.ExitDone {
		t.Fatalf("exit status %d, %q", run.status, run.stderr)
	}
	takes := time.Since(began)

	const kills = 20
	reached := map[string]int{}
	for range kills {
		generation := answeringGeneration(t, rdb)
		p := startRebuild(t, servers.Stores()...)
		rig.Eventually(t, func() error { return p.begun(t, rdb) })
		<-time.After(rand.N(takes + takes/5)) //nolint:gosec // any moment will do
		p.signal(syscall.SIGKILL)
		if run := p.wait(); run.status == rig.ExitFailed {
			t.Errorf("exit status %d, %q", run.status, run.stderr)
		}
		reached[standing(t, rdb, generation)]++
		// The lock of one that was killed ends by itself, which the last one below waits for.
		if err := rdb.Del(t.Context(), rebuildLock).Err(); err != nil {
			t.Fatal(err)
		}
	}
	p := startRebuild(t, servers.Stores()...)
	rig.Eventually(t, func() error { return p.begun(t, rdb) })
	p.signal(syscall.SIGKILL)
	rebuild(t, rig.ExitDone, servers.Stores()...).expect(t, `: the old one had 0 differences to the log; it answers now\.`)
	load.end()
	t.Logf("%d rebuilds killed, of which %v, beside %s", kills+1, reached, load)
	if n := load.Refused.Load(); n != 0 {
		t.Errorf("%d requests were refused with a 503", n)
	}
	rig.CheckReadModel(t, nodes[0], nodes[0].Log())
	checkOneGeneration(t, rdb)
}

// standing says how far a rebuild has come that was killed.
func standing(t *testing.T, rdb *redis.Client, generation string) string {
	t.Helper()
	next, err := rdb.Get(t.Context(), "cs2:{0}:next").Result()
	switch {
	case errors.Is(err, redis.Nil) && answeringGeneration(t, rdb) != generation:
		return "had taken over"
	case errors.Is(err, redis.Nil):
		return "had not begun"
	case err != nil:
		t.Fatal(err)
	}
	return map[byte]string{'f': "compared or filled", 'p': "had filled", 'c': "waited for the projector"}[strings.Fields(next)[3][0]]
}

// A mixedLoad is that of writers which create and change sessions until they are told
// to end. Behind each write, the session is read on another node.
type mixedLoad struct {
	nodes []*rig.Service
	lists bool
	rig.Tally
	writes, reads, slow atomic.Int64 // slow are the answers that took longer than a second

	t        *testing.T
	mu       sync.Mutex
	slowest  time.Duration
	examples []string // of what was slow or refused, the first few
	over     atomic.Bool
	running  sync.WaitGroup
}

// How sessions are read behind a write.
const (
	onlyByID  = false
	withLists = true
)

func startMixedLoad(t *testing.T, lists bool, nodes ...*rig.Service) *mixedLoad {
	t.Helper()
	l := &mixedLoad{t: t, nodes: nodes, lists: lists}
	const writers = 6
	for i := range writers {
		l.running.Go(func() {
			for n := 0; !l.over.Load(); n++ {
				if err := l.session(i, n); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	t.Cleanup(l.end) // where the test has failed
	return l
}

// end returns when the writers have ended.
func (l *mixedLoad) end() {
	l.over.Store(true)
	l.running.Wait()
}

// more returns when so many more requests have been answered.
func (l *mixedLoad) more(n int64) {
	l.t.Helper()
	from := l.Answered.Load()
	rig.Eventually(l.t, func() error {
		if got := l.Answered.Load() - from; got < n {
			return fmt.Errorf("%d of %d requests were answered", got, n)
		}
		return nil
	})
}

// session leads one session through its life.
func (l *mixedLoad) session(writer, n int) error {
	account := fmt.Sprintf("account-writer-%d", writer)
	room := fmt.Sprintf("room %d %d", writer, n)
	path := ""
	for step, change := range []string{
		fmt.Sprintf(`{"room": %q, "participants": ["bob"]}`, room), `{"start": true}`, `{"participants": ["bob", "carol"]}`,
		`{"accept": true}`, `{"finish": "well"}`,
	} {
		node, other := l.nodes[(writer+n+step)%len(l.nodes)], l.nodes[(writer+n+step+1)%len(l.nodes)]
		method, target := "PATCH", path
		if step == 0 {
			method, target = "POST", "/chat-sessions"
		}
		written, err := l.timed(node.As(account), method, target, change)
		l.writes.Add(1)
		if err != nil || written.Status != 200 { // a POST that was refused may have been written
			return err
		}
		if step == 0 {
			path = written.Header.Get("Location")
		}
		got, err := l.timed(other.As(account), "GET", path, "")
		l.reads.Add(1)
		if err != nil {
			return err
		}
		if got.Status == 200 && (!bytes.Equal(got.Body, written.Body) || got.Header.Get("ETag") != written.Header.Get("ETag")) {
			return fmt.Errorf("stale: written was %s, read was %s", written.Body, got.Body)
		}
		if !l.lists {
			continue
		}
		state := []string{"created", "started", "started", "accepted", "finished"}[step]
		for reader, query := range map[string]string{
			account: "room=" + url.QueryEscape(room) + "&state=" + state, "service-desk": "$limit=100",
		} {
			list, err := l.timed(other.As(reader), "GET", "/chat-sessions?"+query, "")
			l.reads.Add(1)
			if err != nil {
				return err
			}
			if list.Status == 200 && !bytes.Contains(list.Body, written.Body) {
				return fmt.Errorf("stale: the list of %s lacks %s", query, written.Body)
			}
		}
	}
	return nil
}

// timed sends a request that is answered with a 200, or refused with a 503.
func (l *mixedLoad) timed(c *rig.Client, method, path, body string) (rig.Answer, error) {
	began := time.Now()
	a, err := l.Send(c, method, path, body)
	took := time.Since(began)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.slowest = max(l.slowest, took)
	if took > time.Second || a.Status == 503 {
		if len(l.examples) < 10 {
			l.examples = append(l.examples, fmt.Sprintf("\n%s: %s %s on %s: %d after %s", time.Now().UTC().Format("15:04:05.000"), method, path, c.URL, a.Status, took))
		}
		if took > time.Second {
			l.slow.Add(1)
		}
	}
	return a, err
}

// String tells what was done, and what it came to.
func (l *mixedLoad) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprintf("%d writes and %d reads behind them on the other node: %d refused with a 503, %d took longer than 1 s, the slowest %s%s",
		l.writes.Load(), l.reads.Load(), l.Refused.Load(), l.slow.Load(), l.slowest.Round(time.Millisecond), l.examples)
}
