package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"chatsessions/domain"
	"chatsessions/projections"
	"chatsessions/projections/layout"
)

// Log is what an audit needs of the event log.
type Log interface {
	projections.Log
	// Load returns a session's newest event, as the log's leader has it. It returns
	// domain.ErrNotFound for a session without events, and an error that is
	// domain.ErrUnreadable where the newest message is not an event.
	Load(ctx context.Context, id string) (*domain.Record, error)
}

// A Difference is a place where the live read model does not match the log.
type Difference struct {
	SessionID string `json:"sessionId"`
	// Index is the name of an index, "" for the session's document.
	Index    string `json:"index,omitempty"`
	Position uint64 `json:"position,omitempty"` // in the log, of the session's newest event
	Detail   string `json:"detail"`
}

// Options configure an audit. The zero value works.
type Options struct {
	Partitions int // of the read model; 0 is one
	// Difference, if set, receives each difference once. Its error ends the audit.
	Difference func(Difference) error
	// Parked, if set, receives each session that is rightly parked. Its error ends the audit.
	Parked func(layout.Parked) error
	// Progress, if set, receives a stage's progress in keys of Redis; total 0 is unknown.
	Progress func(s Stage, done, total uint64)
	// Pace, if set, is called before n more keys are read.
	Pace func(ctx context.Context, n int) error
	// Slow, if set, is called repeatedly while the read model takes long to reach an event.
	Slow func()

	patience time.Duration // defaultPatience, or a test's
}

// A Stage is a part of an audit that follows the reading of the log.
type Stage int

// The stages, in their order.
const (
	Counting Stage = iota // the keys of the read model
	Checking              // the suspects among them; skipped when the counts match
)

// A Result is the outcome of an audit.
type Result struct {
	Position    uint64 // the end of the log when the audit began
	Sessions    uint64 // that the read model has to show at that position
	Differences uint64
	Parked      uint64 // sessions that are rightly parked
}

const (
	// defaultPatience is how long the read model may take to reach an event before it
	// counts as left behind.
	defaultPatience = 10 * time.Second
	slowAfter       = 2 * time.Second // before Options.Slow is called
	pollEvery       = 5 * time.Millisecond
	// maxReported bounds the differences that are remembered so that each is reported once.
	maxReported = 100_000
)

// Compare takes sessions of the log, each as an event left it.
type Compare = func(context.Context, []domain.Entry) error

// Run compares the live read model with the log. read hands every session of the log to
// compare, in its newest state; older states may come before. Both log and read model may
// change meanwhile.
//
// It returns an error when there is no read model to compare (none, a PartitionsError,
// ErrOtherLog, one that is being filled), and when the comparison could not be completed.
func Run(ctx context.Context, rdb redis.UniversalClient, log Log, opts Options, read func(context.Context, Compare) error) (Result, error) {
	opts.patience = cmp.Or(opts.patience, defaultPatience)
	seed := maphash.MakeSeed()
	a := &audit{
		opts: opts, rdb: rdb, log: log,
		expected: newTally(seed), found: newTally(seed), reported: map[Difference]struct{}{},
	}
	if err := a.open(ctx); err != nil {
		return a.result, fmt.Errorf("compare the read model: %w", err)
	}
	if err := a.readAll(ctx, read); err != nil {
		return a.result, err
	}
	if err := a.finish(ctx); err != nil {
		return a.result, fmt.Errorf("compare the read model: %w", err)
	}
	return a.result, nil
}

// An audit is one call of Run.
type audit struct {
	opts       Options
	rdb        redis.UniversalClient
	log        Log
	partitions []*partition
	reported   map[Difference]struct{}
	result     Result

	expected tally       // belongs to the goroutine that compares sessions
	found    tally       // belongs to the goroutine that counts keys
	odd      bool        // that goroutine saw a key or a member that no session can have
	read     atomic.Bool // all sessions of the log have been handed over
}

// A partition is one partition of the read model under audit.
type partition struct {
	audit    *audit
	keys     layout.Keyspace
	behind   bool // it does not reach the end of the log, which has been reported
	suspects map[suspect]struct{}
}

