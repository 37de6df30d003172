package projections

import (
	"bytes"
	"context"
	"fmt"
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
	keys      partition
	t         testing.TB
	rdb       redis.UniversalClient
	log       *fakeLog
	output    *syncBuffer
	projector *running
}

func newReadModel(t testing.TB, rdb redis.UniversalClient, log Log, opts ReadModelOptions) *ReadModel {
	t.Helper()
	if rdb == nil { // which is not going to be asked
		rdb = redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
		t.Cleanup(func() { mustRun(t, rdb.Close()) })
	}
	m, err := NewReadModel(rdb, log, opts)
	mustRun(t, err)
	return m
}

func newRig(t testing.TB, rdb redis.UniversalClient, log *fakeLog) *rig {
	t.Helper()
	r := &rig{t: t, rdb: rdb, log: log, output: &syncBuffer{}}
	r.ReadModel = newReadModel(t, rdb, log, ReadModelOptions{Logger: r.logger()})
	r.keys = r.partitions[0]
	start(t, r.Run)
	r.project()
	return r
}

// serving names the keys of the generation that answers.
func (r *rig) serving() keyspace {
	r.t.Helper()
	c, ok := parseCheckpoint(r.rdb.Get(r.t.Context(), r.keys.checkpoint()).Val())
	if !ok {
		r.t.Fatal("there is no read model")
	}
	return r.keys.of(c.generation)
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

// dump returns everything that Redis holds of the read model that answers, and whatever
// else there is. Of generations it shows no names, since these are made up.
func dump(t testing.TB, rdb redis.UniversalClient) map[string]string {
	t.Helper()
	ctx := context.Background()
	keys, err := rdb.Keys(ctx, "*").Result()
	mustRun(t, err)
	all := map[string]string{}
	for _, key := range keys {
		kind, err := rdb.Type(ctx, key).Result()
		mustRun(t, err)
		name, text := key, ""
		part := newPartitions(1)[0]
		if rest, ok := strings.CutPrefix(key, part.base); ok && strings.Contains(rest, ":") {
			generation, rest, _ := strings.Cut(rest, ":")
			name = "<" + rest
			if c, _ := parseCheckpoint(rdb.Get(ctx, part.checkpoint()).Val()); c.generation == generation {
				name = rest
			}
		}
		switch {
		case key == layoutsKey || key == part.generations():
			continue
		case kind == "string":
			text, err = rdb.Get(ctx, key).Result()
			if c, ok := parseCheckpoint(text); ok && key == part.checkpoint() {
				text = fmt.Sprint(c.identity, " ", c.position, " ", string(c.state))
			}
		case kind == "zset":
			var members []string
			members, err = rdb.ZRangeByLex(ctx, key, &redis.ZRangeBy{Min: "-", Max: "+"}).Result()
			for i, m := range members {
				_, id := placeOf(m)
				members[i] = id
			}
			text = strings.Join(members, " ")
		case kind == "hash":
			var fields map[string]string
			fields, err = rdb.HGetAll(ctx, key).Result()
			text = fmt.Sprint(fields)
		default:
			t.Fatalf("%s is a %s", key, kind)
		}
		mustRun(t, err)
		all[name] = text
	}
	return all
}

// scratch returns what Redis holds when the log is projected into an empty one.
func scratch(t testing.TB, log *fakeLog) map[string]string {
	t.Helper()
	e, err := StartEmbedded("secret")
	mustRun(t, err)
	defer func() { mustRun(t, e.Close()) }()
	log.mu.Lock()
	events := slices.Clone(log.events)
	log.mu.Unlock()
	p := NewProjector(e.Client(), newFakeLog(log.Identity()), ProjectorOptions{Logger: slog.New(slog.DiscardHandler)})
	mustRun(t, p.begins(context.Background()))
	if len(events) > 0 {
		mustRun(t, p.applyAlone(context.Background(), events))
	}
	return dump(t, e.Client())
}

// begins makes the lanes, as project does, and fills what has to be filled.
func (p *Projector) begins(ctx context.Context) error {
	p.lanes = nil
	for _, part := range p.partitions {
		l, err := p.resume(ctx, part, false)
		if err != nil {
			return err
		}
		p.lanes = append(p.lanes, l)
	}
	return p.withWriters(ctx, p.lanes, func() error { return p.fill(ctx, p.lanes) })
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
	return p.withWriters(ctx, p.lanes, func() error { return p.apply(ctx, p.lanes, batch) })
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
