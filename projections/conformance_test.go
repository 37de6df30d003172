package projections

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"go.uber.org/goleak"

	"chatsessions/domain"
	"chatsessions/projections/redistest"
)

func TestMain(m *testing.M) {
	logging.Disable() // go-redis tells of every server that a test has killed
	goleak.VerifyTestMain(m)
}

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

// A rig is a log, a projector and a read model over one Redis.
type rig struct {
	*ReadModel
	keys      partition // the first one
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
	return NewReadModel(rdb, log, opts)
}

func newRig(t testing.TB, rdb redis.UniversalClient, log *fakeLog) *rig {
	t.Helper()
	return newRigOf(t, rdb, log, 1)
}

// newRigOf returns a rig whose read model has so many partitions.
func newRigOf(t testing.TB, rdb redis.UniversalClient, log *fakeLog, partitions int) *rig {
	t.Helper()
	r := &rig{t: t, rdb: rdb, log: log, output: &syncBuffer{}}
	r.ReadModel = newReadModel(t, rdb, log, ReadModelOptions{Logger: r.logger(), Partitions: partitions})
	r.keys = r.partitions[0]
	start(t, r.Run)
	r.project()
	return r
}

// serving names the keys of the generation that answers.
func (r *rig) serving() keyspace { r.t.Helper(); return servingOf(r.t, r.rdb, r.keys) }

func servingOf(t testing.TB, rdb redis.UniversalClient, part partition) keyspace {
	t.Helper()
	text := rdb.Get(t.Context(), part.checkpoint()).Val()
	c, ok := parseCheckpoint(text)
	if !ok {
		t.Fatalf("there is no read model: %q", text)
	}
	return part.of(c.generation)
}

func (r *rig) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(r.output, nil))
}

// project runs a projector, the rig's first or a further one.
func (r *rig) project() *running {
	p := NewProjector(r.rdb, r.log, ProjectorOptions{Logger: r.logger(), Notify: r.Projected, Partitions: len(r.partitions)})
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

// mustBeWhole waits until the read model holds the whole log, and fails the test where
// it is not what it would be from scratch, or where anything of another one is left.
func (r *rig) mustBeWhole() {
	r.t.Helper()
	r.caughtUp()
	sameKeys(r.t, dumpOf(r.t, r.rdb, len(r.partitions)), scratchOf(r.t, r.log, len(r.partitions)))
	mustHaveOneGeneration(r.t, r.rdb, r.partitions)
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

// dump returns everything that Redis holds of the read model that answers, and whatever
// else there is. Of generations it shows no names, since these are made up.
func dump(t testing.TB, rdb redis.UniversalClient) map[string]string {
	t.Helper()
	return dumpOf(t, rdb, 1)
}

// dumpOf is dump for a read model of so many partitions.
func dumpOf(t testing.TB, rdb redis.UniversalClient, partitions int) map[string]string {
	t.Helper()
	ctx := context.Background()
	keys, err := rdb.Keys(ctx, "*").Result()
	mustRun(t, err)
	all := map[string]string{}
	for _, key := range keys {
		kind, err := rdb.Type(ctx, key).Result()
		mustRun(t, err)
		name, text := key, ""
		var part partition // that the key is of
		for _, p := range newPartitions(partitions) {
			if strings.HasPrefix(key, p.base) {
				part = p
			}
		}
		if rest, ok := strings.CutPrefix(key, part.base); ok && part.base != "" && strings.Contains(rest, ":") {
			generation, rest, _ := strings.Cut(rest, ":")
			state := "of another generation "
			if c, _ := parseCheckpoint(rdb.Get(ctx, part.checkpoint()).Val()); c.generation == generation {
				state = ""
			}
			name = fmt.Sprint(part.shard, ": ", state, rest)
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
	return scratchOf(t, log, 1)
}

// scratchOf is scratch for a read model of so many partitions.
func scratchOf(t testing.TB, log *fakeLog, partitions int) map[string]string {
	t.Helper()
	e, err := StartEmbedded("secret")
	mustRun(t, err)
	defer func() { mustRun(t, e.Close()) }()
	log.mu.Lock()
	events := slices.Clone(log.events)
	log.mu.Unlock()
	p := NewProjector(e.Client(), newFakeLog(log.Identity()), ProjectorOptions{Logger: slog.New(slog.DiscardHandler), Partitions: partitions})
	mustRun(t, p.begins(context.Background()))
	if len(events) > 0 {
		mustRun(t, p.applyAlone(context.Background(), events))
	}
	return dumpOf(t, e.Client(), partitions)
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
	const script = `for _, key in ipairs(redis.call('KEYS', '*')) do redis.call('DEL', key) end`
	if err := rdb.Eval(ctx, script, nil).Err(); err != nil && !errors.Is(err, redis.Nil) {
		t.Error(err)
	}
}

// applyAlone is apply with a writer of its own.
func (p *Projector) applyAlone(ctx context.Context, batch []domain.Entry) error {
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
