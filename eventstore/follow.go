package eventstore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"chatsessions/domain"
	"chatsessions/eventstore/envelope"

	"github.com/nats-io/nats.go"
)

const (
	// cutAfter is how long a follower waits for the rest of an atomic write before it logs
	// that the rest is missing.
	cutAfter = 5 * time.Second
	// silenceAfter is how long nothing comes before the end of the log until a follower asks
	// whether anything is left.
	silenceAfter = 500 * time.Millisecond
	// interruptionPatience is how long a Read retries after an interruption.
	interruptionPatience = 30 * time.Second
)

// ErrRewritten is returned when the log no longer holds an event that was read from it: it
// was restored from an older copy.
var ErrRewritten = errors.New("the log was rewritten: it does not hold what was read of it")

// errReconnected ends a consumer that was created over an earlier connection.
var errReconnected = errors.New("the connection was lost and is back")

// Follow gives every event after a position to handle, in the order of the log, and the new
// ones as they arrive. A batch is what is available, about limit events at most, and never a
// part of an atomic write. The events may not be durable yet: call Durable before you show
// them. A message that is not an event comes with an UnreadableError.
//
// Follow recovers from lost connections. It returns when ctx or the Log ends (with ctx's
// error), when the connection is closed for good (with domain.ErrUnavailable), when handle
// fails (with that error, wrapped), with ErrReplaced, and with ErrRewritten.
func (l *Log) Follow(ctx context.Context, after uint64, limit int, handle func([]domain.Entry) error) error {
	return l.follow(ctx, &follower{
		log: l, subject: allSubjects, position: after, upTo: math.MaxUint64, limit: limit,
		handle: decoded(handle), handleTail: handle,
	})
}

// Read is Follow up to a position, which has to be in the log. It also returns
// domain.ErrUnavailable when nothing comes for half a minute after an interruption.
func (l *Log) Read(ctx context.Context, after, upTo uint64, limit int, handle func([]domain.Entry) error) error {
	return l.read(ctx, allSubjects, after, upTo, limit, handle)
}

// read is Read for the messages on a subject, one of which is at the position upTo.
func (l *Log) read(ctx context.Context, subject string, after, upTo uint64, limit int, handle func([]domain.Entry) error) error {
	return l.follow(ctx, &follower{
		log: l, subject: subject, position: after, upTo: upTo, limit: limit, patience: l.patience, handle: decoded(handle),
	})
}

// ReadMessages is Follow for every message up to a position, which has to be in the log. It
// gives batches of limit, without regard to atomic writes.
func (l *Log) ReadMessages(ctx context.Context, upTo uint64, limit int, handle func([]*envelope.Message) error) error {
	return l.follow(ctx, &follower{log: l, subject: allSubjects, upTo: upTo, limit: limit, raw: true, handle: handle})
}

// Newest gives the newest event of every session to handle as Follow does. It returns the
// position up to which that is complete, 0 for an empty log. A session that is written in
// the meantime may be handed over more than once. The cost depends on the number of
// sessions, not on the length of their histories. Newest fails when the connection breaks,
// with handle's error, and with ctx's.
func (l *Log) Newest(ctx context.Context, limit int, handle func([]domain.Entry) error) (end uint64, err error) {
	f := &follower{log: l, subject: allSubjects, newest: true, upTo: math.MaxUint64, limit: limit, raw: true, handle: decoded(handle)}
	if err := f.readConsumer(ctx, nil); err != nil {
		return 0, fmt.Errorf("newest events: %w", err)
	}
	return f.upTo, nil
}

// decoded returns a handler of messages that decodes them for a handler of events.
func decoded(handle func([]domain.Entry) error) func([]*envelope.Message) error {
	return func(messages []*envelope.Message) error {
		entries := make([]domain.Entry, len(messages))
		for i, m := range messages {
			entries[i] = envelope.Entry(m)
		}
		return handle(entries)
	}
}

// A handleError is an error of the handler, as opposed to one of the log.
type handleError struct{ err error }

func (e *handleError) Error() string { return e.err.Error() }
func (e *handleError) Unwrap() error { return e.err }

// A follower reads the log, from a position to the end or for good.
type follower struct {
	log      *Log
	subject  string
	newest   bool          // reads the newest message of each subject
	raw      bool          // hands over full batches of messages, even if that cuts an atomic write
	upTo     uint64        // at this position it ends, even within an atomic write
	limit    int           // of a batch, about
	patience time.Duration // with an interruption; 0 for any

	handle     func([]*envelope.Message) error // owns the slice
	handleTail func([]domain.Entry) error      // owns the slice; nil for a follower that does not use the tail

	position uint64 // of the last message that was handled, or where to start
	resumes  bool   // that message was handled here and has lastID, so the log still has to hold it
	lastID   string

	pending []*envelope.Message // read and not handled
	whole   int                 // how many of the pending end with a whole write
	read    uint64              // position of the last message that was read
}

