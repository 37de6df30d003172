package projections

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"chatsessions/projections/redistest"
)

// onEveryRedis runs a test on the embedded Redis and on a real one.
func onEveryRedis(t *testing.T, test func(t *testing.T, rdb redis.UniversalClient)) {
	t.Run("embedded", func(t *testing.T) {
		e, err := StartEmbedded("secret")
		mustRun(t, err)
		t.Cleanup(func() { mustRun(t, e.Close()) })
		test(t, e.Client())
	})
	t.Run("redis-server", func(t *testing.T) {
		test(t, connect(t, redistest.Start(t, redistest.Config{Password: "secret"})))
	})
}

func connect(t testing.TB, server *redistest.Server) redis.UniversalClient {
	t.Helper()
	rdb, err := Connect(t.Context(), RedisOptions{URL: server.URL()})
	mustRun(t, err)
	t.Cleanup(func() { mustRun(t, rdb.Close()) })
	return rdb
}

// another returns a client of its own for the same Redis, as another process has.
func another(t testing.TB, rdb redis.UniversalClient) *redis.Client {
	t.Helper()
	return database(t, rdb, rdb.(*redis.Client).Options().DB)
}

// database returns a client for the n-th database of a Redis.
func database(t testing.TB, rdb redis.UniversalClient, n int) *redis.Client {
	t.Helper()
	options := *rdb.(*redis.Client).Options()
	options.DB = n
	client := redis.NewClient(&options)
	t.Cleanup(func() { mustRun(t, client.Close()) })
	return client
}

func servingOf(t testing.TB, rdb redis.UniversalClient, part partition) keyspace {
	t.Helper()
	text := rdb.Get(t.Context(), part.checkpoint()).Val()
	c, ok := parseCheckpoint(text)
	if !ok {
		t.Fatalf("there is no read model: %q", text)
	}
	return part.of(c.generation)
}

// mustHaveOneGeneration fails the test where a partition notes other generations than
// the one that answers.
func mustHaveOneGeneration(t testing.TB, rdb redis.UniversalClient, partitions []partition) {
	t.Helper()
	for _, part := range partitions {
		noted, err := rdb.SMembers(t.Context(), part.generations()).Result()
		mustRun(t, err)
		if answers := servingOf(t, rdb, part).generation; !slices.Equal(noted, []string{answers}) {
			t.Errorf("partition %d notes the generations %q, and %q answers", part.shard, noted, answers)
		}
	}
}

// running is something that runs until it is stopped.
type running struct {
	stop context.CancelFunc
	done chan struct{}
}

func start(t testing.TB, run func(context.Context) error) *running {
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{cancel, make(chan struct{})}
	go func() {
		defer close(r.done)
		if err := run(ctx); err != nil {
			t.Errorf("Run returned %v", err)
		}
	}()
	t.Cleanup(r.end)
	return r
}

func (r *running) end() {
	r.stop()
	<-r.done
}

// eventually waits for a condition, for long enough that only a defect misses it.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("does not happen: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// empty removes everything from a Redis at once. The embedded one refuses FLUSHALL.
func empty(t testing.TB, rdb redis.UniversalClient) {
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

func sameKeys(t interface{ Fatalf(string, ...any) }, got, want map[string]string) {
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

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
