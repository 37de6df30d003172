package projector

import (
	"context"
	"crypto/rand"
	_ "embed" // rebuilding.lua
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"chatsessions/domain"
	"chatsessions/projections"
	"chatsessions/projections/audit"
	"chatsessions/projections/layout"
)

//go:embed rebuilding.lua
var rebuildingSource string

var rebuildingScript = redis.NewScript(rebuildingSource)

// RebuildOptions configure a rebuild. The zero value is usable.
type RebuildOptions struct {
	Logger     *slog.Logger // slog.Default when nil
	Partitions int          // as Options.Partitions
	// Progress, if not nil, is called now and then with the progress of a stage. total is
	// 0 if unknown.
	Progress func(s Stage, done, total uint64)
	// Difference, if not nil, receives each difference of the live read model from the log.
	Difference func(audit.Difference)
	// Private says that the Redis belongs to a running service. No stand-in starts.
	Private bool
	// CheckEviction is as Options.CheckEviction.
	CheckEviction bool
	// CompareOnly ends the rebuild after the comparison. The read model stays as it is.
	CompareOnly bool
}

// A Stage is a stage of a rebuild.
type Stage int

// The stages, in order.
const (
	Comparing  Stage = iota // counted in positions of the log
	Filling                 // counted in positions of the log
	TakingOver              // counted in partitions
	Removing                // counted in keys of Redis
)

// A Rebuilt is the result of a rebuild.
type Rebuilt struct {
	Position    uint64 `json:"position"`    // of the log, up to which it was filled or compared
	Sessions    uint64 `json:"sessions"`    // that have to be shown at that position
	Compared    bool   `json:"compared"`    // false if there was nothing to compare with
	Differences uint64 `json:"differences"` // between the old read model and the log
	Removed     int64  `json:"removed"`     // keys of unused read models
}

// ErrRebuilding is returned when another rebuild is at work.
var ErrRebuilding = errors.New("another rebuild of this read model is at work")

// A rebuild's lock expires after rebuildLockLife, in case the process was killed.
const (
	rebuildLockLife  = 5 * time.Second
	rebuildLockRenew = time.Second
	unlockTimeout    = 3 * time.Second
)

// projectorPatience is how long the running projector may take to adopt the new generation
// before the rebuild starts a projector of its own.
const projectorPatience = 2 * time.Second

// Rebuild replaces the read model. It reports the differences between the live one and the
// log, fills a new generation of every partition from the log, and has the projector adopt
// it, which is one step for readers. Then it removes the old one. It can be interrupted at
// any moment: the old read model keeps answering, and the next rebuild removes the rest.
func Rebuild(ctx context.Context, rdb redis.UniversalClient, log audit.Log, opts RebuildOptions) (Rebuilt, error) {
	b := &rebuild{
		opts: opts, rdb: rdb, log: log,
		builder: New(rdb, log, Options{Logger: opts.Logger, Partitions: opts.Partitions, CheckEviction: opts.CheckEviction}),
	}
	if !opts.CompareOnly {
		if err := b.builder.checkEviction(ctx); err != nil {
			return Rebuilt{}, err
		}
	}
	if b.opts.Progress == nil {
		b.opts.Progress = func(Stage, uint64, uint64) {}
	}
	if b.opts.Difference == nil {
		b.opts.Difference = func(audit.Difference) {}
	}
	working, unlock, err := b.lock(ctx)
	if err != nil {
		return Rebuilt{}, err
	}
	defer unlock()
	projecting, dismiss := context.WithCancel(working)
	var standIn sync.WaitGroup
	defer standIn.Wait()
	defer dismiss()
	b.needStandIn = sync.OnceFunc(func() {
		if !opts.Private {
			p := New(rdb, log, Options{Logger: opts.Logger, Partitions: opts.Partitions, CheckEviction: opts.CheckEviction})
			standIn.Go(func() { _ = p.Run(projecting) }) // returns nil
		}
	})
	if err := b.run(working); err != nil {
		return b.result, errors.Join(context.Cause(working), err)
	}
	return b.result, nil
}

// A rebuild is one call of Rebuild.
type rebuild struct {
	opts        RebuildOptions
	rdb         redis.UniversalClient
	log         audit.Log
	builder     *Projector          // writes the new generations
	needStandIn func()              // starts a projector in this process, once, when none seems to be at work
	live        []layout.Checkpoint // of each partition at the start; the zero value for none
	result      Rebuilt
}