// open finds the live generations, and waits until they have reached the end of the log.
func (a *audit) open(ctx context.Context) (err error) {
	if a.result.Position, err = a.log.End(ctx); err != nil {
		return err
	}
	for _, part := range layout.Partitions(a.opts.Partitions) {
		c, err := projections.Live(ctx, a.rdb, part)
		switch {
		case err != nil:
			return err
		case c.Identity != a.log.Identity():
			return fmt.Errorf("%w: %s, and the log is %s", projections.ErrOtherLog, c.Identity, a.log.Identity())
		case c.State != layout.Projected:
			return errors.New("the read model is being filled: try again when the service is ready")
		}
		found, err := projections.LogHolds(ctx, a.log, c)
		if err != nil {
			return err
		}
		if !found {
			err = a.report(Difference{Position: c.Position, Detail: "the log does not hold the event up to which the read model was made: the log was restored from an older copy"})
		}
		p := &partition{audit: a, keys: part.Keys(c.Generation), suspects: map[suspect]struct{}{}}
		if err == nil {
			err = p.reach(ctx, a.result.Position)
		}
		if err != nil {
			return err
		}
		a.partitions = append(a.partitions, p)
	}
	return nil
}

// readAll compares every session that read hands over, and at the same time counts the
// keys of the read model: Redis has a processor of its own.
func (a *audit) readAll(ctx context.Context, read func(context.Context, Compare) error) error {
	sessions := make(chan []domain.Entry, 1)
	all, ctx := errgroup.WithContext(ctx)
	all.Go(func() error {
		defer close(sessions)
		return read(ctx, func(ctx context.Context, batch []domain.Entry) error {
			select {
			case sessions <- batch:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
	})
	all.Go(func() error {
		for batch := range sessions {
			if err := a.compare(ctx, batch); err != nil {
				return fmt.Errorf("compare the read model: %w", err)
			}
		}
		a.read.Store(true)
		return nil
	})
	all.Go(func() error {
		for _, p := range a.partitions {
			if err := p.count(ctx); err != nil {
				return fmt.Errorf("count the keys of the read model: %w", err)
			}
		}
		return nil
	})
	return all.Wait()
}

// finish judges everything that is still suspect.
func (a *audit) finish(ctx context.Context) error {
	again := a.odd || a.expected.differs(a.found)
	for _, p := range a.partitions {
		if again {
			if err := p.check(ctx); err != nil {
				return err
			}
		}
		if err := p.suspectParked(ctx); err != nil {
			return err
		}
		if err := p.resolve(ctx); err != nil {
			return err
		}
	}
	for _, p := range a.partitions { // a generation that was removed has nothing left to differ
		if _, err := p.checkpoint(ctx); err != nil {
			return err
		}
	}
	return nil
}

// reach waits until the partition has reached a position, and reports that it does not.
func (p *partition) reach(ctx context.Context, position uint64) error {
	for since := time.Now(); !p.behind; {
		c, err := p.checkpoint(ctx)
		if err != nil || c.Position >= position {
			return err
		}
		if waited := time.Since(since); waited > p.audit.opts.patience {
			p.behind = true
			return p.audit.report(Difference{
				Position: c.Position,
				Detail:   fmt.Sprintf("the read model is at position %d, and the log at %d: is a projector at work? Sessions that were written since are not reported one by one", c.Position, position),
			})
		} else if waited > slowAfter && p.audit.opts.Slow != nil {
			p.audit.opts.Slow()
		}
		if !projections.Pause(ctx, pollEvery) {
			return context.Cause(ctx)
		}
	}
	return nil
}

// checkpoint reads the partition's checkpoint, which still has to name the same generation.
func (p *partition) checkpoint(ctx context.Context) (layout.Checkpoint, error) {
	text, err := projections.ReadText(ctx, p.audit.rdb, p.keys.Partition.Checkpoint())
	if err != nil {
		return layout.Checkpoint{}, err
	}
	return p.parse(text)
}

func (p *partition) parse(text string) (layout.Checkpoint, error) {
	c, ok := layout.ParseCheckpoint(text)
	if !ok || c.Generation != p.keys.Generation || c.State != layout.Projected {
		return c, fmt.Errorf("the read model was replaced during the comparison (checkpoint %q): run this again", text)
	}
	return c, nil
}

// isNew notes a difference, and reports whether it was unknown.
func (a *audit) isNew(d Difference) bool {
	_, known := a.reported[d]
	if !known && len(a.reported) < maxReported {
		a.reported[d] = struct{}{}
	}
	return !known
}

func (a *audit) report(d Difference) error {
	if !a.isNew(d) {
		return nil
	}
	a.result.Differences++
	if a.opts.Difference == nil {
		return nil
	}
	return a.opts.Difference(d)
}

func (a *audit) reportParked(parked layout.Parked) error {
	if !a.isNew(Difference{SessionID: parked.SessionID, Position: parked.Position, Detail: parked.Reason}) {
		return nil
	}
	a.result.Parked++
	if a.opts.Parked == nil {
		return nil
	}
	return a.opts.Parked(parked)
}
