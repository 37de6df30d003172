// Package modeltest connects tests to Redis and shows what it holds of a read model. Only
// tests import it.
//
//	redis.go  connections, and running a test on every kind of Redis
//	dump.go   a read model as a map, comparable with another
//	hooks.go  code that runs before a command
package modeltest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/redis/go-redis/v9"

	"chatsessions/projections/embeddedredis"
	"chatsessions/projections/layout"
	"chatsessions/projections/logtest"
	"chatsessions/projections/redisconn"
	"chatsessions/projections/redistest"
)

// OnEveryRedis runs a test on the embedded Redis and on a real one.
func OnEveryRedis(t *testing.T, test func(t *testing.T, rdb redis.UniversalClient)) {
	t.Run("embedded", func(t *testing.T) {
		e, err := embeddedredis.Start("secret")
		logtest.MustRun(t, err)
		t.Cleanup(func() { logtest.MustRun(t, e.Close()) })
		test(t, e.Client())
	})
	t.Run("redis-server", func(t *testing.T) {
		test(t, Connect(t, redistest.Start(t, redistest.Config{Password: "secret"})))
	})
}

// Connect returns a client of a server.
func Connect(t testing.TB, server *redistest.Server) redis.UniversalClient {
	t.Helper()
	rdb, err := redisconn.Connect(t.Context(), redisconn.Options{URL: server.URL()})
	logtest.MustRun(t, err)
	t.Cleanup(func() { logtest.MustRun(t, rdb.Close()) })
	return rdb
}

// Another returns another client of the same Redis, as another process would have.
func Another(t testing.TB, rdb redis.UniversalClient) *redis.Client {
	t.Helper()
	client := redis.NewClient(new(*rdb.(*redis.Client).Options()))
	t.Cleanup(func() { logtest.MustRun(t, client.Close()) })
	return client
}

// Live names the keys of the live generation.
func Live(t testing.TB, rdb redis.UniversalClient, part layout.Partition) layout.Keyspace {
	t.Helper()
	text := rdb.Get(t.Context(), part.Checkpoint()).Val()
	c, ok := layout.ParseCheckpoint(text)
	if !ok {
		t.Fatalf("there is no read model: %q", text)
	}
	return part.Keys(c.Generation)
}

// MustHaveOneGeneration fails the test if a partition has generations beside the live one.
func MustHaveOneGeneration(t testing.TB, rdb redis.UniversalClient, partitions []layout.Partition) {
	t.Helper()
	for _, part := range partitions {
		noted, err := rdb.SMembers(t.Context(), part.Generations()).Result()
		logtest.MustRun(t, err)
		if live := Live(t, rdb, part).Generation; !slices.Equal(noted, []string{live}) {
			t.Errorf("partition %d notes the generations %q, and %q is live", part.Number, noted, live)
		}
	}
}

// Empty removes everything from a Redis. The embedded one rejects FLUSHALL.
func Empty(t testing.TB, rdb redis.UniversalClient) {
	t.Helper()
	const script = `for _, key in ipairs(redis.call('KEYS', '*')) do redis.call('DEL', key) end`
	if err := rdb.Eval(context.Background(), script, nil).Err(); err != nil && !errors.Is(err, redis.Nil) {
		t.Error(err)
	}
}

// SameKeys fails the test if two dumps differ.
func SameKeys(t interface{ Fatalf(string, ...any) }, got, want map[string]string) {
	all := maps.Clone(want)
	maps.Copy(all, got)
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if value, ok := got[key]; !ok || value != want[key] {
			t.Fatalf("%s is %q (there: %t), from scratch it would be %q", key, value, ok, want[key])
		}
	}
}
