package projector

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"chatsessions/domain"
	"chatsessions/projections/logtest"
	"chatsessions/projections/modeltest"
	"chatsessions/projections/redistest"
)

// foreign is a checkpoint of the same log that another writer has set.
const foreign = "log 77 g p0 e"

// A WATCH ends with its connection. A transaction must not commit over another
// connection, because another projector may have written in between.
func TestAWriterWhoseConnectionWasCutWritesNothingOverAnotherProjector(t *testing.T) {
	for name, between := range map[string]func(ctx context.Context, tx *transaction){
		"at once":                                   func(context.Context, *transaction) {},
		"after an idle look at the checkpoint":      func(ctx context.Context, tx *transaction) { _, _ = tx.read(ctx) },
		"after two idle looks":                      func(ctx context.Context, tx *transaction) { _, _ = tx.read(ctx); _, _ = tx.read(ctx) },
		"after documents were asked for in between": func(ctx context.Context, tx *transaction) { _, _ = tx.documents(ctx, []string{tx.checkpointKey}) },
	} {
		for state, before := range map[string]*domain.Session{
			"the log tells the session before": {}, "Redis is asked for it": nil,
		} {
			t.Run(name+", "+state, func(t *testing.T) {
				b := newBatches(t, redistest.Config{}, before)
				_ = b.projector.withTransactions(t.Context(), b.projector.writers, func() error {
					w := b.projector.writers[0].tx
					logtest.MustRun(t, b.apply(0))
					logtest.MustRun(t, b.stranger.Do(t.Context(), "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes").Err())
					between(t.Context(), w)
					logtest.MustRun(t, b.stranger.Set(t.Context(), b.projector.partitions[0].Checkpoint(), foreign, 0).Err())
					want := modeltest.Dump(t, b.stranger)
					for range 3 {
						if err := b.apply(1); err == nil {
							t.Error("the batch was written")
						}
						sameAs(t, modeltest.Dump(t, b.stranger), want)
					}
					return nil
				})
				b.mustBeUnwatched()
			})
		}
	}
}

// What Redis refuses to take it refuses as a whole, and the connection is as good as
// before.
func TestABatchThatRedisRefusesWritesNothingAndTheNextOneIsWritten(t *testing.T) {
	for name, refusal := range map[string]struct {
		refuse, allow []any
		says          string
	}{
		"out of memory":    {[]any{"CONFIG", "SET", "maxmemory", "1"}, []any{"CONFIG", "SET", "maxmemory", "0"}, "OOM"},
		"a replica":        {[]any{"REPLICAOF", "127.0.0.1", "1"}, []any{"REPLICAOF", "NO", "ONE"}, "READONLY"},
		"too few replicas": {[]any{"CONFIG", "SET", "min-replicas-to-write", "1"}, []any{"CONFIG", "SET", "min-replicas-to-write", "0"}, "NOREPLICAS"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBatches(t, redistest.Config{Args: []string{"--maxmemory-policy", "noeviction"}}, nil)
			p, refused := b.projector, errors.New("refused, as it had to be")
			var want map[string]string
			err := p.withTransactions(t.Context(), p.writers, func() error {
				logtest.MustRun(t, b.apply(0))
				want = modeltest.Dump(t, b.stranger)
				logtest.MustRun(t, b.stranger.Do(t.Context(), refusal.refuse...).Err())
				for range 2 {
					if err := b.apply(1); err == nil || !strings.Contains(err.Error(), refusal.says) {
						t.Errorf("got %v, want %s", err, refusal.says)
					}
					sameAs(t, modeltest.Dump(t, b.stranger), want)
				}
				return refused
			})
			if !errors.Is(err, refused) || p.position() != 1 {
				t.Errorf("got %v at position %d", err, p.position())
			}
			if _, err := p.resume(t.Context(), p.partitions[0], false); err != nil {
				t.Errorf("nothing is wrong with what is there, and yet: %v", err)
			}
			sameAs(t, modeltest.Dump(t, b.stranger), want)
			logtest.MustRun(t, b.stranger.Do(t.Context(), refusal.allow...).Err())
			b.mustBeUnwatched()

			logtest.MustRun(t, p.applyAlone(t.Context(), b.log.Events))
			sameAs(t, modeltest.Dump(t, b.stranger), scratch(t, b.log))
			b.mustBeUnwatched()
		})
	}
}

// batches are three batches of one event each, for a writer on a real Redis.
type batches struct {
	t         *testing.T
	log       *logtest.Log
	rdb       *redis.Client
	stranger  *redis.Client // with a connection of its own
	projector *Projector
}

// newBatches begins before the first of them. before is what the log says of the
// session before each event.
func newBatches(t *testing.T, config redistest.Config, before *domain.Session) *batches {
	t.Helper()
	server := redistest.Start(t, config)
	b := &batches{t: t, log: logtest.New("log"), rdb: modeltest.Connect(t, server).(*redis.Client), stranger: modeltest.Connect(t, server).(*redis.Client)}
	b.log.Append(logtest.Session(1, 1), logtest.Session(2, 2, logtest.Room("r1")), logtest.Session(3, 3))
	for i := range b.log.Events {
		b.log.Events[i].Before = before
	}
	b.projector = New(b.rdb, b.log, Options{Logger: slog.New(slog.DiscardHandler)})
	b.projector.log = logtest.New("log") // what there is comes in batches
	logtest.MustRun(t, b.projector.begins(t.Context()))
	b.projector.log = b.log
	return b
}

func (b *batches) apply(n int) error {
	return b.projector.apply(b.t.Context(), b.projector.writers, b.log.Events[n:n+1])
}

// mustBeUnwatched takes every connection from the pool and fails the test for one that
// is in a transaction, or whose next one would be given up when the checkpoint moves.
func (b *batches) mustBeUnwatched() {
	b.t.Helper()
	ctx, checkpoint := b.t.Context(), b.projector.partitions[0].Checkpoint()
	var conns []*redis.Conn
	for range max(b.rdb.PoolStats().TotalConns, 1) {
		c := b.rdb.Conn()
		defer c.Close() // gives it back
		conns = append(conns, c)
		if pong, err := c.Ping(ctx).Result(); pong != "PONG" || err != nil {
			b.t.Errorf("a pooled connection answers %q, %v", pong, err)
		}
	}
	found, err := b.stranger.Get(ctx, checkpoint).Result()
	logtest.MustRun(b.t, err)
	logtest.MustRun(b.t, b.stranger.Set(ctx, checkpoint, found, 0).Err())
	for _, c := range conns {
		_, err := c.TxPipelined(ctx, func(pipe redis.Pipeliner) error { return pipe.Get(ctx, checkpoint).Err() })
		if err != nil {
			b.t.Errorf("a transaction on a pooled connection: %v", err)
		}
	}
}

func sameAs(t *testing.T, got, want map[string]string) {
	t.Helper()
	if !maps.Equal(got, want) {
		t.Errorf("Redis holds %q, want %q", got, want)
	}
}
