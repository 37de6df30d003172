package durability

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

	"chatsessions/cmd/systemtest/rig"
	"chatsessions/projections/redistest"
)

func TestAfterAStopAndAStartTheSessionsAreTheSame(t *testing.T) {
	rig.OnAllSetups(t, func(t *testing.T, s *rig.Service) {
		before := rig.Fill(t, s, 40)
		last := s.NewestPosition()
		s.Restart()
		before.Check(s)
		if next := s.NewestPosition(); next != last {
			t.Errorf("position %d became %d over a restart", last, next)
		}
		a := s.As("account-alice").Expect(200, "POST", "/chat-sessions", `{}`)
		if got := a.Header.Get("Chat-Sessions-Position"); got != strconv.FormatUint(last+1, 10) {
			t.Errorf("the first write after the restart is at %s, the last before it was at %d", got, last)
		}
	})
}

func TestAfterAStartOnAnEmptyRedisTheSessionsAreTheSame(t *testing.T) {
	rig.OnRealRedis(t, func(t *testing.T, s *rig.Service, redis *redistest.Server) {
		before := rig.Fill(t, s, 40)
		s.Stop()
		redis.Flush()
		s.Start()
		before.Check(s)
	})
}

func TestARedisThatIsEmptiedUnderTheServiceNeverLeadsToALie(t *testing.T) {
	rig.OnRealRedis(t, func(t *testing.T, s *rig.Service, redis *redistest.Server) {
		before := rig.Fill(t, s, 40)
		whole := []byte(before.List)
		var stopped atomic.Bool
		var lists, refused atomic.Int64
		var running sync.WaitGroup
		for range 4 {
			running.Go(func() {
				for !stopped.Load() {
					for path, want := range before.Sessions {
						a, err := s.As("service-crm").Do("GET", path, "")
						if err != nil || a.Status != 200 && a.Status != 503 || a.Status == 200 && !bytes.Equal(a.Body, want.Body) {
							t.Errorf("GET %s: %d %s %v, want %s", path, a.Status, a.Body, err, want.Body)
							return
						}
						if a, err = s.As("service-crm").Do("GET", "/chat-sessions?$limit=1000", ""); err != nil ||
							a.Status != 503 && (a.Status != 200 || !bytes.Equal(a.Body, whole)) {
							t.Errorf("the list is %d %s %v", a.Status, a.Body, err)
							return
						}
						lists.Add(1)
						if a.Status == 503 {
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
			rig.Eventually(t, func() error { return before.Compare(s) })
			t.Logf("round %d: healed; so far %d lists, %d of them refused", round, lists.Load(), refused.Load())
		}
	})
}

func TestASigkillLosesNoAnsweredWriteAndLeavesNoHalfOne(t *testing.T) {
	s := rig.Start(t, "--dev")
	for round := range 4 {
		t.Run(fmt.Sprintf("round %d", round), func(t *testing.T) {
			killInMidWrite(t, s, uint64(round), s.Kill, s.Start)
		})
	}
}

func TestANATSServerThatDiesInMidWriteLosesNoAnsweredWriteAndLeavesNoHalfOne(t *testing.T) {
	servers := rig.StartServers(t)
	s := rig.Start(t, servers.Flags()...)
	ways := []struct {
		name         string
		kill, revive func()
	}{
		{"killed", servers.NATS.Kill, servers.NATS.Restart},
		{"frozen", servers.NATS.Pause, servers.NATS.Resume},
		{"stopped", servers.NATS.Stop, servers.NATS.Restart},
		{"killed again", servers.NATS.Kill, servers.NATS.Restart},
	}
	for round, way := range ways {
		t.Run(way.name, func(t *testing.T) { killInMidWrite(t, s, uint64(round), way.kill, way.revive) })
	}
}

// killInMidWrite has many writers at work, ends something at a moment that the
// seed chooses, brings it back, and looks for every write. A write of several
// events is there as a whole or not at all; one that was answered is there.
func killInMidWrite(t *testing.T, s *rig.Service, seed uint64, kill, revive func()) {
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
		c := s.As(fmt.Sprintf("account-writer-%d", w))
		running.Go(func() {
			send := func(id, method, path, body string, events int) (rig.Answer, bool) {
				a, err := c.Do(method, path, body, "X-Request-Id: "+id)
				if err != nil {
					a = rig.Answer{}
				}
				o := outcome{status: a.Status, body: a.Body, events: events,
					absent: a.Status == 503 && bytes.Contains(a.Body, []byte(`"mayHaveBeenWritten":false`))}
				mu.Lock()
				outcomes[id] = o
				mu.Unlock()
				if a.Status == 200 && answers.Add(1) == enough {
					once.Do(func() { close(now) })
				}
				return a, a.Status == 200
			}
			for n := 0; !killed.Load(); n++ {
				id := fmt.Sprintf("kill-%d-%d-%d", seed, w, n)
				if n%2 == 1 {
					send(id+"-import", "POST", "/chat-sessions", `{"startedAt": 2, "acceptedAt": 3, "finishedAt": 4, "createdAt": 1}`, 4)
					continue
				}
				if a, ok := send(id+"-post", "POST", "/chat-sessions", `{"room": "r"}`, 1); ok {
					send(id+"-patch", "PATCH", a.Header.Get("Location"), `{"start": true, "accept": true, "finish": true}`, 3)
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
	rig.Eventually(t, func() error {
		a, err := s.As("service-crm").Do("GET", "/chat-sessions?$limit=1", "")
		if err == nil && a.Status != 200 {
			err = fmt.Errorf("%d %s", a.Status, a.Body)
		}
		return err
	})
	events := s.SettledLog()
	s.Verify()
	written := map[string][]rig.Event{}
	for _, e := range events {
		id := e.Header["ce-correlationid"][0]
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
			var response map[string]any
			if err := json.Unmarshal(o.body, &response); err != nil {
				t.Errorf("%s: %s: %v", id, o.body, err)
			}
			if last := found[len(found)-1].Session; !reflect.DeepEqual(last, response) {
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
	rig.CheckReadModel(t, s, events)
}
