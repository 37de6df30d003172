package projector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"chatsessions/domain"
	"chatsessions/projections"
	"chatsessions/projections/layout"
)

// Bounds of one transaction, so that Redis serves others in between.
const (
	maxBatchEvents = 256
	maxBatchBytes  = 1 << 20
	// fillBatchEvents is how many events are read at once to fill a generation.
	fillBatchEvents = 512
)

// Pauses of the projector.
const (
	watchEvery = 250 * time.Millisecond // how often an idle projector checks its checkpoints
	minBackoff = 50 * time.Millisecond
	maxBackoff = time.Second
)

// Options configure a projector. The zero value is usable.
type Options struct {
	Logger *slog.Logger // slog.Default when nil
	// Partitions is how many the read model has (0: one), the same for every process.
	Partitions int
	// Notify, if not nil, is called with each position that a partition has passed, for a
	// read model in this process (readmodel.ReadModel.Projected). It must not block.
	Notify func(partition int, position uint64)
	// Private says that only this process reads this Redis, through a ReadModel, and that
	// the Redis ends with the process. It may then hold events that are not durable yet,
	// because the ReadModel waits for them. No notices are published.
	Private bool
	// CheckEviction says that this Redis may be one that drops keys to make room. The
	// projector does not write to one that does; see projections.CheckEviction.
	CheckEviction bool
	// Applied, if not nil, is called after each batch with its number of events and the
	// time it took. It must be quick.
	Applied func(events int, took time.Duration)
}

// A Projector writes the log into the read model. One advances; any others stand by.
type Projector struct {
	rdb        redis.UniversalClient
	log        projections.Log
	partitions []layout.Partition
	logger     *slog.Logger
	notify     func(int, uint64)
	applied    func(events int, took time.Duration)
	private    bool
	evictions  bool                  // whether to check for them
	onFilled   func(position uint64) // called with the position that filling has reached
	began      map[string]bool       // generations begun by this projector

	mu      sync.Mutex         // held while Redis is changed, and for writers
	writers []*partitionWriter // one per partition
}

// Reasons to stop following the log.
var (
	// errDeposed: another projector moved the checkpoint.
	errDeposed = errors.New("another projector is at work")
	// errDamaged: a transaction was executed in part.
	errDamaged = errors.New("the read model is damaged")
	// errUnexpected: Redis does not hold what this projector wrote.
	errUnexpected = errors.New("the read model is not as the projector left it")
	// errSuccessorReady: a generation that was built beside is ready to take over.
	errSuccessorReady = errors.New("a rebuilt read model is ready")
)

// New returns a projector of the log into Redis. Run starts it.
func New(rdb redis.UniversalClient, log projections.Log, opts Options) *Projector {
	p := &Projector{
		rdb: rdb, log: log, partitions: layout.Partitions(opts.Partitions), began: map[string]bool{}, onFilled: func(uint64) {},
		logger: opts.Logger, notify: opts.Notify, private: opts.Private, evictions: opts.CheckEviction, applied: opts.Applied,
	}
	if p.logger == nil {
		p.logger = slog.Default()
	}
	if p.notify == nil {
		p.notify = func(int, uint64) {}
	}
	if p.applied == nil {
		p.applied = func(int, time.Duration) {}
	}
	return p
}

// Run projects until ctx ends; then it returns nil. It logs every failure and retries; it
// skips nothing.
func (p *Projector) Run(ctx context.Context) error {
	backoff := minBackoff
	takeOver := false
	reported := ""
	for ctx.Err() == nil {
		before := p.position()
		err := p.project(ctx, takeOver)
		takeOver = false
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errDeposed):
			p.logger.Info("projector stands by: another one is at work")
			takeOver = p.standBy(ctx)
			backoff = minBackoff
			continue
		case errors.Is(err, errSuccessorReady):
			continue
		case p.position() > before:
			backoff = minBackoff
		}
		level := slog.LevelWarn
		if err.Error() != reported { // the first time as an error, repetitions as warnings
			level, reported = slog.LevelError, err.Error()
		}
		p.logger.Log(ctx, level, "projector stopped, will retry", "error", err, "in", backoff.String())
		projections.Pause(ctx, backoff)
		backoff = min(2*backoff, maxBackoff)
	}
	return nil
}

// project resumes at the checkpoints, works until something fails, and returns that error.
func (p *Projector) project(ctx context.Context, takeOver bool) error {
	if err := p.checkEviction(ctx); err != nil {
		return err
	}
	writers := make([]*partitionWriter, len(p.partitions))
	for i, part := range p.partitions {
		var err error
		if writers[i], err = p.resume(ctx, part, takeOver); err != nil {
			return err
		}
	}
	p.mu.Lock()
	p.writers = writers
	p.mu.Unlock()
	return p.withTransactions(ctx, writers, func() error {
		if err := p.fill(ctx, writers); err != nil {
			return err
		}
		from := p.position()
		for i, w := range writers {
			p.notify(i, w.current.Position)
		}
		p.logger.Info("projecting", "log", p.log.Identity(), "after", from)
		return p.follow(ctx, writers, from)
	})
}

func (p *Projector) checkEviction(ctx context.Context) error {
	if !p.evictions {
		return nil
	}
	return projections.CheckEviction(ctx, p.rdb, p.partitions)
}

// withTransactions runs f while each partition writer has a transaction.
func (p *Projector) withTransactions(ctx context.Context, writers []*partitionWriter, f func() error) error {
	if len(writers) == 0 {
		return f()
	}
	w := writers[0]
	return withTransaction(ctx, p.rdb, w.checkpointKey, p.private, func(tx *transaction) error {
		w.tx = tx
		return p.withTransactions(ctx, writers[1:], f)
	})
}