// follow runs a follower until it ends. It retries after interruptions.
func (l *Log) follow(ctx context.Context, f *follower) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l.mu.Lock()
	if l.ctx.Err() != nil {
		l.mu.Unlock()
		return fmt.Errorf("read the log: it is closed: %w", l.ctx.Err())
	}
	l.follows.Add(1)
	l.mu.Unlock()
	defer l.follows.Done()
	era := l.era.Load()
	defer context.AfterFunc(era.ctx, cancel)()

	var pause backoff
	var interrupted time.Time // when messages stopped coming
	for f.position < f.upTo {
		before := f.position
		err := f.run(ctx)
		if err == nil {
			return nil
		}
		if era.ctx.Err() != nil && l.ctx.Err() == nil {
			return fmt.Errorf("read the log: %w", ErrReplaced)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var failed *handleError
		if errors.As(err, &failed) || errors.Is(err, ErrReplaced) || errors.Is(err, ErrRewritten) {
			return fmt.Errorf("read the log: %w", err)
		}
		if l.offline != nil {
			return unavailable("read the log", err)
		}
		if l.nc.IsClosed() {
			return unavailable("read the log", nats.ErrConnectionClosed)
		}
		if f.position > before {
			pause, interrupted = backoff{}, time.Time{}
		}
		if first := interrupted.IsZero(); first || f.patience == 0 {
			l.logger.Warn("reading the log was interrupted", "position", f.position, "error", err)
			if first {
				interrupted = time.Now()
			}
		}
		if waited := time.Since(interrupted); f.patience > 0 && waited > f.patience {
			return unavailable(fmt.Sprintf("read the log: nothing came after position %d for %s", f.position, waited.Round(time.Second)), err)
		}
		if pause.wait(ctx) != nil {
			return ctx.Err()
		}
	}
	return nil
}

// run reads the log until it reaches upTo, or something breaks, from a consumer and the tail
// in turn.
func (f *follower) run(ctx context.Context) error {
	if f.log.tail == nil || f.handleTail == nil {
		return f.readConsumer(ctx, nil)
	}
	recent := f.log.tail.open()
	defer recent.close()
	for {
		if err := f.readConsumer(ctx, recent); err != nil {
			return err
		}
		if err := f.readTail(ctx, recent); err != nil {
			return err
		}
	}
}