func (b *rebuild) run(ctx context.Context) error {
	if err := b.readLive(ctx); err != nil {
		return err
	}
	var writers []*partitionWriter
	for _, part := range b.builder.partitions {
		w, err := b.begin(ctx, part)
		if err != nil {
			return err
		}
		writers = append(writers, w)
	}
	err := b.compare(ctx)
	switch {
	case err != nil:
		return err
	case b.opts.CompareOnly:
		for _, w := range writers { // the new generations are empty
			if err := b.rdb.Del(ctx, w.keys.Partition.Next()).Err(); err != nil {
				return fmt.Errorf("discard the new read model: %w", err)
			}
		}
	default:
		err = b.replace(ctx, writers)
	}
	if err != nil {
		return err
	}
	for _, part := range b.builder.partitions {
		removed, err := sweep(ctx, b.rdb, part, func(n int64) error {
			b.opts.Progress(Removing, uint64(b.result.Removed+n), 0) //nolint:gosec // not negative
			return nil
		})
		b.result.Removed += removed
		if err != nil {
			return err
		}
	}
	return nil
}

// replace fills the new generations and waits until they are adopted.
func (b *rebuild) replace(ctx context.Context, writers []*partitionWriter) error {
	b.builder.mu.Lock()
	b.builder.writers = writers
	b.builder.mu.Unlock()
	err := b.builder.withTransactions(ctx, writers, func() error {
		if err := b.fill(ctx, writers); err != nil {
			return err
		}
		if err := b.catchUp(ctx, writers); err != nil {
			return err
		}
		return b.declareComplete(ctx, writers)
	})
	if err != nil {
		return err
	}
	return b.awaitAdoption(ctx, writers)
}

// readLive reads the live checkpoints. It returns an error if the read model does not
// belong to this log, or has another number of partitions.
func (b *rebuild) readLive(ctx context.Context) error {
	for _, part := range b.builder.partitions {
		text, err := projections.ReadText(ctx, b.rdb, part.Checkpoint())
		if err != nil {
			return err
		}
		c, ok := layout.ParseCheckpoint(text)
		if ok && c.Identity != b.log.Identity() {
			return fmt.Errorf("%w: %s, and the log is %s", projections.ErrOtherLog, c.Identity, b.log.Identity())
		}
		if text == "" {
			if err := projections.FindPartitions(ctx, b.rdb, len(b.builder.partitions)); err != nil {
				return err
			}
		}
		b.live = append(b.live, c)
	}
	return nil
}

// begin begins the new generation of a partition. If a projector is just adopting the
// result of an earlier rebuild, it waits for that.
func (b *rebuild) begin(ctx context.Context, part layout.Partition) (*partitionWriter, error) {
	for {
		found, err := projections.ReadText(ctx, b.rdb, part.Next())
		if err != nil {
			return nil, err
		}
		w, err := b.builder.begin(ctx, part, part.Next(), found)
		if !errors.Is(err, errDeposed) && !errors.Is(err, errUnexpected) {
			return w, err
		}
	}
}

// lock keeps other rebuilds from starting. Its context ends when the lock is lost.
func (b *rebuild) lock(ctx context.Context) (context.Context, func(), error) {
	key, token := b.builder.partitions[0].RebuildLock(), rand.Text()
	acquire := func(ctx context.Context) (bool, error) {
		owner, err := rebuildingScript.Run(ctx, b.rdb, []string{key}, token, rebuildLockLife.Milliseconds()).Int()
		return owner == 1, err
	}
	for until := time.Now().Add(rebuildLockLife + time.Second); ; {
		locked, err := acquire(ctx)
		if err != nil {
			return nil, nil, fmt.Errorf("begin a rebuild: %w", err)
		}
		if locked {
			break
		}
		if time.Now().After(until) {
			return nil, nil, ErrRebuilding
		}
		if !projections.Pause(ctx, rebuildLockRenew) {
			return nil, nil, ctx.Err()
		}
	}
	working, lost := context.WithCancelCause(ctx)
	var renewing sync.WaitGroup
	renewing.Go(func() {
		for last := time.Now(); projections.Pause(working, rebuildLockRenew); {
			locked, err := acquire(working)
			switch {
			case locked:
				last = time.Now()
			case err == nil || time.Since(last) > rebuildLockLife:
				lost(errors.Join(ErrRebuilding, err))
			}
		}
	})
	unlock := func() {
		lost(nil)
		renewing.Wait()
		leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlockTimeout)
		defer cancel()
		_ = b.rdb.ZRem(leaving, key, token).Err() // otherwise it expires
	}
	return working, unlock, nil
}

