package redisfaults

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"chatsessions/cmd/systemtest/rig"
	"chatsessions/projections/redistest"
)

func TestARedisThatDropsKeysIsRefusedAtTheStart(t *testing.T) {
	redis := redistest.Start(t, redistest.Config{Password: "topsecret", Args: []string{"--maxmemory-policy", "allkeys-lru"}})
	status, out, errs := rig.Command(t, nil, "serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir", t.TempDir(), "--redis-url", redis.URL())
	for _, want := range []string{redis.Addr(), "maxmemory-policy allkeys-lru", "set maxmemory-policy noeviction"} {
		if status != rig.ExitFailed || !strings.Contains(errs, want) || strings.Contains(out+errs, "topsecret") {
			t.Errorf("exit status %d, %s%s; want %s", status, out, errs, want)
		}
	}
}

// Redis gets too little memory and a policy that drops keys, while the service runs. A list
// is then refused until the policy is right, and holds everything after that.
func TestNoListComesFromARedisThatDropsKeys(t *testing.T) {
	rig.OnRealRedis(t, func(t *testing.T, s *rig.Service, redis *redistest.Server) {
		const sessions = 150
		crm := s.As("service-crm")
		var first string
		for range sessions {
			first = crm.Create(`{"room": "r"}`)
		}
		list := func() (status, found int) {
			a, err := crm.Do("GET", "/chat-sessions?room=r&$limit=1000&$select[]=id", "")
			if err != nil {
				t.Fatal(err)
			}
			if a.Status == 200 {
				found = len(a.List(t))
			}
			return a.Status, found
		}
		if status, found := list(); status != 200 || found != sessions {
			t.Fatalf("%d, %d sessions", status, found)
		}

		redisCommand(t, redis, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
		rig.Eventually(t, func() error {
			if status, _ := list(); status != 503 {
				return fmt.Errorf("a list is answered with %d", status)
			}
			return nil
		})
		redisCommand(t, redis, "CONFIG", "SET", "maxmemory", "1")
		for until := time.Now().Add(3 * time.Second); time.Now().Before(until); {
			if status, found := list(); status != 503 {
				t.Fatalf("a list from a Redis that drops keys: %d, %d sessions", status, found)
			}
		}
		if !strings.Contains(s.Errors.String(), "maxmemory-policy allkeys-lru") {
			t.Error("the policy is not in the service's log")
		}
		if a := crm.Expect(200, "GET", first, ""); a.Header.Get("Chat-Sessions-Source") != "log" {
			t.Errorf("%v", a.Header)
		}
		if stats := redisCommand(t, redis, "INFO", "stats"); strings.Contains(stats, "evicted_keys:0\r") {
			t.Error("nothing was dropped")
		}

		redisCommand(t, redis, "CONFIG", "SET", "maxmemory", "0")
		redisCommand(t, redis, "CONFIG", "SET", "maxmemory-policy", "noeviction")
		rig.Eventually(t, func() error {
			status, found := list()
			if status == 200 && found != sessions {
				t.Fatalf("a list has %d of %d sessions", found, sessions)
			}
			if status != 200 {
				return fmt.Errorf("a list is answered with %d", status)
			}
			return nil
		})
	})
}