// readConsumer reads through one consumer until something breaks. It returns nil when it
// reaches upTo, or the tail continues from here.
func (f *follower) readConsumer(ctx context.Context, recent *tailReader) error {
	f.pending, f.whole, f.read = nil, 0, f.position
	// A server that is back may have lost the consumer; its missing heartbeats take seconds.
	var restored, lost chan nats.Status // nil for a stopped log; lost also for a follower with any patience
	nc := f.log.nc
	if nc != nil {
		restored = nc.StatusChanged(nats.CONNECTED)
		defer nc.RemoveStatusListener(restored)
	}
	if nc != nil && f.patience > 0 {
		lost = nc.StatusChanged(nats.RECONNECTING, nats.CLOSED)
		defer nc.RemoveStatusListener(lost)
	}
	start, repeated := f.position+1, false
	switch {
	case f.newest:
		start = newestOfEach
	case f.resumes: // the last message comes once more
		start, repeated = f.position, true
	}
	messages, stop, err := f.log.consume(ctx, f.subject, start)
	if err != nil {
		return err
	}
	defer stop()
	if f.newest {
		// Not earlier: the consumer may have left out a message for a newer one.
		if f.upTo, err = f.log.LastSequence(ctx); err != nil {
			return err
		}
	}
	for f.read < f.upTo {
		var next delivery
		select {
		case next = <-messages:
		default:
			if continues, err := f.idle(ctx, recent); continues || err != nil {
				return err
			}
			if next, err = f.wait(ctx, messages, restored, lost); err != nil {
				return err
			}
		}
		switch {
		case !errors.Is(next.err, ErrNoMessage):
		case f.upTo != math.MaxUint64:
			return f.endInGap()
		case f.log.offline != nil: // a stopped log has no more
			<-ctx.Done()
			return ctx.Err()
		}
		if next.err != nil {
			return next.err
		}
		if repeated {
			if next.msg.Sequence != f.position || next.msg.Header.Get(envelope.HeaderID) != f.lastID {
				return fmt.Errorf("%w: position %d", ErrRewritten, f.position)
			}
			repeated = false
			continue
		}
		if err := f.take(next.msg); err != nil {
			return err
		}
		if f.whole >= f.limit || f.read >= f.upTo {
			if err := f.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// endInGap ends the follower of a log that has no message from here to upTo: a salvaged log
// may have lost its last events.
func (f *follower) endInGap() error {
	if f.subject != allSubjects {
		return fmt.Errorf("%w after position %d, up to %d", ErrNoMessage, f.read, f.upTo)
	}
	if !f.raw {
		f.pending = append(f.pending, &envelope.Message{GapFrom: f.read + 1, Sequence: f.upTo})
	}
	f.read, f.whole = f.upTo, len(f.pending)
	return f.flush()
}

// hasNoMore reports whether the log has no message from here to upTo.
func (f *follower) hasNoMore(ctx context.Context) bool {
	m, err := f.log.get(ctx, leader, apiRequest{Sequence: f.read + 1, NextFor: f.subject})
	if end, failed := f.log.LastSequence(ctx); failed != nil || end < f.upTo { // of a leader that is behind
		return false
	}
	return errors.Is(err, ErrNoMessage) || err == nil && m.Sequence > f.upTo
}

// idle is for the moment when no message is available. It hands over what is pending, and
// reports whether the tail continues from here: it has the next event, or will have it.
func (f *follower) idle(ctx context.Context, recent *tailReader) (tailContinues bool, err error) {
	if f.raw {
		return false, nil
	}
	if err := f.flush(); err != nil || recent == nil || len(f.pending) > 0 {
		return false, err
	}
	if recent.skip(f.read) {
		return true, nil
	}
	end, err := f.log.LastSequence(ctx)
	return end == f.read, err
}

// wait returns the next delivery.
func (f *follower) wait(ctx context.Context, messages <-chan delivery, restored, lost <-chan nats.Status) (delivery, error) {
	var cut, silence <-chan time.Time
	if !f.raw && len(f.pending) > 0 {
		cut = time.Tick(cutAfter)
	}
	if f.upTo != math.MaxUint64 && f.log.offline == nil {
		silence = time.Tick(silenceAfter)
	}
	for {
		select {
		case next := <-messages:
			return next, nil
		case <-silence:
			if f.hasNoMore(ctx) {
				return delivery{err: ErrNoMessage}, nil
			}
		case <-cut:
			first := f.pending[0]
			f.log.logger.Error("the log has a part of a write, and not the rest: nothing after it can be read", "session", envelope.SessionID(first.Subject), "position", first.Sequence)
		case <-restored:
			return delivery{}, errReconnected
		case <-lost:
			return delivery{}, nats.ErrDisconnected
		case <-ctx.Done():
			return delivery{}, ctx.Err()
		}
	}
}

// take adds a message to the pending ones.
func (f *follower) take(m *envelope.Message) error {
	if m.Sequence <= f.read {
		return fmt.Errorf("message %d came after %d", m.Sequence, f.read)
	}
	if !f.raw && f.subject == allSubjects && m.Sequence > f.read+1 {
		f.pending = append(f.pending, &envelope.Message{GapFrom: f.read + 1, Sequence: min(m.Sequence-1, f.upTo)})
	}
	f.read = m.Sequence
	if m.Sequence <= f.upTo {
		f.pending = append(f.pending, m)
	}
	if f.raw || f.read >= f.upTo || !m.WriteContinues() {
		f.whole = len(f.pending)
	}
	return nil
}

// flush hands over the pending messages up to the last whole write.
func (f *follower) flush() error {
	if f.whole == 0 {
		return nil
	}
	batch := f.pending[:f.whole:f.whole]
	if err := f.handle(batch); err != nil {
		return &handleError{err}
	}
	last := batch[len(batch)-1]
	f.handled(last.Sequence, last.Header.Get(envelope.HeaderID))
	f.resumes = last.GapFrom == 0
	f.pending = append([]*envelope.Message(nil), f.pending[f.whole:]...)
	f.whole = 0
	return nil
}

func (f *follower) handled(position uint64, id string) {
	f.position, f.lastID, f.resumes = position, id, true
}

// readTail reads the tail until something breaks, or until the log has an event that the
// tail does not have; then it returns nil. Nothing is pending before and after it.
func (f *follower) readTail(ctx context.Context, recent *tailReader) error {
	recent.skip(f.read)
	check := time.NewTicker(recent.tail.check)
	defer check.Stop()
	idle := false                    // nothing came since the last check
	behind := uint64(math.MaxUint64) // where the follower stood when the log went further
	var missing <-chan time.Time     // when an event has been missing for too long
	for {
		batch, gap := recent.take(f.limit)
		if len(batch) > 0 {
			if err := f.handleTail(batch); err != nil {
				return &handleError{err}
			}
			last := batch[len(batch)-1].Record
			f.handled(last.Position, last.ID)
			f.read = last.Position
			idle, missing = false, nil
			continue
		}
		if gap && missing == nil {
			missing = time.After(recent.tail.patience)
		}
		select {
		case <-recent.more:
		case <-missing: // its acknowledgement never came
			return nil
		case <-check.C:
			if !idle {
				idle = true
				continue
			}
			end, err := f.log.LastSequence(ctx)
			if err != nil {
				return err
			}
			switch {
			case end <= f.read:
				behind = math.MaxUint64
			case behind == f.read:
				return nil
			default: // its acknowledgement may be on its way
				behind = f.read
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
