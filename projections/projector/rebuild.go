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

// RebuildOptions are what a rebuild can be told; the zero value will do.
type RebuildOptions struct {
	Logger     *slog.Logger // slog.Default when nil
	Partitions int          // as ProjectorOptions.Partitions
	// Progress, where it is set, is told how far a stage is, now and then. total is 0
	// where it is not known.
	Progress func(s Stage, done, total uint64)
	// Difference, where it is set, is told each difference between the old read model
	// and the new one.
	Difference func(audit.Difference)
	// Private says that the Redis lives and dies with a service, whose projector alone
	// moves the checkpoint: nobody stands in for it.
	Private bool
	// CompareOnly removes the new read model after the comparison.
	CompareOnly bool
}

// A Stage is what a rebuild is doing.
type Stage int

// The stages, in their order.
const (
	Filling    Stage = iota // counted in positions of the log
	Comparing               // counted in keys of Redis
	TakingOver              // counted in partitions
	Removing                // counted in keys of Redis
)

// A Rebuilt is what came of a rebuild.
type Rebuilt struct {
	Position    uint64 `json:"position"`    // up to which the log was read when the comparison began
	Sessions    uint64 `json:"sessions"`    // in the new read model then
	Compared    bool   `json:"compared"`    // false where there was nothing to compare with
	Differences uint64 `json:"differences"` // between the old one and the log
	Removed     int64  `json:"removed"`     // keys of read models that nobody reads any more
}

// ErrRebuilding is returned when another rebuild is at work.
var ErrRebuilding = errors.New("another rebuild of this read model is at work")

// How long a rebuild that was killed keeps others from beginning, and how often one
// that is alive says so.
const (
	rebuildLockLife  = 5 * time.Second
	rebuildLockRenew = time.Second
	unlockTimeout    = 3 * time.Second
)

// projectorPatience is how long the projector at work may take to reach what the new
// generation has, or to let it take over, before the rebuild looks after that itself.
const projectorPatience = 2 * time.Second

// Rebuild makes the read model anew beside the one that answers: it fills a new
// generation of every partition from the log, keeps it up to date, compares it with
// the one that answers, and has the projector let it take over, which is one step for
// all who read. Then it removes the old one. It may be broken off at any moment: what
// answered before answers still, and the next rebuild removes what was left.
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
	builder       *Projector    // of the generations that are built beside
	standInNeeded chan struct{} // told when no projector seems to be at work
	result        Rebuilt
}

func (b *rebuild) run(ctx context.Context) error {
	if err := b.checkLog(ctx); err != nil {
		return err
	}
	var lanes []*partitionWriter
	for _, part := range b.builder.partitions {
		l, err := b.begin(ctx, part)
		if err != nil {
			return err
		}
		lanes = append(lanes, l)
	}
	b.builder.mu.Lock()
	b.builder.writers = lanes
	b.builder.mu.Unlock()
	err := b.builder.withTransactions(ctx, lanes, func() error {
		if err := b.fill(ctx, lanes); err != nil {
			return err
		}
		if err := b.compareWhileFollowing(ctx, lanes); err != nil || b.opts.CompareOnly {
			return err
		}
		return b.declareComplete(ctx, lanes)
	})
	if err != nil {
		return err
	}
	if b.opts.CompareOnly {
		for _, part := range b.builder.partitions {
			if err := b.rdb.Del(ctx, part.Next()).Err(); err != nil {
				return fmt.Errorf("give the new read model up: %w", err)
			}
		}
	} else if err := b.awaitAdoption(ctx, lanes); err != nil {
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

// check finds out whether this is the read model that was meant.
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

// begin begins the new generation of a partition. What an earlier rebuild has finished a
// projector may just be letting take over: then that is awaited.
func (b *rebuild) begin(ctx context.Context, part layout.Partition) (*partitionWriter, error) {
	for {
		found, err := projections.ReadText(ctx, b.rdb, part.Next())
		if err != nil {
			return nil, err
		}
		l, err := b.builder.begin(ctx, part, part.Next(), found)
		if !errors.Is(err, errDeposed) && !errors.Is(err, errUnexpected) {
			return l, err
		}
	}
}

// lock keeps other rebuilds from beginning. The context that it returns ends when the
// lock was lost.
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
		_ = b.rdb.ZRem(leaving, key, token).Err() // otherwise it ends by itself
	}
	return working, unlock, nil
}

