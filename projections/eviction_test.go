package projections_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"chatsessions/projections"
	"chatsessions/projections/layout"
	"chatsessions/projections/logtest"
	"chatsessions/projections/redisconn"
	"chatsessions/projections/redistest"
)

func TestAPolicyThatDropsKeysIsFoundAndDiscardsTheReadModel(t *testing.T) {
	for policy, refused := range map[string]bool{
		"noeviction": false, "volatile-lru": false, "volatile-lfu": false, "volatile-random": false, "volatile-ttl": false,
		"allkeys-lru": true, "allkeys-lfu": true, "allkeys-random": true,
	} {
		t.Run(policy, func(t *testing.T) {
			server := redistest.Start(t, redistest.Config{ACL: true, Args: []string{"--maxmemory-policy", policy}})
			mustCheck(t, server.URL(), policy, refused)
			server.CheckRights()
		})
	}
}

func TestAPolicyOfAnyNodeOfAClusterIsFound(t *testing.T) {
	cluster := redistest.StartCluster(t, redistest.Config{ACL: true, Args: []string{"--maxmemory-policy", "allkeys-lru"}})
	mustCheck(t, cluster.URL(), "allkeys-lru", true)
	cluster.CheckRights()
}

func mustCheck(t *testing.T, url, policy string, refused bool) {
	t.Helper()
	rdb, err := redisconn.Connect(t.Context(), redisconn.Options{URL: url})
	logtest.MustRun(t, err)
	defer rdb.Close()
	partitions := layout.Partitions(4)
	for _, part := range partitions {
		logtest.MustRun(t, rdb.Set(t.Context(), part.Checkpoint(), "x", 0).Err())
		logtest.MustRun(t, rdb.Set(t.Context(), part.Next(), "x", 0).Err())
	}
	err = projections.CheckEviction(t.Context(), rdb, partitions)
	var evicts *projections.EvictionError
	if errors.As(err, &evicts) != refused || err != nil && !refused {
		t.Fatalf("%s: %v", policy, err)
	}
	if refused && (evicts.Policy != policy || !strings.Contains(err.Error(), "maxmemory-policy "+policy) || !strings.Contains(err.Error(), "set maxmemory-policy noeviction")) {
		t.Errorf("%v", err)
	}
	for _, part := range partitions {
		for _, key := range []string{part.Checkpoint(), part.Next()} {
			if err := rdb.Get(t.Context(), key).Err(); errors.Is(err, redis.Nil) != refused {
				t.Errorf("%s: %s is gone: %v", policy, key, err)
			}
		}
	}
}

func TestAServerThatForbidsTheQuestionIsNotTakenForOneThatKeepsEverything(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	rdb, err := redisconn.Connect(t.Context(), redisconn.Options{URL: server.URL()})
	logtest.MustRun(t, err)
	defer rdb.Close()
	logtest.MustRun(t, rdb.Do(t.Context(), "ACL", "SETUSER", "default", "-info").Err())
	if err := projections.CheckEviction(t.Context(), rdb, layout.Partitions(1)); !redis.HasErrorPrefix(err, "NOPERM") {
		t.Error(err)
	}
}
