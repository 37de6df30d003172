package consistency

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"chatsessions/cmd/systemtest/rig"
	"chatsessions/projections/redistest"
)

func TestWhenANodeDiesTheOtherGoesOnWithoutALie(t *testing.T) {
	urls := rig.StartServers(t).Flags()
	nodes := []*rig.Service{rig.Start(t, urls...), rig.Start(t, urls...)}
	for round := range 2 { // whichever projects now, the other has to take over once
		t.Run(fmt.Sprintf("node %d", round), func(t *testing.T) {
			survivor, victim := nodes[1-round], nodes[round]
			var tally rig.Tally
			var over atomic.Bool
			var running sync.WaitGroup
			for range 16 {
				running.Go(func() {
					for !over.Load() {
						if err := writeAndRead(&tally, survivor.As("account-alice")); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
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
			more(200)
			victim.Kill()
			more(200)
			over.Store(true)
			running.Wait()
			t.Logf("%d answered, %d refused with a 503", tally.Answered.Load(), tally.Refused.Load())
			rig.CheckReadModel(t, survivor, survivor.SettledLog())
			victim.Start()
		})
	}
}

// writeAndRead creates a session and reads it back.
func writeAndRead(y *rig.Tally, c *rig.Client) error {
	written, err := y.Send(c, "POST", "/chat-sessions", `{"room": "r"}`)
	if err != nil || written.Status != 200 {
		return err
	}
	read, err := y.Send(c, "GET", written.Header.Get("Location"), "")
	if err == nil && read.Status == 200 && !bytes.Equal(read.Body, written.Body) {
		err = fmt.Errorf("written was %s, read was %s", written.Body, read.Body)
	}
	return err
}

func TestARedisThatHangsHoldsUpNoSession(t *testing.T) {
	rig.OnRealRedis(t, func(t *testing.T, s *rig.Service, redis *redistest.Server) {
		before := rig.Fill(t, s, 6)
		crm := s.As("service-crm")
		hang(t, redis)
		rig.AtOnce(t, len(before.Sessions)+1, func(i int) error {
			if i == len(before.Sessions) {
				a, err := crm.Do("GET", "/chat-sessions", "")
				if err != nil || a.Status != 503 || a.Header.Get("Retry-After") == "" {
					return a.Instead(err)
				}
				return nil
			}
			path := before.Paths()[i]
			a, err := crm.Do("GET", path, "")
			if err != nil || a.Status != 200 || !bytes.Equal(a.Body, before.Sessions[path].Body) || a.Header.Get("Chat-Sessions-Source") != "log" {
				return a.Instead(err)
			}
			return nil
		})
		path := crm.Create(`{"room": "meanwhile"}`)
		crm.Expect(200, "PATCH", path, `{"start": true}`)
		rig.Eventually(t, func() error {
			a, err := crm.Do("GET", path, "")
			if err != nil || a.Status != 200 || a.Header.Get("Chat-Sessions-Source") != "" || a.Header.Get("ETag") != `"2"` {
				return a.Instead(err)
			}
			return nil
		})
		rig.CheckReadModel(t, s, s.SettledLog())
	})
}

// hang has Redis take requests and answer none, for some seconds.
func hang(t *testing.T, server *redistest.Server) {
	t.Helper()
	client := redis.NewClient(&redis.Options{
		Addr: server.Addr(), DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	defer client.Close()
	if err := client.ClientPause(t.Context(), 8*time.Second).Err(); err != nil {
		t.Fatal(err)
	}
}