// offerStandIn makes this process a projector once one is needed, until it is dismissed.
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

// fill fills the lanes and tells how far it is.
func (b *rebuild) fill(ctx context.Context, lanes []*partitionWriter) error {
	end, err := b.builder.log.End(ctx)
	if err != nil {
		return fmt.Errorf("ask for the end of the log: %w", err)
	}
	b.opts.Progress(Filling, 0, end)
	b.builder.onFilled = func(position uint64) { b.opts.Progress(Filling, min(position, end), end) }
	if err := b.builder.fill(ctx, lanes); err != nil {
		return err
	}
	b.opts.Progress(Filling, end, end)
	return nil
}

// compareWhileFollowing compares while the new generations are kept up to date.
func (b *rebuild) compareWhileFollowing(ctx context.Context, lanes []*partitionWriter) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	finished := errors.New("the comparison is finished")
	var working sync.WaitGroup
	working.Go(func() {
		cancel(b.builder.log.Follow(ctx, b.builder.position(), maxBatchEvents, func(batch []domain.Entry) error {
			return b.builder.apply(ctx, lanes, batch)
		}))
	})
	working.Go(func() {
		err := b.compare(ctx, lanes)
		if err == nil {
			err = finished
		}
		cancel(err)
	})
	working.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, finished) { // of the two, what came first
		return cause
	}
	return nil
}

// compare reports every difference between the generations that answer and the ones that
// were built, if there are any that can be compared.
func (b *rebuild) compare(ctx context.Context, lanes []*partitionWriter) error {
	b.result.Position = b.builder.position()
	var pairs []audit.Pair
	for _, l := range lanes {
		n, err := b.rdb.ZCard(ctx, l.keys.Index(layout.IndexAll)).Result()
		if err != nil {
			return fmt.Errorf("compare: %w", err)
		}
		b.result.Sessions += uint64(n) //nolint:gosec // not negative
		found, err := projections.ReadText(ctx, b.rdb, l.keys.Checkpoint())
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
		pairs = append(pairs, audit.Pair{Built: l.keys, Answers: l.keys.Keys(answers.Generation)})
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

// needStandIn has this process stand in for a projector.
func (b *rebuild) needStandIn() {
	select {
	case b.standInNeeded <- struct{}{}:
	default: // it was told already
	}
}

// release declares the new generations complete: from now on only the projector
// writes them.
func (b *rebuild) declareComplete(ctx context.Context, lanes []*partitionWriter) error {
	b.opts.Progress(TakingOver, 0, uint64(len(lanes)))
	for _, l := range lanes {
		ready := l.current
		ready.State = layout.Complete
		if err := l.write(ctx, newChunk(), ready); err != nil {
			return err
		}
	}
	return nil
}

// awaitAdoption returns when every partition answers from its new generation.
func (b *rebuild) awaitAdoption(ctx context.Context, lanes []*partitionWriter) error {
	for since := time.Now(); ; {
		adopted := 0
		for _, l := range lanes {
			found, err := projections.ReadText(ctx, b.rdb, l.keys.Checkpoint())
			if err != nil {
				return err
			}
			if c, ok := layout.ParseCheckpoint(found); ok && c.Generation == l.keys.Generation {
				adopted++
				continue
			}
			next, err := projections.ReadText(ctx, b.rdb, l.keys.Next())
			if err != nil {
				return err
			}
			if c, ok := layout.ParseCheckpoint(next); !ok || c.Generation != l.keys.Generation {
				// It may have been adopted in between; then it answers now.
				found, err := projections.ReadText(ctx, b.rdb, l.keys.Checkpoint())
				if c, ok := layout.ParseCheckpoint(found); err == nil && ok && c.Generation == l.keys.Generation {
					continue
				}
				return errors.Join(errors.New("the new read model is gone: Redis was emptied, or somebody else rebuilt it"), err)
			}
		}
		b.opts.Progress(TakingOver, uint64(adopted), uint64(len(lanes))) //nolint:gosec // not negative
		if adopted == len(lanes) {
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
