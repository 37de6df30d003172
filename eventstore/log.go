package eventstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// minPayload bounds an event's message, in bytes: a hundred participants of 128 characters,
// twice (changes and session), in UTF-8, with a margin.
const minPayload = 256 << 10

// openPatience bounds Open if its context has no deadline.
const openPatience = 30 * time.Second

// Options of a log.
type Options struct {
	// Replicas is the number of servers that keep the log. 0 means three for a cluster and
	// one for a single server. A stream with more replicas is accepted.
	Replicas int
	// Durability makes an event durable after the server has acknowledged it, and before the
	// Log does. Nil is for a server that acknowledges only what is on disk (sync_interval:
	// always).
	Durability Durability
	// OnlyWriter says that this Log alone writes. Its followers then get the events that it
	// appends without reading them, and those of other writers a moment later.
	OnlyWriter bool
	// Existing has Open return ErrNoLog if there is no log, instead of creating it.
	Existing bool
	Logger   *slog.Logger
}

// Durability makes the log durable on a server that acknowledges before it syncs.
type Durability interface {
	// Settle makes the log durable as it was found, and completes atomic writes that a crash
	// cut. Open calls it before anything is served.
	Settle(ctx context.Context, found Recovery) error
	// Intend makes it durable that the messages are about to be written, all or none, after
	// a sequence of their subject. done is for a write that is in the log up to a position, or
	// never will be (0). Without it, the next start looks whether the write was cut.
	Intend(after uint64, msgs []*nats.Msg) (done func(position uint64), err error)
	// Durable returns when the events up to a position, which the server has shown, are on
	// disk. After a failed sync it returns an error, for good.
	Durable(ctx context.Context, position uint64) error
	// Err returns the reason why nothing can be written any more, nil if there is none.
	Err() error
}

// ErrNoLog is returned by Open with Options.Existing if there is no log.
var ErrNoLog = errors.New("there is no log on these servers")

// Log is the log of all events. It is safe for concurrent use.
type Log struct {
	nc       *nats.Conn
	conn     requester // nc, or its substitute in a simulation
	js       jetstream.JetStream
	offline  *offline // of a stopped log, instead of nc, conn, and js
	options  Options
	logger   *slog.Logger
	batches  chan struct{} // one element for each atomic write in flight
	cache    cache
	tail     *tail // nil if others write to the log too
	counters counters
	jitter   func(longest time.Duration) time.Duration // of backoffs; nil draws at random
	// patience is how long a Read retries after an interruption.
	patience time.Duration
	// maxWalkBytes bounds the data of the events that Session holds in memory.
	maxWalkBytes int
	// connections counts how often the connection was lost, and how often it was restored.
	connections atomic.Uint64
	failed      chan struct{} // closed with the connection; see Failed

	era     atomic.Pointer[era]
	refusal atomic.Pointer[refusal]
	alarm   chan struct{} // holds one element when the stream is to be probed at once

	ctx     context.Context // ends with Close
	stop    context.CancelFunc
	mu      sync.Mutex // orders the start of a follower before Close
	follows sync.WaitGroup
}

