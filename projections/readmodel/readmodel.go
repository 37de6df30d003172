package readmodel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"chatsessions/domain"
	"chatsessions/domain/query"
	"chatsessions/projections"
	"chatsessions/projections/layout"
)

// patience is how long a read waits for the read model to become trustworthy.
const patience = time.Second

// Options configure a read model. The zero value is usable.
type Options struct {
	Logger *slog.Logger // slog.Default when nil
	// Partitions is how many the read model has (0: one), the same for every process.
	Partitions int
	// Private says that only this process uses this Redis, which ends with the process.
	Private bool
	// CheckEviction says that this Redis may be one that drops keys to make room. Each probe
	// asks, and nothing is answered from one that does; see projections.CheckEviction.
	CheckEviction bool
	// AskEnd says that other nodes write to the log and have read models of their own. Each
	// answer first asks the log for its end.
	AskEnd bool
	// Writes returns the number of commands in flight; nil for none. Lists yield to them.
	Writes func() int
	// Connections, if not nil, counts the connections made to Redis and to the log. A new
	// one may lead to an older copy of either.
	Connections func() uint64
}

// A ReadModel answers from what the projector wrote to Redis, or refuses. Every answer
// holds every write that any node answered before the question.
type ReadModel struct {
	rdb           redis.UniversalClient
	trips         []*trips // by partition
	log           projections.Log
	partitions    []layout.Partition
	allPartitions []int   // every partition
	onePartition  [][]int // for each partition, a list of it alone
	logger        *slog.Logger
	fresh         *freshness
	private       bool
	checkEviction bool
	askEnd        bool
	connections   func() uint64
	others        otherLayouts
	comparedEpoch uint64 // connections when the checkpoints were last compared with the log
	budget        int    // index entries that a list may examine
	pacer         *pacer
	lists         *sharedLists
}

// New returns the read model of a log. It answers while Run runs.
func New(rdb redis.UniversalClient, log projections.Log, opts Options) *ReadModel {
	m := &ReadModel{
		rdb: rdb, log: log, partitions: layout.Partitions(opts.Partitions), logger: opts.Logger,
		private: opts.Private, checkEviction: opts.CheckEviction, askEnd: opts.AskEnd, connections: opts.Connections, comparedEpoch: math.MaxUint64, budget: maxExamined,
		pacer: newPacer(opts.Writes), lists: newSharedLists(),
	}
	m.fresh = newFreshness(len(m.partitions))
	for i := range m.partitions {
		m.allPartitions = append(m.allPartitions, i)
		m.onePartition = append(m.onePartition, []int{i})
		m.trips = append(m.trips, &trips{rdb: rdb, checkpoint: m.partitions[i].Checkpoint()})
	}
	if m.logger == nil {
		m.logger = slog.Default()
	}
	if m.connections == nil {
		m.connections = func() uint64 { return 0 }
	}
	return m
}

// Get returns a session, and whether the account may see it; "" may see all. It returns
// domain.ErrNotFound if the read model does not hold the session, and
// domain.ErrUnavailable if the read model cannot be reached or trusted now.
func (m *ReadModel) Get(ctx context.Context, id, account string) (query.Document, error) {
	if !layout.IsID(id) {
		return query.Document{}, domain.ErrNotFound
	}
	var found query.Document
	err := m.answer(ctx, m.onePartition[layout.PartitionNumber(id, len(m.partitions))], func(views []*view) error {
		v := views[0]
		checkpoint, value, err := m.trips[v.keys.Partition.Number].get(v.keys.Document(id))
		if err != nil {
			return err
		}
		if _, err := m.trustCheckpoint(v, checkpoint); err != nil {
			return err
		}
		if value == "" {
			return domain.ErrNotFound // the caller checks the log before it answers this
		}
		d, err := layout.DecodeDocument(value)
		if err != nil {
			return err
		}
		// Wait for this session only, not for what others have written since.
		if err := m.log.Durable(ctx, d.Position); err != nil {
			return err
		}
		found = query.Document{JSON: d.JSON, Version: d.Version, Visible: account == ""}
		if account != "" {
			found.Visible, err = d.VisibleTo(account)
		}
		return err
	})
	if err != nil {
		return query.Document{}, err
	}
	return found, nil
}

