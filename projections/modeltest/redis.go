package modeltest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
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
	return Database(t, rdb, rdb.(*redis.Client).Options().DB)
}

// Database returns a client of the n-th database of a Redis.
func Database(t testing.TB, rdb redis.UniversalClient, n int) *redis.Client {
	t.Helper()
	options := *rdb.(*redis.Client).Options()
	options.DB = n
	client := redis.NewClient(&options)
	t.Cleanup(func() { logtest.MustRun(t, client.Close()) })
	return client
}

// Serving names the keys of the live generation.
func Serving(t testing.TB, rdb redis.UniversalClient, part layout.Partition) layout.Keyspace {
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
		if live := Serving(t, rdb, part).Generation; !slices.Equal(noted, []string{live}) {
			t.Errorf("partition %d notes the generations %q, and %q is live", part.Number, noted, live)
		}
	}
}

// Empty removes everything from a Redis. The embedded one rejects FLUSHALL.
func Empty(t testing.TB, rdb redis.UniversalClient) {
	t.Helper()
	ctx := context.Background()
	err := rdb.FlushAll(ctx).Err()
	if err == nil {
		return
	}
	if !strings.Contains(err.Error(), "cannot be emptied") {
		t.Error(err)
		return
	}
	const script = `for _, key in ipairs(redis.call('KEYS', '*')) do redis.call('DEL', key) end`
	if err := rdb.Eval(ctx, script, nil).Err(); err != nil && !errors.Is(err, redis.Nil) {
		t.Error(err)
	}
}

// SameKeys fails the test if two dumps differ.
func SameKeys(t interface{ Fatalf(string, ...any) }, got, want map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(got)) {
		if got[key] != want[key] {
			t.Fatalf("%s is %q, from scratch it would be %q", key, got[key], want[key])
		}
	}
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if _, ok := got[key]; !ok {
			t.Fatalf("%s is missing", key)
		}
	}
}
