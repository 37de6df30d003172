package eventstore

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"chatsessions/domain"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// probeEvery is how often a Log looks whether the stream is still the one that it knows.
	probeEvery = 500 * time.Millisecond
	// rewrittenAfter is how long probes must find the stream without a known event. A leader
	// that was replaced, or was just elected, may show an old end for a moment.
	rewrittenAfter = 3 * probeEvery
)

// ErrReplaced is returned, together with domain.ErrUnavailable, when the stream is not the
// one that was opened, or does not hold an event that it has held.
var ErrReplaced = errors.New("the log was replaced by another")

// An era is the time in which a Log has one and the same stream.
type era struct {
	created  time.Time // of the stream
	identity string
	newest   atomic.Pointer[domain.Record] // that was seen; only its position and id are used
	ctx      context.Context
	end      context.CancelFunc // ends the era's followers
}

func (l *Log) begin(created time.Time) {
	e := &era{created: created, identity: StreamName + "@" + created.UTC().Format(time.RFC3339Nano)}
	e.newest.Store(&domain.Record{})
	e.ctx, e.end = context.WithCancel(l.ctx)
	l.era.Store(e)
}

// A refusal is the reason why nothing may be written.
type refusal struct {
	err error
	// passes: the next probes end it. Otherwise somebody has to mend the stream.
	passes bool
}

// refused returns why nothing may be written, nil for no reason.
func (l *Log) refused() error {
	if r := l.refusal.Load(); r != nil {
		return r.err
	}
	return nil
}

// refuse refuses writes from now on, until a probe finds the log as it has to be.
func (l *Log) refuse(err error, passes bool) {
	if before := l.refused(); before == nil || before.Error() != err.Error() {
		l.logger.Error("the log is not as it has to be: nothing is written", "error", err)
	}
	l.refusal.Store(&refusal{err, passes})
}

// saw records an event that is in the log.
func (e *era) saw(r *domain.Record) {
	for {
		known := e.newest.Load()
		if known.Position >= r.Position || e.newest.CompareAndSwap(known, r) {
			return
		}
	}
}

// watch probes the stream until the Log is closed.
func (l *Log) watch() {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	var missedSince time.Time // when a known event was first not found
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-tick.C:
		case <-l.alarm:
		}
		ctx, cancel := context.WithTimeout(l.ctx, attemptTimeout)
		missedSince = l.probe(ctx, missedSince)
		cancel()
	}
}

// raiseAlarm asks for a probe at once.
func (l *Log) raiseAlarm() {
	select {
	case l.alarm <- struct{}{}:
	default:
	}
}

// probe checks that the stream is the one that was opened, that its settings are as needed,
// and that it holds the newest known event. missedSince is when earlier probes did not find
// that event, zero if they did; probe returns the new time.
func (l *Log) probe(ctx context.Context, missedSince time.Time) time.Time {
	found := time.Time{}
	now := l.era.Load()
	known := now.newest.Load()
	var info struct {
		Config  jetstream.StreamConfig `json:"config"`
		Created time.Time              `json:"created"`
		State   struct {
			LastSeq uint64 `json:"last_seq"`
		} `json:"state"`
	}
	switch err := l.streamInfo(ctx, apiRequest{}, &info); {
	case hasCode(err, jetstream.JSErrCodeStreamNotFound):
		l.refuse(fmt.Errorf("%w: stream %s is gone", ErrReplaced, StreamName), false)
		return missedSince
	case err != nil: // it cannot be reached, which every write and read finds out
		return missedSince
	}
	needed := StreamConfig(l.options.Replicas)
	needed.Replicas = 0 // an operator may change it while the service runs
	if differences := compare(info.Config, needed); len(differences) > 0 {
		l.refuse(&ConfigError{differences}, false)
		return missedSince
	}
	if !info.Created.Equal(now.created) {
		l.reopen(info.Created, fmt.Errorf("%w: created at %s, not at %s", ErrReplaced, info.Created.Format(time.RFC3339Nano), now.created.Format(time.RFC3339Nano)))
		return found
	}
	if known.Position > 0 {
		id := ""
		if info.State.LastSeq >= known.Position {
			var err error
			if id, err = l.EventID(ctx, known.Position); err != nil {
				return missedSince
			}
		}
		err := fmt.Errorf("%w: it ends at position %d, and event %s at position %d is not there", ErrReplaced, info.State.LastSeq, known.ID, known.Position)
		switch {
		case id == known.ID:
		case id == "" && missedSince.IsZero():
			l.refuse(err, true)
			return time.Now()
		case id == "" && time.Since(missedSince) < rewrittenAfter:
			return missedSince
		default:
			l.reopen(info.Created, err)
			return found
		}
	}
	if info.State.LastSeq > known.Position {
		if id, err := l.EventID(ctx, info.State.LastSeq); err == nil && id != "" {
			now.saw(&domain.Record{ID: id, Position: info.State.LastSeq})
		}
	}
	if l.refusal.Swap(nil) != nil {
		l.logger.Info("the log is as it has to be: writes are accepted again")
	}
	return found
}

// reopen begins a new era: what is remembered of the stream is dropped, and its followers
// end. Writes are refused until the next probe.
func (l *Log) reopen(created time.Time, cause error) {
	l.refuse(cause, true)
	before := l.era.Load()
	l.begin(created)
	l.connections.Add(1) // caches and tickets are of an earlier connection now
	before.end()
	l.raiseAlarm()
}
