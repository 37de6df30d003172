package projections

import (
	"bytes"
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"chatsessions/domain"
	"chatsessions/projections/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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

// A rig is a log, a projector and a read model over one Redis.
type rig struct {
	*ReadModel
	t         testing.TB
	rdb       redis.UniversalClient
	log       *fakeLog
	output    *syncBuffer
	projector *running
}

func newRig(t testing.TB, rdb redis.UniversalClient, log *fakeLog) *rig {
	t.Helper()
	r := &rig{t: t, rdb: rdb, log: log, output: &syncBuffer{}}
	r.ReadModel = NewReadModel(rdb, log, ReadModelOptions{Logger: r.logger()})
	start(t, r.Run)
	r.project()
	return r
}

func (r *rig) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(r.output, nil))
}

// project runs a projector, the rig's first or a further one.
func (r *rig) project() *running {
	p := NewProjector(r.rdb, r.log, ProjectorOptions{Logger: r.logger(), Notify: r.Projected})
	run := start(r.t, p.Run)
	if r.projector == nil {
		r.projector = run
	}
	return run
}

// caughtUp waits until the read model holds the whole log.
func (r *rig) caughtUp() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	defer cancel()
	if err := r.CaughtUp(ctx); err != nil {
		r.t.Fatalf("the read model does not catch up: %v\n%s", err, r.output.String())
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

// dump returns everything that Redis holds.
func dump(t testing.TB, rdb redis.UniversalClient) map[string]string {
	t.Helper()
	ctx := context.Background()
	keys, err := rdb.Keys(ctx, "*").Result()
	mustRun(t, err)
	all := map[string]string{}
	for _, key := range keys {
		kind, err := rdb.Type(ctx, key).Result()
		mustRun(t, err)
		switch kind {
		case "string":
			all[key], err = rdb.Get(ctx, key).Result()
		case "zset":
			var members []string
			members, err = rdb.ZRangeByLex(ctx, key, &redis.ZRangeBy{Min: "-", Max: "+"}).Result()
			for i, m := range members {
				_, id := placeOf(m)
				members[i] = id
			}
			all[key] = strings.Join(members, " ")
		default:
			t.Fatalf("%s is a %s", key, kind)
		}
		mustRun(t, err)
	}
	return all
}

// scratch returns what Redis holds when the log is projected into an empty one.
func scratch(t testing.TB, log *fakeLog) map[string]string {
	t.Helper()
	e, err := StartEmbedded("secret")
	mustRun(t, err)
	defer func() { mustRun(t, e.Close()) }()
	p := NewProjector(e.Client(), log, ProjectorOptions{Logger: slog.New(slog.DiscardHandler)})
	p.current = checkpoint{log.Identity(), 0}
	mustRun(t, e.Client().Set(context.Background(), p.keys.checkpoint(), p.current.String(), 0).Err())
	log.mu.Lock()
	events := slices.Clone(log.events)
	log.mu.Unlock()
	mustRun(t, p.applyAlone(context.Background(), events))
	return dump(t, e.Client())
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
	keys, err := rdb.Keys(ctx, "*").Result()
	if err == nil && len(keys) > 0 {
		err = rdb.Del(ctx, keys...).Err()
	}
	if err != nil {
		t.Error(err)
	}
}

// applyAlone is apply with a writer of its own.
func (p *Projector) applyAlone(ctx context.Context, batch []domain.Recorded) error {
	return p.withWriter(ctx, func(w *writer) error { return p.apply(ctx, w, batch) })
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
