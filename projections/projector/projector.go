package projector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"chatsessions/domain"
	"chatsessions/projections"
	"chatsessions/projections/layout"
)

// Bounds of one transaction, so that others are served in between.
const (
	maxBatchEvents = 256
	maxBatchBytes  = 1 << 20
	// fillBatchEvents is how many are read at once to fill a generation.
	fillBatchEvents = 512
)

// Pauses of the projector.
const (
	watchEvery = 250 * time.Millisecond // how often an idle projector looks whether its checkpoint still stands
	minBackoff = 50 * time.Millisecond
	maxBackoff = time.Second
)

// ProjectorOptions are what a projector can be told; the zero value will do.
type Options struct {
	Logger *slog.Logger // slog.Default when nil
	// Partitions is how many parts the read model has; 0 is one. Every process that
	// uses it has to be told the same.
	Partitions int
	// Notify is told each position that a partition of the read model has passed, at
	// once and without a way through Redis; it must not block. See ReadModel.Projected.
	Notify func(partition int, position uint64)
	// Private says that this Redis lives and dies with this process, which alone reads
	// it, through a ReadModel. Then it may hold what is not durable yet, which the
	// ReadModel waits for, and nobody is sent notices.
	Private bool
	// Applied, where it is set, is told of each batch that was written: how many
	// events were in it, and how long it took. It is called between two batches and
	// must be quick.
	Applied func(events int, took time.Duration)
}

// A Projector writes the log into the read model. Any number may run: one
// advances, the others stand by.
type Projector struct {
	rdb        redis.UniversalClient
	log        projections.Log
	partitions []layout.Partition
	logger     *slog.Logger
	notify     func(int, uint64)
	applied    func(events int, took time.Duration)
	private    bool
	onFilled   func(position uint64) // told how far a filling is
	began      map[string]bool       // the generations that this projector has begun

	mu      sync.Mutex         // held while Redis is changed
	writers []*partitionWriter // one for each partition, while the log is followed
}

// Why following the log was broken off.
var (
	// errDeposed: another projector moved the checkpoint.
	errDeposed = errors.New("another projector is at work")
	// errDamaged: a transaction was carried out in part.
	errDamaged = errors.New("the read model is damaged")
	// errAstray: what stands in Redis is not what this projector left there.
	errUnexpected = errors.New("the read model was changed beneath the projector")
	// errSuccessor: a generation that was built beside waits to be taken over.
	errSuccessorReady = errors.New("a rebuilt read model is ready")
)

// NewProjector returns a projector of a log into the Redis of rdb. Run starts it.
func New(rdb redis.UniversalClient, log projections.Log, opts Options) *Projector {
	p := &Projector{
		rdb: rdb, log: log, partitions: layout.Partitions(opts.Partitions), began: map[string]bool{},
		logger: opts.Logger, notify: opts.Notify, private: opts.Private, applied: opts.Applied,
	}
	if p.logger == nil {
		p.logger = slog.Default()
	}
	if p.notify == nil {
		p.notify = func(int, uint64) {}
	}
	p.onFilled = func(uint64) {}
	if p.applied == nil {
		p.applied = func(int, time.Duration) {}
	}
	return p
}

// Run projects until ctx ends, and returns nil then. Whatever goes wrong
// meanwhile is logged and tried again: nothing is skipped.
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
		if err.Error() != reported { // once loudly, so that it is seen, and can still be read
			level, reported = slog.LevelError, err.Error()
		}
		p.logger.Log(ctx, level, "projector stopped, will try again", "error", err, "in", backoff.String())
		projections.Pause(ctx, backoff)
		backoff = min(2*backoff, maxBackoff)
	}
	return nil
}

// project goes on from the checkpoints until something is wrong, which it returns.
func (p *Projector) project(ctx context.Context, takeOver bool) error {
	lanes := make([]*partitionWriter, len(p.partitions))
	for i, part := range p.partitions {
		var err error
		if lanes[i], err = p.resume(ctx, part, takeOver); err != nil {
			return err
		}
	}
	p.mu.Lock()
	p.writers = lanes
	p.mu.Unlock()
	return p.withTransactions(ctx, lanes, func() error {
		if err := p.fill(ctx, lanes); err != nil {
			return err
		}
		from := p.position()
		for i, l := range lanes {
			p.notify(i, l.current.Position)
		}
		p.logger.Info("projecting", "log", p.log.Identity(), "after", from)
		return p.follow(ctx, lanes, from)
	})
}

// withWriters runs f while each lane has a writer.
func (p *Projector) withTransactions(ctx context.Context, lanes []*partitionWriter, f func() error) error {
	if len(lanes) == 0 {
		return f()
	}
	l := lanes[0]
	return withTransaction(ctx, p.rdb, l.checkpointKey, p.private, func(w *transaction) error {
		l.tx = w
		return p.withTransactions(ctx, lanes[1:], f)
	})
}

