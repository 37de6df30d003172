package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"chatsessions/projections/redistest"
)

func TestAfterAStopAndAStartTheSessionsAreTheSame(t *testing.T) {
	onAllSetups(t, func(t *testing.T, s *service) {
		before := fill(t, s, 40)
		last := s.newestPosition()
		s.restart()
		before.check(s)
		if next := s.newestPosition(); next != last {
			t.Errorf("position %d became %d over a restart", last, next)
		}
		a := s.as("account-alice").expect(200, "POST", "/chat-sessions", `{}`)
		if got := a.header.Get("Chat-Sessions-Position"); got != strconv.FormatUint(last+1, 10) {
			t.Errorf("the first write after the restart is at %s, the last before it was at %d", got, last)
		}
	})
}

func TestAfterAStartOnAnEmptyRedisTheSessionsAreTheSame(t *testing.T) {
	onRealRedis(t, func(t *testing.T, s *service, redis *redistest.Server) {
		before := fill(t, s, 40)
		s.stop()
		redis.Flush()
		s.start()
		before.check(s)
	})
}

func TestARedisThatIsEmptiedUnderTheServiceNeverLeadsToALie(t *testing.T) {
	onRealRedis(t, func(t *testing.T, s *service, redis *redistest.Server) {
		before := fill(t, s, 40)
		whole := []byte(before.list)
		var stopped atomic.Bool
		var lists, refused atomic.Int64
		var running sync.WaitGroup
		for range 4 {
			running.Go(func() {
				for !stopped.Load() {
					for path, want := range before.sessions {
						a, err := s.as("service-crm").do("GET", path, "")
						if err != nil || a.status != 200 && a.status != 503 || a.status == 200 && !bytes.Equal(a.body, want.body) {
							t.Errorf("GET %s: %d %s %v, want %s", path, a.status, a.body, err, want.body)
							return
						}
						if a, err = s.as("service-crm").do("GET", "/chat-sessions?$limit=1000", ""); err != nil ||
							a.status != 503 && (a.status != 200 || !bytes.Equal(a.body, whole)) {
							t.Errorf("the list is %d %s %v", a.status, a.body, err)
							return
						}
						lists.Add(1)
						if a.status == 503 {
							refused.Add(1)
						}
					}
				}
			})
		}
		defer running.Wait()
		defer stopped.Store(true)
		for round := range 3 {
			redis.Flush()
			before.eventuallyHealed(s)
			t.Logf("round %d: healed; so far %d lists, %d of them refused", round, lists.Load(), refused.Load())
		}
	})
}

func TestASigkillLosesNoAnsweredWriteAndLeavesNoHalfOne(t *testing.T) {
	s := startService(t, "--dev")
	for round := range 4 {
		t.Run(fmt.Sprintf("round %d", round), func(t *testing.T) {
			killInMidWrite(t, s, uint64(round), s.kill, s.start)
		})
	}
}

func TestANATSServerThatDiesInMidWriteLosesNoAnsweredWriteAndLeavesNoHalfOne(t *testing.T) {
	servers := startServers(t)
	s := startService(t, servers.flags()...)
	ways := []struct {
		name         string
		kill, revive func()
	}{
		{"killed", servers.nats.Kill, servers.nats.Restart},
		{"frozen", servers.nats.Pause, servers.nats.Resume},
		{"stopped", servers.nats.Stop, servers.nats.Restart},
		{"killed again", servers.nats.Kill, servers.nats.Restart},
	}
	for round, way := range ways {
		t.Run(way.name, func(t *testing.T) { killInMidWrite(t, s, uint64(round), way.kill, way.revive) })
	}
}

// killInMidWrite has many writers at work, ends something at a moment that the
// seed chooses, brings it back, and looks for every write. A write of several
// events is there as a whole or not at all; one that was answered is there.
func killInMidWrite(t *testing.T, s *service, seed uint64, kill, revive func()) {
	random := rand.New(rand.NewPCG(seed, 2)) //nolint:gosec // a test that can be repeated
	const writers = 24
	enough := int64(20 + random.IntN(200)) // answers until the end comes
	var answers atomic.Int64
	var killed atomic.Bool
	now := make(chan struct{})
	var once sync.Once

	type outcome struct {
		status int // 0 for a connection that broke
		body   []byte
		absent bool // the answer said that nothing was written
		events int
	}
	var mu sync.Mutex
	outcomes := map[string]outcome{} // by request id
	var running sync.WaitGroup
	for w := range writers {
		c := s.as(fmt.Sprintf("account-writer-%d", w))
		running.Go(func() {
			send := func(id, method, path, body string, events int) (answer, bool) {
				a, err := c.do(method, path, body, "X-Request-Id: "+id)
				if err != nil {
					a = answer{}
				}
				o := outcome{status: a.status, body: a.body, events: events,
					absent: a.status == 503 && bytes.Contains(a.body, []byte(`"mayHaveBeenWritten":false`))}
				mu.Lock()
				outcomes[id] = o
				mu.Unlock()
				if a.status == 200 && answers.Add(1) == enough {
					once.Do(func() { close(now) })
				}
				return a, a.status == 200
			}
			for n := 0; !killed.Load(); n++ {
				id := fmt.Sprintf("kill-%d-%d-%d", seed, w, n)
				if n%2 == 1 {
					send(id+"-import", "POST", "/chat-sessions", `{"startedAt": 2, "acceptedAt": 3, "finishedAt": 4, "createdAt": 1}`, 4)
					continue
				}
				if a, ok := send(id+"-post", "POST", "/chat-sessions", `{"room": "r"}`, 1); ok {
					send(id+"-patch", "PATCH", a.header.Get("Location"), `{"start": true, "accept": true, "finish": true}`, 3)
				}
			}
		})
	}
	<-now
	kill()
	killed.Store(true)
	running.Wait()
	revive()

	// What became of each request, as the log tells.
	eventually(t, func() error {
		a, err := s.as("service-crm").do("GET", "/chat-sessions?$limit=1", "")
		if err == nil && a.status != 200 {
			err = fmt.Errorf("%d %s", a.status, a.body)
		}
		return err
	})
	events := s.settledLog()
	checkChains(t, events)
	written := map[string][]event{}
	for _, e := range events {
		id := e.header["ce-correlationid"][0]
		written[id] = append(written[id], e)
	}
	var answered, lost, late int
	for id, o := range outcomes {
		found := written[id]
		if n := len(found); n != 0 && n != o.events {
			t.Errorf("%s is there with %d of %d events", id, n, o.events)
			continue
		}
		switch {
		case o.status == 200:
			answered++
			if len(found) == 0 {
				t.Errorf("%s was answered 200 and is not there: %s", id, o.body)
				continue
			}
			var told map[string]any
			if err := json.Unmarshal(o.body, &told); err != nil {
				t.Errorf("%s: %s: %v", id, o.body, err)
			}
			if last := found[len(found)-1].session; !reflect.DeepEqual(last, told) {
				t.Errorf("%s was answered %s, and the log has %v", id, o.body, last)
			}
		case o.absent && len(found) > 0:
			t.Errorf("%s was said not to be written, and is there: %s", id, o.body)
		case o.status != 0 && o.status != 503:
			t.Errorf("%s: %d %s", id, o.status, o.body)
		case len(found) > 0:
			late++
		default:
			lost++
		}
	}
	t.Logf("%d answered; without an answer %d that are there and %d that are not", answered, late, lost)
	checkReadModel(t, s, events)
}
