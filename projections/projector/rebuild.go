package projector

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"chatsessions/domain"
	"chatsessions/projections"
	"chatsessions/projections/audit"
	"chatsessions/projections/layout"
)

// RebuildOptions configure a rebuild. The zero value is usable.
type RebuildOptions struct {
	Logger     *slog.Logger // slog.Default when nil
	Partitions int          // as Options.Partitions
	// Progress, if not nil, is called now and then with the progress of a stage. total is
	// 0 if unknown.
	Progress func(s Stage, done, total uint64)
	// Difference, if not nil, is called with each difference between the old and the new
	// read model.
	Difference func(audit.Difference)
	// Private says that the Redis belongs to a running service, whose projector alone
	// moves the checkpoint. No stand-in starts.
	Private bool
	// CompareOnly removes the new read model after the comparison.
	CompareOnly bool
}

// A Stage is a stage of a rebuild.
type Stage int

// The stages, in order.
const (
	Filling    Stage = iota // counted in positions of the log
	Comparing               // counted in keys of Redis
	TakingOver              // counted in partitions
	Removing                // counted in keys of Redis
)

// A Rebuilt is the result of a rebuild.
type Rebuilt struct {
	Position    uint64 `json:"position"`    // of the log when the comparison began
	Sessions    uint64 `json:"sessions"`    // in the new read model at that time
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

// projectorPatience is how long the running projector may take to catch up with the new
// generation or to adopt it. After that, the rebuild starts a projector of its own.
const projectorPatience = 2 * time.Second

// Rebuild builds a new read model beside the one that answers. It fills a new generation
// of every partition from the log, keeps it up to date, compares it with the old one, and
// has the projector adopt it, which is one step for readers. Then it removes the old one.
// It can be interrupted at any moment: the old read model keeps answering, and the next
// rebuild removes the remains.
func Rebuild(ctx context.Context, rdb redis.UniversalClient, log projections.Log, opts RebuildOptions) (Rebuilt, error) {
	b := &rebuild{
		opts: opts, rdb: rdb, standInNeeded: make(chan struct{}, 1),
		builder: New(rdb, log, Options{Logger: opts.Logger, Partitions: opts.Partitions}),
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
	defer b.offerStandIn(working)()
	if err := b.run(working); err != nil {
		return b.result, errors.Join(context.Cause(working), err)
	}
	return b.result, nil
}

// A rebuild is one call of Rebuild.
type rebuild struct {
	opts          RebuildOptions
	rdb           redis.UniversalClient
	builder       *Projector    // writes the new generations
	standInNeeded chan struct{} // signaled when no projector seems to be at work
	result        Rebuilt
}

func (b *rebuild) run(ctx context.Context) error {
	if err := b.checkLog(ctx); err != nil {
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
	b.builder.mu.Lock()
	b.builder.writers = writers
	b.builder.mu.Unlock()
	err := b.builder.withTransactions(ctx, writers, func() error {
		if err := b.fill(ctx, writers); err != nil {
			return err
		}
		if err := b.compareWhileFollowing(ctx, writers); err != nil || b.opts.CompareOnly {
			return err
		}
		return b.declareComplete(ctx, writers)
	})
	if err != nil {
		return err
	}
	if b.opts.CompareOnly {
		for _, part := range b.builder.partitions {
			if err := b.rdb.Del(ctx, part.Next()).Err(); err != nil {
				return fmt.Errorf("discard the new read model: %w", err)
			}
		}
	} else if err := b.awaitAdoption(ctx, writers); err != nil {
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

// checkLog returns an error if the read model does not belong to this log, or has another
// number of partitions.
func (b *rebuild) checkLog(ctx context.Context) error {
	for _, part := range b.builder.partitions {
		text, err := projections.ReadText(ctx, b.rdb, part.Checkpoint())
		if err != nil {
			return err
		}
		if c, ok := layout.ParseCheckpoint(text); ok && c.Identity != b.builder.log.Identity() {
			return fmt.Errorf("%w: %s, and the log is %s", projections.ErrOtherLog, c.Identity, b.builder.log.Identity())
		}
		if text == "" {
			return projections.FindPartitions(ctx, b.rdb, len(b.builder.partitions))
		}
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

// lock keeps other rebuilds from starting. The returned context ends when the lock is
// lost.
func (b *rebuild) lock(ctx context.Context) (context.Context, func(), error) {
	key, token := b.builder.partitions[0].RebuildLock(), rand.Text()
	hold := func(ctx context.Context) (bool, error) {
		held, err := rebuildingScript.Run(ctx, b.rdb, []string{key}, token, rebuildLockLife.Milliseconds()).Int()
		return held == 1, err
	}
	for until := time.Now().Add(rebuildLockLife + time.Second); ; {
		held, err := hold(ctx)
		if err != nil {
			return nil, nil, fmt.Errorf("begin a rebuild: %w", err)
		}
		if held {
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
			held, err := hold(working)
			switch {
			case held:
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

// offerStandIn runs a projector in this process once one is needed, until dismissed.
func (b *rebuild) offerStandIn(ctx context.Context) (dismiss func()) {
	if b.opts.Private {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var offer errgroup.Group
	offer.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case <-b.standInNeeded:
		}
		p := New(b.rdb, b.builder.log, Options{Logger: b.opts.Logger, Partitions: b.opts.Partitions})
		return p.Run(ctx)
	})
	return func() {
		cancel()
		_ = offer.Wait() // Run returns nil
	}
}

// fill fills the new generations and reports progress.
func (b *rebuild) fill(ctx context.Context, writers []*partitionWriter) error {
	end, err := b.builder.log.End(ctx)
	if err != nil {
		return fmt.Errorf("ask for the end of the log: %w", err)
	}
	b.opts.Progress(Filling, 0, end)
	b.builder.onFilled = func(position uint64) { b.opts.Progress(Filling, min(position, end), end) }
	if err := b.builder.fill(ctx, writers); err != nil {
		return err
	}
	b.opts.Progress(Filling, end, end)
	return nil
}

// compareWhileFollowing compares while it keeps the new generations up to date.
func (b *rebuild) compareWhileFollowing(ctx context.Context, writers []*partitionWriter) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	finished := errors.New("the comparison is finished")
	var working sync.WaitGroup
	working.Go(func() {
		cancel(b.builder.log.Follow(ctx, b.builder.position(), maxBatchEvents, func(batch []domain.Entry) error {
			return b.builder.apply(ctx, writers, batch)
		}))
	})
	working.Go(func() {
		err := b.compare(ctx, writers)
		if err == nil {
			err = finished
		}
		cancel(err)
	})
	working.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, finished) { // whichever ended first
		return cause
	}
	return nil
}

// compare reports every difference between the generations that answer and the new ones.
// It does nothing if the old ones cannot be compared.
func (b *rebuild) compare(ctx context.Context, writers []*partitionWriter) error {
	b.result.Position = b.builder.position()
	var pairs []audit.Pair
	for _, w := range writers {
		n, err := b.rdb.ZCard(ctx, w.keys.Index(layout.IndexAll)).Result()
		if err != nil {
			return fmt.Errorf("compare: %w", err)
		}
		b.result.Sessions += uint64(n) //nolint:gosec // not negative
		found, err := projections.ReadText(ctx, b.rdb, w.keys.Checkpoint())
		if err != nil {
			return err
		}
		answers, ok := layout.ParseCheckpoint(found)
		if !ok || answers.State != layout.Projected || answers.Identity != b.builder.log.Identity() {
			return nil
		}
		if rewritten, err := b.builder.isRewritten(ctx, answers); err != nil || rewritten != "" {
			return err
		}
		pairs = append(pairs, audit.Pair{Built: w.keys, Answers: w.keys.Keys(answers.Generation)})
	}
	b.result.Compared = true
	return audit.CompareGenerations(ctx, b.rdb, pairs, audit.CompareOptions{
		Difference: func(d audit.Difference) {
			b.result.Differences++
			b.opts.Difference(d)
		},
		Progress: func(done, total uint64) { b.opts.Progress(Comparing, done, total) },
		Slow:     b.needStandIn,
	})
}

// needStandIn asks for a projector in this process.
func (b *rebuild) needStandIn() {
	select {
	case b.standInNeeded <- struct{}{}:
	default: // already requested
	}
}

// declareComplete hands the new generations to the projector, which alone writes them
// from now on.
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
			found, err := projections.ReadText(ctx, b.rdb, w.keys.Checkpoint())
			if err != nil {
				return err
			}
			if c, ok := layout.ParseCheckpoint(found); ok && c.Generation == w.keys.Generation {
				adopted++
				continue
			}
			next, err := projections.ReadText(ctx, b.rdb, w.keys.Next())
			if err != nil {
				return err
			}
			if c, ok := layout.ParseCheckpoint(next); !ok || c.Generation != w.keys.Generation {
				// It may have been adopted between the two reads.
				found, err := projections.ReadText(ctx, b.rdb, w.keys.Checkpoint())
				if c, ok := layout.ParseCheckpoint(found); err == nil && ok && c.Generation == w.keys.Generation {
					continue
				}
				return errors.Join(errors.New("the new read model is gone: Redis was emptied, or another rebuild replaced it"), err)
			}
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