// fill fills the new generations and reports progress.
func (b *rebuild) fill(ctx context.Context, writers []*partitionWriter) error {
	end, err := b.log.End(ctx)
	if err != nil {
		return fmt.Errorf("ask for the end of the log: %w", err)
	}
	b.opts.Progress(Filling, 0, end)
	b.builder.onFilled = func(position uint64) { b.opts.Progress(Filling, min(position, end), end) }
	if err := b.builder.fill(ctx, writers); err != nil {
		return err
	}
	b.opts.Progress(Filling, end, end)
	b.result.Position, b.result.Sessions = b.builder.position(), 0
	for _, w := range writers {
		n, err := b.rdb.ZCard(ctx, w.keys.Index(layout.IndexAll)).Result()
		if err != nil {
			return fmt.Errorf("count the sessions: %w", err)
		}
		b.result.Sessions += uint64(n) //nolint:gosec // not negative
	}
	return nil
}

// catchUp writes the events that were recorded during the filling, and those that were
// recorded meanwhile. The projector waits while it writes what a new generation lacks, so
// that has to be little.
func (b *rebuild) catchUp(ctx context.Context, writers []*partitionWriter) error {
	for {
		end, err := b.log.End(ctx)
		before := b.builder.position()
		if err != nil || before >= end {
			return err
		}
		if err := b.builder.catchUp(ctx, writers, end); err != nil || end-before < maxBatchEvents {
			return err
		}
	}
}

// compare reports how the live read model, if comparable, differs from the log.
func (b *rebuild) compare(ctx context.Context) error {
	for _, c := range b.live {
		if c.State != layout.Projected {
			return nil
		}
		if rewritten, err := b.builder.isRewritten(ctx, c); err != nil || rewritten != "" {
			return err
		}
	}
	b.result.Compared = true
	opts := audit.Options{
		Partitions: b.opts.Partitions, Slow: b.needStandIn,
		Difference: func(d audit.Difference) error {
			b.result.Differences++
			b.opts.Difference(d)
			return nil
		},
	}
	done, err := audit.Run(ctx, b.rdb, b.log, opts, func(ctx context.Context, compare audit.Compare) error {
		end, err := b.log.End(ctx)
		if err != nil {
			return err
		}
		b.opts.Progress(Comparing, 0, end)
		_, err = b.log.Newest(ctx, fillBatchEvents, func(batch []domain.Entry) error {
			b.opts.Progress(Comparing, min(batch[len(batch)-1].Record.Position, end), end)
			return compare(ctx, batch)
		})
		return err
	})
	b.result.Position, b.result.Sessions = done.Position, done.Sessions
	return err
}

// declareComplete hands the new generations to the projector, which alone writes them then.
func (b *rebuild) declareComplete(ctx context.Context, writers []*partitionWriter) error {
	b.opts.Progress(TakingOver, 0, uint64(len(writers)))
	for _, w := range writers {
		ready := w.current
		ready.State = layout.Complete
		if err := w.write(ctx, newChunk(), ready); err != nil {
			return err
		}
	}
	return nil
}

// awaitAdoption returns when every partition answers from its new generation.
func (b *rebuild) awaitAdoption(ctx context.Context, writers []*partitionWriter) error {
	for since := time.Now(); ; {
		adopted := 0
		for _, w := range writers {
			next, err := projections.ReadText(ctx, b.rdb, w.keys.Partition.Next())
			if err != nil {
				return err
			}
			if c, _ := layout.ParseCheckpoint(next); c.Generation == w.keys.Generation {
				continue
			}
			live, err := projections.ReadText(ctx, b.rdb, w.keys.Partition.Checkpoint())
			if err != nil {
				return err
			}
			if c, _ := layout.ParseCheckpoint(live); c.Generation != w.keys.Generation {
				return errors.New("the new read model is gone: Redis was emptied, or another rebuild replaced it")
			}
			adopted++
		}
		b.opts.Progress(TakingOver, uint64(adopted), uint64(len(writers))) //nolint:gosec // not negative
		if adopted == len(writers) {
			return nil
		}
		if time.Since(since) > projectorPatience {
			b.needStandIn()
		}
		if !projections.Pause(ctx, 20*time.Millisecond) {
			return ctx.Err()
		}
	}
}