// fill gives lanes that hold nothing yet the newest state of every session.
func (p *Projector) fill(ctx context.Context, lanes []*partitionWriter) error {
	empty := 0
	for _, l := range lanes {
		if l.current.State == layout.Filling {
			empty++
		}
	}
	if empty == 0 {
		return nil
	}
	var end uint64
	var last string                               // id of the event there
	batches := make(chan [][]*layout.Document, 1) // one is encoded while Redis takes the one before
	working, both := errgroup.WithContext(ctx)
	working.Go(func() (err error) {
		defer close(batches)
		end, err = p.log.Newest(both, fillBatchEvents, func(batch []domain.Entry) error {
			last = batch[len(batch)-1].Record.ID
			select {
			case batches <- p.split(batch, len(lanes)):
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
			err := p.eachPartition(lanes, batch, func(l *partitionWriter, documents []*layout.Document) error {
				if l.current.State != layout.Filling {
					return nil
				}
				return l.fill(both, documents)
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err := working.Wait(); err != nil {
		return err
	}
	return p.eachPartition(lanes, make([][]*layout.Document, len(lanes)), func(l *partitionWriter, _ []*layout.Document) error {
		if l.current.State != layout.Filling {
			return nil
		}
		return l.write(ctx, newChunk(), l.current.After(end, last))
	})
}

// follow writes the events after a position until something is wrong, which it
// returns.
func (p *Projector) follow(ctx context.Context, lanes []*partitionWriter, after uint64) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var watching sync.WaitGroup
	watching.Go(func() { cancel(p.watch(ctx, lanes)) })
	err := p.log.Follow(ctx, after, maxBatchEvents, func(batch []domain.Entry) error {
		began := time.Now()
		err := p.apply(ctx, lanes, batch)
		if err == nil {
			p.applied(len(batch), time.Since(began))
		}
		return err
	})
	if cause := context.Cause(ctx); cause != nil {
		err = cause // what watch found; Follow only saw its context end
	}
	cancel(nil)
	watching.Wait()
	if err == nil {
		err = errors.New("the log ended its stream of events")
	}
	return err
}

// apply writes the newest state of each session in the batch.
func (p *Projector) apply(ctx context.Context, lanes []*partitionWriter, batch []domain.Entry) error {
	last := &batch[len(batch)-1]
	return p.eachPartition(lanes, p.split(batch, len(lanes)), func(l *partitionWriter, documents []*layout.Document) error {
		if err := l.apply(ctx, documents, last); err != nil {
			return err
		}
		p.notify(l.keys.Number, l.current.Position)
		return nil
	})
}

// split encodes the events of a batch, for each of n partitions its own.
func (p *Projector) split(batch []domain.Entry, n int) [][]*layout.Document {
	parts := make([][]*layout.Document, n)
	for i := range batch {
		d := p.documentOf(&batch[i])
		shard := layout.PartitionNumber(d.ID, n)
		parts[shard] = append(parts[shard], d)
	}
	return parts
}

// eachLane calls f for every lane with what belongs there. The first lane goes first:
// of two projectors only one gets beyond it, so no two of them have some of the
// partitions each.
func (p *Projector) eachPartition(lanes []*partitionWriter, parts [][]*layout.Document, f func(*partitionWriter, []*layout.Document) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := f(lanes[0], parts[0]); err != nil {
		return err
	}
	var others errgroup.Group
	for i, l := range lanes[1:] {
		others.Go(func() error { return f(l, parts[1+i]) })
	}
	return others.Wait()
}

// documentOf encodes what an event left. What cannot be is parked: the session is
// not shown until that is mended, and everything else goes on.
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

// position returns how far every partition is.
func (p *Projector) position() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	var least uint64
	for i, l := range p.writers {
		if i == 0 || l.current.Position < least {
			least = l.current.Position
		}
	}
	return least
}

// watch returns when a checkpoint in Redis is not the one that this projector left
// there, when it lies past the end of the log, or when a generation that was built
// beside is ready: an idle projector would not find out before the next event.
func (p *Projector) watch(ctx context.Context, lanes []*partitionWriter) error {
	for projections.Pause(ctx, watchEvery) {
		for _, l := range lanes {
			if err := p.checkPartition(ctx, l); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *Projector) checkPartition(ctx context.Context, l *partitionWriter) error {
	if next, err := p.successor(ctx, l.keys.Partition); err != nil {
		return err
	} else if next != (layout.Checkpoint{}) {
		return errSuccessorReady
	}
	if !p.mu.TryLock() {
		return nil // it is writing, and will see for itself
	}
	expected := l.current
	found, err := l.tx.read(ctx)
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
