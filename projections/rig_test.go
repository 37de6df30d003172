package projections

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// A rig is a log, a projector and a read model over one Redis.
type rig struct {
	*ReadModel
	parts     []partition
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
	r.parts = newPartitions(partitions)
	r.keys = r.parts[0]
	start(t, r.Run)
	r.project()
	return r
}

// serving names the keys of the generation that answers.
func (r *rig) serving() keyspace { r.t.Helper(); return servingOf(r.t, r.rdb, r.keys) }

func (r *rig) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(r.output, nil))
}

// project runs a projector, the rig's first or a further one.
func (r *rig) project() *running {
	p := NewProjector(r.rdb, r.log, ProjectorOptions{Logger: r.logger(), Notify: r.Projected, Partitions: len(r.parts)})
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
	sameKeys(r.t, dumpOf(r.t, r.rdb, len(r.parts)), scratchOf(r.t, r.log, len(r.parts)))
	mustHaveOneGeneration(r.t, r.rdb, r.parts)
}

func mustWait(t testing.TB, m *ReadModel, position uint64) {
	t.Helper()
	if err := m.WaitFor(t.Context(), position, 30*time.Second); err != nil {
		t.Errorf("position %d: %v", position, err)
	}
}

// build projects a whole log, and stops projecting then.
func build(t testing.TB, rdb redis.UniversalClient, log *fakeLog, partitions int) {
	t.Helper()
	p := NewProjector(rdb, log, ProjectorOptions{Logger: slog.New(slog.DiscardHandler), Partitions: partitions})
	run := start(t, p.Run)
	defer run.end()
	end := log.length()
	for _, part := range newPartitions(partitions) {
		reached(t, rdb, part.checkpoint(), end)
	}
}

// scratch returns what Redis holds when the log is projected into an empty one.
func scratch(t testing.TB, log *fakeLog) map[string]string {
	t.Helper()
	return scratchOf(t, log, 1)
}

// scratchOf is scratch for a read model of so many partitions. Events are projected one
// by one there, while a read model that is filled gets the newest states.
func scratchOf(t testing.TB, log *fakeLog, partitions int) map[string]string {
	t.Helper()
	e, err := StartEmbedded("secret")
	mustRun(t, err)
	defer func() { mustRun(t, e.Close()) }()
	events := newFakeLog(log.Identity())
	p := NewProjector(e.Client(), events, ProjectorOptions{Logger: slog.New(slog.DiscardHandler), Partitions: partitions})
	run := start(t, p.Run)
	defer run.end()
	for _, part := range newPartitions(partitions) {
		reached(t, e.Client(), part.checkpoint(), 0)
	}
	events.record(log.all()...)
	for _, part := range newPartitions(partitions) {
		reached(t, e.Client(), part.checkpoint(), events.length())
	}
	return dumpOf(t, e.Client(), partitions)
}
