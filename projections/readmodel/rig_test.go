package readmodel

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"chatsessions/deploy/servertest"
	"chatsessions/projections"
	"chatsessions/projections/embeddedredis"
	"chatsessions/projections/layout"
	"chatsessions/projections/logtest"
	"chatsessions/projections/modeltest"
	"chatsessions/projections/projector"
)

// A rig is a log, a projector and a read model over one Redis.
type rig struct {
	*ReadModel
	parts     []layout.Partition
	keys      layout.Partition // the first one
	t         testing.TB
	rdb       redis.UniversalClient
	log       *logtest.Log
	output    *servertest.Output
	projector *logtest.Running
}

func newReadModel(t testing.TB, rdb redis.UniversalClient, log projections.Log, opts Options) *ReadModel {
	t.Helper()
	if rdb == nil { // which is not going to be asked
		rdb = redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
		t.Cleanup(func() { logtest.MustRun(t, rdb.Close()) })
	}
	return New(rdb, log, opts)
}

func newRig(t testing.TB, rdb redis.UniversalClient, log *logtest.Log) *rig {
	t.Helper()
	return newRigOf(t, rdb, log, 1)
}

// newRigOf returns a rig whose read model has so many partitions.
func newRigOf(t testing.TB, rdb redis.UniversalClient, log *logtest.Log, partitions int) *rig {
	t.Helper()
	r := &rig{t: t, rdb: rdb, log: log, output: &servertest.Output{}}
	r.ReadModel = newReadModel(t, rdb, log, Options{Logger: r.logger(), Partitions: partitions})
	r.parts = layout.Partitions(partitions)
	r.keys = r.parts[0]
	logtest.Start(t, r.Run)
	r.project()
	return r
}

// serving names the keys of the generation that answers.
func (r *rig) liveKeys() layout.Keyspace { r.t.Helper(); return modeltest.Live(r.t, r.rdb, r.keys) }

func (r *rig) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(r.output, nil))
}

// project runs a projector, the rig's first or a further one.
func (r *rig) project() *logtest.Running {
	p := projector.New(r.rdb, r.log, projector.Options{Logger: r.logger(), Notify: r.Projected, Partitions: len(r.parts)})
	run := logtest.Start(r.t, p.Run)
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

func mustWait(t testing.TB, m *ReadModel, position uint64) {
	t.Helper()
	if err := m.WaitFor(t.Context(), position, 30*time.Second); err != nil {
		t.Errorf("position %d: %v", position, err)
	}
}

// scratch returns what Redis holds when the log is projected into an empty one.
func scratch(t testing.TB, log *logtest.Log) map[string]string {
	t.Helper()
	return scratchOf(t, log, 1)
}

// scratchOf is scratch for a read model of so many partitions. Events are projected one
// by one there, while a read model that is filled gets the newest states.
func scratchOf(t testing.TB, log *logtest.Log, partitions int) map[string]string {
	t.Helper()
	e, err := embeddedredis.Start("secret")
	logtest.MustRun(t, err)
	defer func() { logtest.MustRun(t, e.Close()) }()
	events := logtest.New(log.Identity())
	p := projector.New(e.Client(), events, projector.Options{Logger: slog.New(slog.DiscardHandler), Partitions: partitions})
	run := logtest.Start(t, p.Run)
	defer run.End()
	for _, part := range layout.Partitions(partitions) {
		modeltest.Reached(t, e.Client(), part.Checkpoint(), 0)
	}
	events.Record(log.All()...)
	for _, part := range layout.Partitions(partitions) {
		modeltest.Reached(t, e.Client(), part.Checkpoint(), events.Length())
	}
	return modeltest.DumpOf(t, e.Client(), partitions)
}
