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

// Bounds of one batch, so that the script which writes it stays short.
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
}

// A Projector writes the log into the read model. Any number may run: one
// advances, the others stand by.
type Projector struct {
	rdb    redis.UniversalClient
	log    Log
	keys   keyspace
	logger *slog.Logger
	notify func(uint64)
	token  string // marks what this projector is clearing

	mu      sync.Mutex // held while Redis is changed
	current checkpoint // what this projector believes to stand in Redis
}

// Why following the log was broken off.
var (
	// errDeposed: another projector moved the checkpoint.
	errDeposed = errors.New("another projector is at work")
	// errAstray: what stands in Redis is not what this projector left there.
	errAstray = errors.New("the read model was changed beneath the projector")
)

// NewProjector returns a projector of a log into the Redis of rdb. Run starts it.
func NewProjector(rdb redis.UniversalClient, log Log, opts ProjectorOptions) *Projector {
	p := &Projector{
		rdb: rdb, log: log, keys: newKeyspace(0), token: newToken(),
		logger: opts.Logger, notify: opts.Notify,
	}
	if p.logger == nil {
		p.logger = slog.Default()
	}
	if p.notify == nil {
		p.notify = func(uint64) {}
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

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var watching sync.WaitGroup
	watching.Go(func() { cancel(p.watch(ctx)) })
	err = p.log.Follow(ctx, from.position, maxBatchEvents, func(batch []domain.Recorded) error {
		return p.apply(ctx, batch)
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
// script would take too long.
func (p *Projector) apply(ctx context.Context, batch []domain.Recorded) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := newChunk()
	for i := range batch {
		event := &batch[i]
		if event.Position <= p.current.position {
			continue
		}
		value, err := encodeDocument(event)
		if err != nil {
			return fmt.Errorf("event at position %d: %w", event.Position, err)
		}
		if next.full(event.Session.ID, len(value)) {
			if err := p.write(ctx, next); err != nil {
				return err
			}
			next = newChunk()
		}
		if err := next.put(event, value); err != nil {
			return err
		}
	}
	return p.write(ctx, next)
}

// write applies one chunk and moves the checkpoint behind it. The documents that
// it replaces say which index entries have to go. They are read as of the same
// checkpoint on which the script insists, so they are still those that it replaces.
func (p *Projector) write(ctx context.Context, c *chunk) error {
	if c.last == 0 {
		return nil
	}
	old, err := p.replaced(ctx, c)
	if err != nil {
		return err
	}
	after := checkpoint{p.current.identity, c.last}
	if err := p.advance(ctx, p.current.String(), after, c.documents, diff(old, c.documents)); err != nil {
		return fmt.Errorf("write positions %d to %d into the read model: %w", p.current.position+1, c.last, err)
	}
	p.current = after
	p.notify(after.position)
	return nil
}

// replaced reads the documents that the chunk will replace, nil for new ones.
func (p *Projector) replaced(ctx context.Context, c *chunk) ([]*stored, error) {
	keys := make([]string, 0, 1+len(c.documents))
	keys = append(keys, p.keys.checkpoint())
	for _, d := range c.documents {
		keys = append(keys, p.keys.document(d.id))
	}
	reply, err := p.rdb.MGet(ctx, keys...).Result()
	if err != nil {
		return nil, fmt.Errorf("read the documents to replace: %w", err)
	}
	if found, _ := reply[0].(string); found != p.current.String() {
		return nil, moved(p.current.identity, found)
	}
	old := make([]*stored, len(c.documents))
	for i, value := range reply[1:] {
		if text, ok := value.(string); ok {
			if old[i], err = decodeDocument(text); err != nil {
				return nil, fmt.Errorf("%s: %w", keys[1+i], err)
			}
		}
	}
	return old, nil
}

// advance runs the script that writes documents and index entries and moves the
// checkpoint, all or nothing.
func (p *Projector) advance(ctx context.Context, expected string, after checkpoint, documents []document, changes indexChanges) error {
	keys := []string{p.keys.checkpoint()}
	args := []any{expected, after.String(), p.keys.notices(), len(documents), len(changes.leaving)}
	for _, d := range documents {
		keys = append(keys, p.keys.document(d.id))
		args = append(args, d.value)
	}
	for name, members := range changes.leaving {
		keys = append(keys, p.keys.index(name))
		args = append(append(args, len(members)), members...)
	}
	for name, members := range changes.entering {
		keys = append(keys, p.keys.index(name))
		args = append(append(args, len(members)), members...)
	}
	found, err := applyScript.Run(ctx, p.rdb, keys, args...).Text()
	if err != nil {
		return err
	}
	// A client that lost the answer sends the script again, and finds its own work.
	if found != expected && found != after.String() {
		return moved(after.identity, found)
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
func (p *Projector) watch(ctx context.Context) error {
	for pause(ctx, watchEvery) {
		if !p.mu.TryLock() {
			continue // it is writing, and will see for itself
		}
		expected := p.current
		found, err := p.read(ctx)
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

// read returns what stands in the checkpoint's place, "" for nothing.
func (p *Projector) read(ctx context.Context) (string, error) {
	text, err := p.rdb.Get(ctx, p.keys.checkpoint()).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return "", fmt.Errorf("read the checkpoint: %w", err)
	}
	return text, nil
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
