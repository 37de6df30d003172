package main

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"chatsessions/projections/redistest"
)

func TestWhenANodeDiesTheOtherGoesOnWithoutALie(t *testing.T) {
	urls := startServers(t).flags()
	nodes := []*service{startService(t, urls...), startService(t, urls...)}
	for round := range 2 { // whichever projects now, the other has to take over once
		t.Run(fmt.Sprintf("node %d", round), func(t *testing.T) {
			survivor, victim := nodes[1-round], nodes[round]
			var tally tally
			var over atomic.Bool
			var running sync.WaitGroup
			for range 16 {
				running.Go(func() {
					for !over.Load() {
						if err := writeAndRead(&tally, survivor.as("account-alice")); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
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
			more(200)
			victim.kill()
			more(200)
			over.Store(true)
			running.Wait()
			t.Logf("%d answered, %d refused with a 503", tally.answered.Load(), tally.refused.Load())
			checkReadModel(t, survivor, survivor.settledLog())
			victim.start()
		})
	}
}

// writeAndRead creates a session and reads it back.
func writeAndRead(y *tally, c *client) error {
	written, err := y.send(c, "POST", "/chat-sessions", `{"room": "r"}`)
	if err != nil || written.status != 200 {
		return err
	}
	read, err := y.send(c, "GET", written.header.Get("Location"), "")
	if err == nil && read.status == 200 && !bytes.Equal(read.body, written.body) {
		err = fmt.Errorf("written was %s, read was %s", written.body, read.body)
	}
	return err
}

func TestARedisThatHangsHoldsUpNoSession(t *testing.T) {
	onRealRedis(t, func(t *testing.T, s *service, redis *redistest.Server) {
		before := fill(t, s, 6)
		crm := s.as("service-crm")
		hang(t, redis)
		atOnce(t, len(before.sessions)+1, func(i int) error {
			if i == len(before.sessions) {
				a, err := crm.do("GET", "/chat-sessions", "")
				if err != nil || a.status != 503 || a.header.Get("Retry-After") == "" {
					return a.instead(err)
				}
				return nil
			}
			path := before.paths()[i]
			a, err := crm.do("GET", path, "")
			if err != nil || a.status != 200 || !bytes.Equal(a.body, before.sessions[path].body) || a.header.Get("Chat-Sessions-Source") != "log" {
				return a.instead(err)
			}
			return nil
		})
		path := crm.create(`{"room": "meanwhile"}`)
		crm.expect(200, "PATCH", path, `{"start": true}`)
		eventually(t, func() error {
			a, err := crm.do("GET", path, "")
			if err != nil || a.status != 200 || a.header.Get("Chat-Sessions-Source") != "" || a.header.Get("ETag") != `"2"` {
				return a.instead(err)
			}
			return nil
		})
		checkReadModel(t, s, s.settledLog())
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
