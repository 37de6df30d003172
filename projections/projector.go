package projections

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"chatsessions/domain"
)

// Bounds of one transaction, so that others are served in between.
const (
	maxBatchEvents = 256
	maxBatchBytes  = 1 << 20
)

// Pauses of the projector.
const (
	watchEvery = 250 * time.Millisecond // how often an idle projector looks whether its checkpoint still stands
	minBackoff = 50 * time.Millisecond
	maxBackoff = time.Second
)

// ProjectorOptions are what a projector can be told; the zero value will do.
type ProjectorOptions struct {
	Logger *slog.Logger // slog.Default when nil
	// Notify is told each position that the read model has passed, at once and
	// without a way through Redis; it must not block. See ReadModel.Projected.
	Notify func(position uint64)
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
	rdb     redis.UniversalClient
	log     Log
	keys    keyspace
	logger  *slog.Logger
	notify  func(uint64)
	applied func(events int, took time.Duration)
	private bool
	token   string // marks what this projector is clearing

	rebuild bool // what is in Redis is not to be gone on from

	mu      sync.Mutex // held while Redis is changed
	current checkpoint // what this projector believes to stand in Redis
}

// Why following the log was broken off.
var (
	// errDeposed: another projector moved the checkpoint.
	errDeposed = errors.New("another projector is at work")
	// errDamaged: a transaction was carried out in part.
	errDamaged = errors.New("the read model is damaged")
	// errAstray: what stands in Redis is not what this projector left there.
	errAstray = errors.New("the read model was changed beneath the projector")
)

// NewProjector returns a projector of a log into the Redis of rdb. Run starts it.
func NewProjector(rdb redis.UniversalClient, log Log, opts ProjectorOptions) *Projector {
	p := &Projector{
		rdb: rdb, log: log, keys: newKeyspace(0), token: newToken(),
		logger: opts.Logger, notify: opts.Notify, private: opts.Private, applied: opts.Applied,
	}
	if p.logger == nil {
		p.logger = slog.Default()
	}
	if p.notify == nil {
		p.notify = func(uint64) {}
	}
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
		case p.position() > before:
			backoff = minBackoff
		}
		p.rebuild = p.rebuild || errors.Is(err, errDamaged)
		level := slog.LevelWarn
		if err.Error() != reported { // once loudly, so that it is seen, and can still be read
			level, reported = slog.LevelError, err.Error()
		}
		p.logger.Log(ctx, level, "projector stopped, will try again", "error", err, "in", backoff.String())
		pause(ctx, backoff)
		backoff = min(2*backoff, maxBackoff)
	}
	return nil
}

// project goes on from the checkpoint until something is wrong, which it returns.
func (p *Projector) project(ctx context.Context, takeOver bool) error {
	from, err := p.resume(ctx, takeOver)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.current = from
	p.mu.Unlock()
	p.notify(from.position)
	p.logger.Info("projecting", "log", from.identity, "after", from.position)

	return p.withWriter(ctx, func(w *writer) error { return p.follow(ctx, w, from.position) })
}

// follow writes the events after a position until something is wrong, which it
// returns.
func (p *Projector) follow(ctx context.Context, w *writer, after uint64) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var watching sync.WaitGroup
	watching.Go(func() { cancel(p.watch(ctx, w)) })
	err := p.log.Follow(ctx, after, maxBatchEvents, func(batch []domain.Recorded) error {
		began := time.Now()
		err := p.apply(ctx, w, batch)
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

func (p *Projector) position() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.current.position
}

// apply writes the newest state of each session in the batch, in parts where one
// transaction would take too long.
func (p *Projector) apply(ctx context.Context, w *writer, batch []domain.Recorded) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := newChunk()
	for i := range batch {
		event := &batch[i]
		if event.Position <= p.current.position {
			continue
		}
		d, err := newDocument(event)
		if err != nil {
			return fmt.Errorf("event at position %d: %w", event.Position, err)
		}
		if next.full(d) {
			if err := p.write(ctx, w, next); err != nil {
				return err
			}
			next = newChunk()
		}
		next.put(d)
	}
	return p.write(ctx, w, next)
}

// write applies one chunk and moves the checkpoint behind it.
func (p *Projector) write(ctx context.Context, w *writer, c *chunk) error {
	if len(c.documents) == 0 {
		return nil
	}
	if err := replaced(ctx, w, c.documents); err != nil {
		return err
	}
	after := checkpoint{p.current.identity, c.last()}
	if !p.private {
		if err := p.log.Durable(ctx, after.position); err != nil {
			return fmt.Errorf("events up to position %d: %w", after.position, err)
		}
	}
	if err := w.write(ctx, p.current.String(), after, c.documents, diff(c.documents)); err != nil {
		return fmt.Errorf("write positions %d to %d into the read model: %w", p.current.position+1, after.position, err)
	}
	p.current = after
	p.notify(after.position)
	return nil
}

// replaced finds the documents that these replace, whose index entries may have to
// go. Where the log did not tell the session before, Redis has it: as of the same
// checkpoint on which the writer insists.
func replaced(ctx context.Context, w *writer, documents []*document) error {
	var ids []string
	for _, d := range documents {
		if d.before == nil {
			ids = append(ids, d.id)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	found, err := w.documents(ctx, ids)
	if err != nil {
		return err
	}
	for _, d := range documents {
		if d.before != nil {
			continue
		}
		d.before = &entries{}
		if found[0] != nil {
			d.before = &found[0].entries
		}
		found = found[1:]
	}
	return nil
}

// moved says what it means that something else stands in the checkpoint's place.
func moved(identity, found string) error {
	if c, ok := parseCheckpoint(found); (ok && c.identity == identity) || isClearing(found) {
		return errDeposed
	}
	return fmt.Errorf("%w: checkpoint %q", errAstray, found)
}

// watch returns when the checkpoint in Redis is not the one that this projector
// left there, or lies past the end of the log: an idle projector would not find
// out before the next event.
func (p *Projector) watch(ctx context.Context, w *writer) error {
	for pause(ctx, watchEvery) {
		if !p.mu.TryLock() {
			continue // it is writing, and will see for itself
		}
		expected := p.current
		found, err := w.read(ctx)
		p.mu.Unlock()
		if err != nil {
			return err
		}
		if found != expected.String() {
			return moved(p.log.Identity(), found)
		}
		if end, err := p.log.End(ctx); err == nil && end < expected.position {
			return fmt.Errorf("%w: the log ends at %d, before the checkpoint at %d", errAstray, end, expected.position)
		}
	}
	return nil
}

// pause waits, and says whether there is reason to go on.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