// Open opens the log over a connection with ConnectionOptions, and creates its stream if
// there is none. It waits for a cluster that is still starting until ctx ends, 30 s without
// a deadline. It returns a ConfigError for a stream with other settings than needed.
func Open(ctx context.Context, nc *nats.Conn, o Options) (*Log, error) {
	if nc.Opts.ReconnectBufSize >= 0 {
		return nil, errors.New("open log: the NATS connection keeps messages while it is broken; set nats.ReconnectBufSize(-1)")
	}
	if nc.MaxPayload() < minPayload {
		return nil, fmt.Errorf("open log: the NATS server takes messages of %d bytes, needed are %d (max_payload)", nc.MaxPayload(), minPayload)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	o.Replicas = Replicas(nc, o.Replicas)
	ctx, cancel := withPatience(ctx, openPatience)
	defer cancel()
	needed := StreamConfig(o.Replicas)
	found, err := ensureStream(ctx, js, needed, o.Existing)
	if err != nil {
		return nil, fmt.Errorf("open log: stream %s: %w", StreamName, err)
	}
	if differences := compare(found.Config, needed); len(differences) > 0 {
		return nil, &ConfigError{differences}
	}
	l := newLog(found.Created, o)
	l.nc, l.conn, l.js = nc, nc, js
	l.countConnections()
	l.watchForClose()
	// That an event is in the log does not mean that it is durable.
	if o.Durability != nil {
		if err := o.Durability.Settle(ctx, Recovery{log: l, Stream: found.Config}); err != nil {
			l.stop()
			return nil, fmt.Errorf("open log: %w", err)
		}
	}
	l.follows.Go(l.watch)
	return l, nil
}

// Replicas returns how many servers keep a log for which so many were asked for; see
// Options.
func Replicas(nc *nats.Conn, asked int) int {
	switch {
	case asked > 0:
		return asked
	case nc.ConnectedClusterName() != "":
		return 3
	}
	return 1
}

func newLog(created time.Time, o Options) *Log {
	l := &Log{
		options: o, logger: orDiscard(o.Logger),
		batches:  make(chan struct{}, maxBatches),
		cache:    newCache(),
		failed:   make(chan struct{}),
		patience: interruptionPatience, maxWalkBytes: maxWalkBytes,
		alarm: make(chan struct{}, 1),
	}
	if o.OnlyWriter {
		l.tail = newTail()
	}
	l.ctx, l.stop = context.WithCancel(context.Background())
	l.begin(created)
	return l
}

// Identity names this log and no other: the stream's name and the time of its creation. It
// changes when the stream is replaced.
func (l *Log) Identity() string { return l.era.Load().identity }

// Created returns when the log's stream was created.
func (l *Log) Created() time.Time { return l.era.Load().created }

// Close ends all followers and returns when they have returned. The connection stays open.
func (l *Log) Close() {
	l.mu.Lock()
	l.stop()
	l.mu.Unlock()
	l.follows.Wait()
}

// Durable is Durability.Durable; without a Durability, everything that is shown is on disk.
func (l *Log) Durable(ctx context.Context, position uint64) error {
	if l.options.Durability == nil {
		return nil
	}
	return l.options.Durability.Durable(ctx, position)
}

// End returns the position of the log's newest event, as the leader has it; 0 for an empty
// log. It returns domain.ErrUnavailable, also with ErrReplaced or a ConfigError.
func (l *Log) End(ctx context.Context) (uint64, error) {
	ctx, cancel := withPatience(ctx, readPatience)
	defer cancel()
	end, err := l.LastSequence(ctx)
	if err == nil {
		err = cmp.Or(l.refused(), l.Durable(ctx, end))
	}
	if err != nil {
		return 0, unavailable("end of the log", err)
	}
	return end, nil
}

// Connections counts how often the connection was lost or restored. After each change, the
// log may have been restored from an older copy.
func (l *Log) Connections() uint64 { return l.connections.Load() }

func (l *Log) countConnections() {
	changed := l.nc.StatusChanged(nats.RECONNECTING, nats.CONNECTED)
	l.follows.Go(func() {
		defer l.nc.RemoveStatusListener(changed)
		for {
			select {
			case <-l.ctx.Done():
				return
			case _, open := <-changed:
				if !open {
					return
				}
				l.connections.Add(1)
			}
		}
	})
}

// Stats counts what a Log has done since it was opened.
type Stats struct {
	// Writes is the number of acknowledged, durable writes; Events that of their events.
	Writes, Events uint64
	// Conflicts counts the writes that another writer of the session overtook, so that the
	// command was decided again.
	Conflicts uint64
	// Replays counts the repeated requests that were found in the log.
	Replays uint64
	// CacheHits counts the commands that found the session's newest event in memory,
	// CacheMisses those that had to read it.
	CacheHits, CacheMisses uint64
}

type counters struct {
	writes, events, conflicts, replays, cacheHits, cacheMisses atomic.Uint64
}

// Stats returns the counts so far.
func (l *Log) Stats() Stats {
	c := &l.counters
	return Stats{
		Writes: c.writes.Load(), Events: c.events.Load(), Conflicts: c.conflicts.Load(), Replays: c.replays.Load(),
		CacheHits: c.cacheHits.Load(), CacheMisses: c.cacheMisses.Load(),
	}
}
