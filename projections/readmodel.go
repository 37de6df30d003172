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

// patience is how long a read waits for the read model to become trustworthy
// before it gives up.
const patience = time.Second

// ReadModelOptions are what a read model can be told; the zero value will do.
type ReadModelOptions struct {
	Logger *slog.Logger // slog.Default when nil
	// AskEnd says that other nodes write to the log, and have read models of their own
	// that this one does not hear of: each answer first asks the log for its end.
	AskEnd bool
}

// A ReadModel answers from Redis what the projector wrote there, or not at all:
// an answer holds every write that any node has answered before the question,
// as long as write handlers wait for their position with WaitFor, up to Bound.
type ReadModel struct {
	rdb    redis.UniversalClient
	log    Log
	keys   keyspace
	logger *slog.Logger
	fresh  *freshness
	askEnd bool
	budget int // documents that a list may look at
}

// NewReadModel returns the read model of a log in the Redis of rdb. It answers
// while Run runs.
func NewReadModel(rdb redis.UniversalClient, log Log, opts ReadModelOptions) *ReadModel {
	m := &ReadModel{
		rdb: rdb, log: log, keys: newKeyspace(0), logger: opts.Logger,
		fresh: newFreshness(), askEnd: opts.AskEnd, budget: maxExamined,
	}
	if m.logger == nil {
		m.logger = slog.Default()
	}
	return m
}

// Get returns a session. It returns domain.ErrNotFound only when the read model
// can be trusted to hold every session, and domain.ErrUnavailable when it cannot
// be reached or trusted now.
func (m *ReadModel) Get(ctx context.Context, id string) (domain.Document, error) {
	if !isID(id) {
		return domain.Document{}, domain.ErrNotFound
	}
	var found domain.Document
	err := m.answer(ctx, func(t *ticket) error {
		values, err := m.rdb.MGet(ctx, m.keys.checkpoint(), m.keys.document(id)).Result()
		if err != nil {
			return err
		}
		if _, err := m.trust(t, values[0]); err != nil {
			return err
		}
		value, ok := values[1].(string)
		if !ok {
			return domain.ErrNotFound // the log is asked, before that is believed
		}
		d, err := decodeDocument(value)
		if err != nil {
			return err
		}
		// This session alone, not what others have written since.
		if err := m.log.Durable(ctx, d.position); err != nil {
			return err
		}
		readers, err := d.readers()
		found = domain.Document{JSON: []byte(d.json), Version: d.version, Readers: readers}
		return err
	})
	if err != nil {
		return domain.Document{}, err
	}
	return found, nil
}

// WaitFor returns when the read model has passed the position, with ctx's error when
// that ends first, and with context.DeadlineExceeded when it takes longer than atMost.
func (m *ReadModel) WaitFor(ctx context.Context, position uint64, atMost time.Duration) error {
	w := m.fresh.wait(position)
	if w == nil {
		return nil
	}
	timer := timers.Get().(*time.Timer) // every write waits here
	defer timers.Put(timer)
	timer.Reset(atMost)
	defer timer.Stop()
	var err error
	select {
	case <-w.passed:
		return nil
	case <-timer.C:
		err = context.DeadlineExceeded
	case <-ctx.Done():
		err = ctx.Err()
	}
	m.fresh.forget(w)
	return err
}

// timers are stopped timers.
var timers = sync.Pool{New: func() any {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	return timer
}}

// Observe tells of a position that this node is about to show to a client:
// from now on it gives no answer from a read model that is older.
func (m *ReadModel) Observe(position uint64) { m.fresh.observe(position) }

// Settle returns when no node answers any more from a read model that is older than
// the position, which the log has shown: when the read model has passed it, or every
// node knows better, which takes Bound at most. It returns domain.ErrUnavailable
// when ctx ends first.
func (m *ReadModel) Settle(ctx context.Context, position uint64) error {
	if m.askEnd { // as all nodes do
		return nil
	}
	left := m.fresh.unsettled(position, time.Now())
	if left > 0 && m.WaitFor(ctx, position, left) != nil && ctx.Err() != nil {
		return fmt.Errorf("%w: wait for position %d to be shown: %w", domain.ErrUnavailable, position, ctx.Err())
	}
	return nil
}