// fill writes the newest state of every session into the partitions that are being filled.
func (p *Projector) fill(ctx context.Context, writers []*partitionWriter) error {
	n := len(writers)
	writers = slices.DeleteFunc(slices.Clone(writers), func(w *partitionWriter) bool { return w.current.State != layout.Filling })
	if len(writers) == 0 {
		return nil
	}
	var end uint64
	var last string                               // id of the event at end
	batches := make(chan [][]*layout.Document, 1) // the next batch is encoded while Redis takes this one
	working, both := errgroup.WithContext(ctx)
	working.Go(func() (err error) {
		defer close(batches)
		end, err = p.log.Newest(both, fillBatchEvents, func(batch []domain.Entry) error {
			last = batch[len(batch)-1].Record.ID
			select {
			case batches <- p.split(batch, n):
				p.onFilled(batch[len(batch)-1].Record.Position)
				return nil
			case <-both.Done():
				return both.Err()
			}
		})
		return err
	})
	working.Go(func() error {
		for batch := range batches {
			err := p.eachPartition(writers, func(w *partitionWriter) error { return w.fill(both, batch[w.keys.Partition.Number]) })
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err := working.Wait(); err != nil {
		return err
	}
	return p.eachPartition(writers, func(w *partitionWriter) error {
		return w.write(ctx, newChunk(), w.current.After(end, last))
	})
}

// follow writes the events after a position until something fails. It returns that error.
func (p *Projector) follow(ctx context.Context, writers []*partitionWriter, after uint64) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var watching sync.WaitGroup
	watching.Go(func() { cancel(p.watch(ctx, writers)) })
	err := p.log.Follow(ctx, after, maxBatchEvents, func(batch []domain.Entry) error {
		began := time.Now()
		err := p.apply(ctx, writers, batch)
		if err == nil {
			p.applied(len(batch), time.Since(began))
		}
		return err
	})
	if cause := context.Cause(ctx); cause != nil {
		err = cause // the error of watch; Follow only saw its context end
	}
	cancel(nil)
	watching.Wait()
	if err == nil {
		err = errors.New("the log stopped sending events")
	}
	return err
}

// apply writes the newest state of each session in the batch.
func (p *Projector) apply(ctx context.Context, writers []*partitionWriter, batch []domain.Entry) error {
	documents := p.split(batch, len(writers))
	return p.eachPartition(writers, func(w *partitionWriter) error {
		if err := w.apply(ctx, documents[w.keys.Partition.Number], &batch[len(batch)-1]); err != nil {
			return err
		}
		p.notify(w.keys.Partition.Number, w.current.Position)
		return nil
	})
}

// split encodes the events of a batch for each of n partitions.
func (p *Projector) split(batch []domain.Entry, n int) [][]*layout.Document {
	parts := make([][]*layout.Document, n)
	for i := range batch {
		d := p.documentOf(&batch[i])
		if d.ID == "" { // a gap in the log
			p.logger.Error("events are missing from the log", "position", d.Position, "error", d.Reason)
			continue
		}
		partition := layout.PartitionNumber(d.ID, n)
		parts[partition] = append(parts[partition], d)
	}
	return parts
}

// eachPartition calls f for every partition. It completes the first one before it starts
// the others. Of two projectors, only one gets past the first, so they never share the
// partitions between them.
func (p *Projector) eachPartition(writers []*partitionWriter, f func(*partitionWriter) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := f(writers[0]); err != nil {
		return err
	}
	var others errgroup.Group
	for _, w := range writers[1:] {
		others.Go(func() error { return f(w) })
	}
	return others.Wait()
}

// documentOf encodes an event. If that fails, the document parks its session.
func (p *Projector) documentOf(event *domain.Entry) *layout.Document {
	err := event.Err
	if err == nil {
		var d *layout.Document
		if d, err = layout.NewDocument(event); err == nil {
			return d
		}
	}
	return &layout.Document{ID: event.Record.Event.Session.ID, Position: event.Record.Position, Reason: err.Error()}
}

// position returns the position that every partition has reached.
func (p *Projector) position() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return leastPosition(p.writers)
}

// leastPosition returns the position that all writers have reached, 0 for no writers.
func leastPosition(writers []*partitionWriter) (least uint64) {
	for i, w := range writers {
		if i == 0 || w.current.Position < least {
			least = w.current.Position
		}
	}
	return least
}

// watch returns an error when Redis may drop keys, when a checkpoint is not what this projector wrote, when it is
// past the end of the log, or when a successor is ready. Without it, an idle projector
// would only notice with the next event.
func (p *Projector) watch(ctx context.Context, writers []*partitionWriter) error {
	for projections.Pause(ctx, watchEvery) {
		if err := p.checkEviction(ctx); err != nil {
			return err
		}
		for _, w := range writers {
			if err := p.checkPartition(ctx, w); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *Projector) checkPartition(ctx context.Context, w *partitionWriter) error {
	if _, ready, err := p.successor(ctx, w.keys.Partition); err != nil {
		return err
	} else if ready {
		return errSuccessorReady
	}
	if !p.mu.TryLock() {
		return nil // a transaction is running, which checks by itself
	}
	expected := w.current
	found, err := w.tx.read(ctx)
	p.mu.Unlock()
	if err != nil {
		return err
	}
	if found != expected.String() {
		return checkpointMoved(p.log.Identity(), found)
	}
	if end, err := p.log.End(ctx); err == nil && end < expected.Position {
		return fmt.Errorf("%w: the log ends at %d, before the checkpoint at %d", errUnexpected, end, expected.Position)
	}
	return nil
}