// WaitFor returns nil when the read model has passed the position and nodes with another
// layout know of this one, ctx's error if ctx ends first, and context.DeadlineExceeded
// after atMost.
func (m *ReadModel) WaitFor(ctx context.Context, position uint64, atMost time.Duration) error {
	w := m.fresh.wait(position)
	if w == nil && m.isEverywhere(position) {
		return nil
	}
	timer := timers.Get().(*time.Timer) // pooled, because every write waits here
	defer timers.Put(timer)
	timer.Reset(atMost)
	defer timer.Stop()
	if w != nil {
		select {
		case <-w.passed:
		case <-timer.C:
			m.fresh.forget(w)
			return context.DeadlineExceeded
		case <-ctx.Done():
			m.fresh.forget(w)
			return ctx.Err()
		}
	}
	for !m.isEverywhere(position) {
		select {
		case <-time.After(noticeEvery):
		case <-timer.C:
			return context.DeadlineExceeded
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// isEverywhere reports whether no node answers without a position that this read model
// has passed.
func (m *ReadModel) isEverywhere(position uint64) bool {
	now := time.Now()
	return m.isKnown(now) || m.fresh.staleFor(position, now, true) == 0
}

// timers holds stopped timers.
var timers = sync.Pool{New: func() any {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	return timer
}}

// Observe records a position that this node is about to show a client. It gives no answer
// from an older read model afterwards.
func (m *ReadModel) Observe(position uint64) { m.fresh.recordShown(position) }

// AwaitEverywhere returns when no node answers from a read model older than the position,
// which the log has shown. That is when this read model has passed it, or when every node
// has probed the log since, which takes projections.Bound at most. It returns
// domain.ErrUnavailable if ctx ends first.
func (m *ReadModel) AwaitEverywhere(ctx context.Context, position uint64) error {
	now := time.Now()
	known := m.isKnown(now)
	if known && m.askEnd { // all nodes then ask the log first
		return nil
	}
	left := m.fresh.staleFor(position, now, !known)
	if left > 0 && m.WaitFor(ctx, position, left) != nil && ctx.Err() != nil {
		return fmt.Errorf("%w: wait for position %d to be shown: %w", domain.ErrUnavailable, position, ctx.Err())
	}
	return nil
}

// Projected records a position that a partition has passed: see projector.Options.Notify.
func (m *ReadModel) Projected(partition int, position uint64) {
	m.fresh.recordProjected(partition, "", position)
}

// CaughtUp returns nil when the read model has reached the log's end as of the call, can
// be trusted, and is known to every other node. It returns ctx's error if ctx ends first.
func (m *ReadModel) CaughtUp(ctx context.Context) error {
	end, failed := m.log.End(ctx)
	for {
		if failed != nil {
			end, failed = m.log.End(ctx)
		} else if m.isKnown(time.Now()) {
			if texts, err := m.readCheckpoints(ctx); err == nil && m.trusted(texts, end) {
				return nil
			}
		}
		if !projections.Pause(ctx, noticeEvery) {
			return ctx.Err()
		}
	}
}

func (m *ReadModel) isKnown(now time.Time) bool { return m.private || m.others.isKnown(now) }

// A Status is the progress of log and read model at the last probe. Probes run several
// times a second.
type Status struct {
	// End is the position of the log's newest event.
	End uint64
	// Projected is the position shortly before the probe, 0 without a usable read model.
	Projected uint64
	// Parked is the number of parked sessions.
	Parked int64
	// Trusted reports whether an answer from the read model would have been given.
	Trusted bool
}

// Status returns the progress of log and read model without asking them.
func (m *ReadModel) Status() Status { return m.fresh.status(time.Now()) }

// A view is one partition as one request reads it.
type view struct {
	keys   layout.Keyspace
	ticket ticket
}

// views returns the partitions for a read that begins now.
func (m *ReadModel) views(partitions []int) ([]*view, error) {
	views := make([]*view, len(partitions))
	epoch, now := m.connections(), time.Now()
	if !m.private && !m.others.mayRead(now) {
		return nil, fmt.Errorf("%w: nodes with another layout may not know of this one", errUntrusted)
	}
	for i, n := range partitions {
		t, err := m.fresh.ticket(n, m.log.Identity(), epoch, now)
		if err != nil {
			return nil, err
		}
		views[i] = &view{m.partitions[n].Keys(t.generation), t}
	}
	return views, nil
}

// answer reads some partitions. If they cannot be trusted, it waits up to patience for
// them and reads again.
func (m *ReadModel) answer(ctx context.Context, partitions []int, read func([]*view) error) error {
	end, err := m.endToShow(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", domain.ErrUnavailable, err)
	}
	var first []*view // as of the question: the answer need not hold later writes
	patient := time.Now().Add(patience)
	for {
		views, err := m.views(partitions)
		if err == nil {
			if first == nil || first[0].ticket.epoch != views[0].ticket.epoch {
				first = views
			}
			for i, v := range views {
				v.ticket.need = max(min(v.ticket.need, first[i].ticket.need), end)
			}
			err = read(views)
		}
		switch {
		case errors.Is(err, errMoved) && time.Now().Before(patient):
			continue
		case errors.Is(err, errUntrusted) && m.awaitTrust(ctx, time.Until(patient)):
			continue
		case err == nil, errors.Is(err, domain.ErrNotFound), errors.Is(err, domain.ErrTooExpensive), errors.Is(err, domain.ErrBusy):
			return err
		}
		return fmt.Errorf("%w: %w", domain.ErrUnavailable, err)
	}
}

// endToShow returns the log's end, after it waited a little for the read model to reach
// it. It returns 0 if the probes in the background suffice.
func (m *ReadModel) endToShow(ctx context.Context) (uint64, error) {
	if !m.asksEnd() {
		return 0, nil
	}
	end, err := m.log.End(ctx)
	if err == nil {
		_ = m.WaitFor(ctx, end, patience) // a failure shows in the read
	}
	return end, err
}

func (m *ReadModel) asksEnd() bool { return m.askEnd || m.others.shareLog() }

// awaitTrust waits until answers would be trusted, at most that long.
func (m *ReadModel) awaitTrust(ctx context.Context, atMost time.Duration) bool {
	if atMost <= 0 {
		return false
	}
	healed, done := m.fresh.awaitTrusted()
	defer done()
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	select {
	case <-healed:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// trustCheckpoint checks the checkpoint that came with an answer and returns its
// position. Later reads of the same request must not be older.
func (m *ReadModel) trustCheckpoint(v *view, text string) (position uint64, err error) {
	c, err := v.ticket.check(text)
	m.learn(v.keys.Partition.Number, c)
	if err == nil && v.ticket.epoch != m.connections() {
		err = fmt.Errorf("%w: there is a new connection, perhaps to another server", errUntrusted)
	}
	if err == nil {
		v.ticket.need = c.Position
	}
	return c.Position, err
}

// trustDurable is trustCheckpoint for an answer that rests on everything up to the
// checkpoint. It waits until that is durable.
func (m *ReadModel) trustDurable(ctx context.Context, v *view, reply any) error {
	text, _ := reply.(string)
	position, err := m.trustCheckpoint(v, text)
	if err != nil {
		return err
	}
	return m.log.Durable(ctx, position)
}