// Projected tells of a position that the read model has passed. It is for a
// projector in the same process; see ProjectorOptions.Notify.
func (m *ReadModel) Projected(position uint64) { m.fresh.projected(position) }

// CaughtUp returns when the read model has reached the end that the log had at
// the time of the call and can be trusted, or with ctx's error.
func (m *ReadModel) CaughtUp(ctx context.Context) error {
	end, known := uint64(0), false
	for {
		if !known {
			if asked, err := m.log.End(ctx); err == nil {
				end, known = asked, true
			}
		}
		if known && m.reached(ctx, end) {
			return nil
		}
		if !pause(ctx, pollEvery) {
			return ctx.Err()
		}
	}
}

func (m *ReadModel) reached(ctx context.Context, end uint64) bool {
	t, err := m.ticket()
	if err != nil {
		return false
	}
	t.need = max(t.need, end)
	text, err := m.readCheckpoint(ctx)
	if err != nil {
		return false
	}
	_, err = t.check(text)
	return err == nil
}

// answer reads with a ticket. Where the read model cannot be trusted it waits a
// little for it to become so, and reads once more.
func (m *ReadModel) answer(ctx context.Context, read func(*ticket) error) error {
	end, err := m.endToShow(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", domain.ErrUnavailable, err)
	}
	first, err := m.ticket()
	if err == nil {
		first.need = max(first.need, end)
		err = read(first)
	}
	if errors.Is(err, errUntrusted) && m.awaitTrust(ctx) {
		err = m.readAgain(first, end, read)
	}
	if err == nil || errors.Is(err, domain.ErrNotFound) || errors.Is(err, domain.ErrTooExpensive) {
		return err
	}
	return fmt.Errorf("%w: %w", domain.ErrUnavailable, err)
}

// endToShow asks for the end that the log has now, and waits a little for the read
// model to reach it, where answers have to; 0 where the looks in the background do.
func (m *ReadModel) endToShow(ctx context.Context) (uint64, error) {
	if !m.askEnd {
		return 0, nil
	}
	end, err := m.log.End(ctx)
	if err == nil {
		_ = m.WaitFor(ctx, end, patience) // if not, the read says so
	}
	return end, err
}

// readAgain reads for a question that was put when the first ticket was drawn, nil
// if none could be: what has been answered since then need not be in it.
func (m *ReadModel) readAgain(first *ticket, end uint64, read func(*ticket) error) error {
	again, err := m.ticket()
	if err != nil {
		return err
	}
	if first != nil {
		again.need = min(again.need, first.need)
	}
	again.need = max(again.need, end)
	return read(again)
}

func (m *ReadModel) ticket() (*ticket, error) {
	return m.fresh.ticket(m.log.Identity(), time.Now())
}

// awaitTrust waits until an answer would be trusted, at most for patience.
func (m *ReadModel) awaitTrust(ctx context.Context) bool {
	healed, done := m.fresh.awaitHealing()
	defer done()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-healed:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// trust judges the checkpoint that came with an answer, and returns its position.
// What the same request reads later must not be older.
func (m *ReadModel) trust(t *ticket, reply any) (position uint64, err error) {
	text, _ := reply.(string)
	c, err := t.check(text)
	m.note(text)
	if err == nil {
		t.need = c.position
	}
	return c.position, err
}

// check is trust, for an answer that rests on everything up to the checkpoint. That
// may not be durable yet; nobody is to see it before it is.
func (m *ReadModel) check(ctx context.Context, t *ticket, reply any) error {
	position, err := m.trust(t, reply)
	if err != nil {
		return err
	}
	return m.log.Durable(ctx, position)
}
