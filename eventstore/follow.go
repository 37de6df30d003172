package eventstore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"chatsessions/domain"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
)

const (
	// feedHeartbeat is how often the server says that it has nothing to say; two
	// missing ones and the consumer is made anew.
	feedHeartbeat = time.Second
	// consumerTimeout bounds one attempt to make a consumer, which a cluster has to
	// agree on.
	consumerTimeout = 2 * time.Second
	// newestTimeout bounds one that the server looks up subjects for.
	newestTimeout = 30 * time.Second
	// feedInactive is how long the server keeps a consumer that nobody reads.
	feedInactive = time.Minute
	// cutAfter is how long the rest of an atomic write is waited for until that is
	// said.
	cutAfter = 5 * time.Second
	// feedBuffer is how many messages the server sends ahead.
	feedBuffer = 1024
)

// readGivesUp is how long a Read tries to go on where it was interrupted. A variable
// because of tests.
var readGivesUp = 30 * time.Second

// Follow gives every event after a position to handle, in the order of the log:
// those that are there, and then the new ones as they arrive. A batch is what is
// there, about limit events at most; it never holds a part of an atomic write
// only. handle is called by one goroutine, with events that may not be durable yet:
// whoever shows them to anybody calls Durable before.
//
// Follow makes good for lost connections by itself. It returns when ctx or the
// Log ends (with ctx's error), when the connection is closed for good (with
// domain.ErrUnavailable), when handle fails (with that error, wrapped), with
// ErrReplaced, and with ErrRewritten. A message that is not an event is handed over as such, with an
// UnreadableError.
func (l *Log) Follow(ctx context.Context, after uint64, limit int, handle func([]domain.Entry) error) error {
	return l.follow(ctx, &follower{log: l, subject: allSubjects, position: after, upTo: math.MaxUint64, limit: max(limit, 1), handle: handle})
}

func (l *Log) follow(ctx context.Context, f *follower) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l.mu.Lock()
	if l.ctx.Err() != nil {
		l.mu.Unlock()
		return fmt.Errorf("follow: the log is closed: %w", l.ctx.Err())
	}
	l.follows.Add(1)
	l.mu.Unlock()
	defer l.follows.Done()
	defer context.AfterFunc(l.ctx, cancel)()

	var pause backoff
	var interrupted time.Time // since when nothing has come
	for {
		before := f.position
		err := f.run(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var failed *handleError
		if errors.As(err, &failed) || errors.Is(err, ErrReplaced) || errors.Is(err, ErrRewritten) {
			return fmt.Errorf("follow: %w", err)
		}
		if l.nc.IsClosed() {
			return unavailable("follow", nats.ErrConnectionClosed)
		}
		if f.position > before {
			pause, interrupted = backoff{}, time.Time{}
		}
		if first := interrupted.IsZero(); first || f.patience == 0 {
			l.logger.Warn("the feed of the log is interrupted", "position", f.position, "error", err)
			if first {
				interrupted = time.Now()
			}
		}
		if waited := time.Since(interrupted); f.patience > 0 && waited > f.patience {
			return unavailable(fmt.Sprintf("read: nothing came after position %d for %s", f.position, waited.Round(time.Second)), err)
		}
		if pause.wait(ctx) != nil {
			return ctx.Err()
		}
	}
}

// Read gives the events after a position up to another one, which has to be in the log,
// to handle, as Follow does, and returns when all of them were handled. It returns
// domain.ErrUnavailable where the servers stay away for half a minute, too: whoever reads
// to an end waits for it.
func (l *Log) Read(ctx context.Context, after, upTo uint64, limit int, handle func([]domain.Entry) error) error {
	return l.read(ctx, allSubjects, after, upTo, limit, handle)
}

// read is Read for the messages on a subject, of which one is at the position upTo.
func (l *Log) read(ctx context.Context, subject string, after, upTo uint64, limit int, handle func([]domain.Entry) error) error {
	if after >= upTo {
		return nil
	}
	reached := errors.New("all was read")
	f := &follower{log: l, subject: subject, position: after, upTo: upTo, limit: max(limit, 1), patience: readGivesUp}
	f.handle = func(batch []domain.Entry) error {
		wanted := len(batch)
		for wanted > 0 && batch[wanted-1].Record.Position > upTo {
			wanted--
		}
		if wanted > 0 {
			if err := handle(batch[:wanted]); err != nil {
				return err
			}
		}
		if batch[len(batch)-1].Record.Position >= upTo {
			return reached
		}
		return nil
	}
	err := l.follow(ctx, f)
	if errors.Is(err, reached) {
		return nil
	}
	return err
}

// ErrRewritten is returned when the log does not hold any more what was read of it: it
// was restored from an older copy.
var ErrRewritten = errors.New("the log was rewritten: it does not hold what was read of it")

// errReconnected ends a consumer that was made over an earlier connection.
var errReconnected = errors.New("the connection was lost and is back")

// A handleError is an error of the one who follows, as opposed to one of the log.
type handleError struct{ err error }

func (e *handleError) Error() string { return e.err.Error() }
func (e *handleError) Unwrap() error { return e.err }

// A follower is one Follow call: how far it is, and what it has read beyond.
type follower struct {
	log      *Log
	subject  string // whose messages are read
	position uint64 // of the last event that was handled
	upTo     uint64 // at this position it ends, be it within an atomic write
	handled  string // id of that event, "" while there is none
	limit    int
	patience time.Duration // with an interruption, 0 for any
	handle   func([]domain.Entry) error

	pending []domain.Entry // read and not handled
	whole   int            // how many of the pending end with a whole write
	read    uint64         // position of the last message that was read
}

// run reads the log until something breaks, from the tail as far as that goes.
func (f *follower) run(ctx context.Context) error {
	if f.log.tail == nil || f.subject != allSubjects {
		return f.runConsumer(ctx, nil)
	}
	recent := f.log.tail.open()
	defer recent.close()
	for {
		if err := f.runConsumer(ctx, recent); err != nil {
			return err
		}
		if err := f.runTail(ctx, recent); err != nil {
			return err
		}
	}
}

// runTail reads the tail until something breaks, or until there is an event in
// the log that the tail does not have; then it returns nil. Between two batches,
// nothing is pending, and what was read was handled.
func (f *follower) runTail(ctx context.Context, recent *tailReader) error {
	recent.skip(f.read)
	check := time.NewTicker(recent.tail.check)
	defer check.Stop()
	idle, behind := false, uint64(noPosition) // nothing since the last check; where it stood with more in the log
	var missing <-chan time.Time              // when an event has been missing for too long
	for {
		batch, gap := recent.take(f.limit)
		if len(batch) > 0 {
			f.pending, f.whole, f.read = batch, len(batch), batch[len(batch)-1].Record.Position
			if err := f.flush(); err != nil {
				return err
			}
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
			end, err := f.log.lastSequence(ctx)
			if err != nil {
				return err
			}
			switch {
			case end <= f.read:
				behind = noPosition
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

// noPosition is where no follower ever stands.
const noPosition = math.MaxUint64

// runConsumer reads through one consumer until something breaks, or until the
// tail goes on from here; then it returns nil.
func (f *follower) runConsumer(ctx context.Context, recent *tailReader) error {
	f.pending, f.whole, f.read = f.pending[:0], 0, f.position
	// A server that we come back to may have lost the consumer; waiting for its
	// heartbeat to be missed would take seconds.
	reconnected := f.log.nc.StatusChanged(nats.CONNECTED)
	defer f.log.nc.RemoveStatusListener(reconnected)
	var lost chan nats.Status // where somebody waits for the end
	if f.patience > 0 {
		lost = f.log.nc.StatusChanged(nats.RECONNECTING, nats.CLOSED)
		defer f.log.nc.RemoveStatusListener(lost)
	}
	again := f.handled != "" // then the last event comes first once more
	start := f.position + 1
	if again {
		start = f.position
	}
	messages, stop, err := f.log.consume(ctx, f.subject, start)
	if err != nil {
		return err
	}
	defer stop()
	for {
		var next delivery
		select {
		case next = <-messages:
		default:
			// Nothing more is there now: hand over what there is, then wait.
			if err := f.flush(); err != nil {
				return err
			}
			if recent != nil {
				if goesOn, err := f.atTail(ctx, recent); goesOn || err != nil {
					return err
				}
			}
			var cut <-chan time.Time
			if len(f.pending) > 0 {
				cut = time.After(cutAfter)
			}
			select {
			case next = <-messages:
			case <-cut:
				f.log.logger.Error("the log has a part of a write, and not the rest: nothing after it can be read", "session", f.pending[0].Record.Event.Session.ID, "position", f.pending[0].Record.Position)
				continue
			case <-reconnected:
				return errReconnected
			case <-lost:
				return nats.ErrDisconnected
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if next.err != nil {
			return next.err
		}
		if again {
			if r := entryIn(next.msg); r.Record.Position != f.position || r.Record.ID != f.handled {
				return fmt.Errorf("%w: position %d", ErrRewritten, f.position)
			}
			again = false
			continue
		}
		if err := f.take(next.msg); err != nil {
			return err
		}
		if f.whole >= f.limit {
			if err := f.flush(); err != nil {
				return err
			}
		}
	}
}

// atTail says whether the tail goes on where the follower is: it holds the next
// event, or will when it is written.
func (f *follower) atTail(ctx context.Context, recent *tailReader) (bool, error) {
	if len(f.pending) > 0 {
		return false, nil // a part of a write, of which the rest is on its way
	}
	if recent.skip(f.read) {
		return true, nil
	}
	end, err := f.log.lastSequence(ctx)
	return end == f.read, err
}

// take adds a message to the pending events.
func (f *follower) take(m *storedMsg) error {
	if m.sequence <= f.read {
		return fmt.Errorf("message %d came after %d", m.sequence, f.read)
	}
	f.read = m.sequence
	f.pending = append(f.pending, entryIn(m))
	if !unfinished(m) || m.sequence >= f.upTo {
		f.whole = len(f.pending)
	}
	return nil
}

// entryIn returns the event in a message, or why there is none.
func entryIn(m *storedMsg) domain.Entry {
	r, err := decode(m)
	if err != nil {
		id := strings.TrimPrefix(m.subject, subjectPrefix)
		return domain.Entry{Record: &domain.Record{Event: domain.Event{Session: domain.Session{ID: id}}, Position: m.sequence}, Err: err}
	}
	return domain.Entry{Record: r}
}

// unfinished says whether a message is part of an atomic write and not its last.
// The server stores the headers by which it was published.
func unfinished(m *storedMsg) bool {
	return m.header.Get(jetstreamext.BatchIDHeader) != "" && m.header.Get(jetstreamext.BatchCommitHeader) == ""
}

// flush hands over the pending events up to the last whole write.
func (f *follower) flush() error {
	if f.whole == 0 {
		return nil
	}
	batch := f.pending[:f.whole]
	if err := f.handle(batch); err != nil {
		return &handleError{err}
	}
	f.position, f.handled = batch[len(batch)-1].Record.Position, batch[len(batch)-1].Record.ID
	// What was handed over is the receiver's; the rest moves to a new slice.
	f.pending = append([]domain.Entry(nil), f.pending[f.whole:]...)
	f.whole = 0
	return nil
}

// A delivery is a message from a consumer, or why there will be no more.
type delivery struct {
	msg *storedMsg
	err error
}

// newestOfEach, as where a consumer starts, has it deliver the newest message of every
// subject, and then everything that is new.
const newestOfEach = 0

// allSubjects is the subject of every event.
const allSubjects = subjectPrefix + "*"

// consume makes a consumer of a subject that starts at a sequence, or with newestOfEach,
// and returns its messages in order, without gaps; the last delivery is an error. The
// consumer lives in the server's memory, acknowledges nothing and is never resumed:
// whoever lost it makes another. stop gives it up.
func (l *Log) consume(ctx context.Context, subject string, start uint64) (<-chan delivery, func(), error) {
	patience := consumerTimeout
	config := jetstream.ConsumerConfig{
		Name:              "follow-" + uuid.NewString(),
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       start,
		AckPolicy:         jetstream.AckNonePolicy,
		InactiveThreshold: feedInactive,
		Replicas:          1,
		MemoryStorage:     true,
	}
	if subject != allSubjects { // a filter costs time, so there is none for everything
		patience, config.FilterSubject = newestTimeout, subject
	}
	if start == newestOfEach {
		patience = newestTimeout
		config.DeliverPolicy, config.FilterSubject = jetstream.DeliverLastPerSubjectPolicy, subject
	}
	attempt, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := l.lastSequence(attempt); err != nil {
		return nil, nil, err
	}
	consumer, err := l.js.CreateConsumer(attempt, StreamName, config)
	if err != nil {
		return nil, nil, fmt.Errorf("consumer: %w", err)
	}
	messages, err := consumer.Messages(
		jetstream.PullMaxMessages(feedBuffer),
		jetstream.PullHeartbeat(feedHeartbeat),
		jetstream.WithMessagesErrOnMissingHeartbeat(true),
	)
	if err != nil {
		return nil, nil, fmt.Errorf("consumer: %w", err)
	}
	deliveries := make(chan delivery, feedBuffer)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for delivered := uint64(1); ; delivered++ {
			d := receive(messages, delivered)
			select {
			case deliveries <- d:
			case <-ctx.Done():
				return
			}
			if d.err != nil {
				return
			}
		}
	}()
	stop := func() {
		messages.Stop()
		for done := false; !done; { // the goroutine may wait for room
			select {
			case <-deliveries:
			case <-stopped:
				done = true
			}
		}
		farewell, cancel := context.WithTimeout(context.WithoutCancel(ctx), attemptTimeout)
		defer cancel()
		// If this fails, the server drops the consumer when nobody reads it.
		_ = l.js.DeleteConsumer(farewell, StreamName, consumer.CachedInfo().Name)
	}
	return deliveries, stop, nil
}

// receive returns the next message, which has to be the consumer's n-th.
func receive(messages jetstream.MessagesContext, n uint64) delivery {
	m, err := messages.Next()
	if err != nil {
		return delivery{err: fmt.Errorf("next message: %w", err)}
	}
	meta, err := m.Metadata()
	if err != nil {
		return delivery{err: fmt.Errorf("next message: %w", err)}
	}
	if meta.Sequence.Consumer != n {
		return delivery{err: fmt.Errorf("next message: lost %d before %d", meta.Sequence.Consumer-n, meta.Sequence.Stream)}
	}
	return delivery{msg: &storedMsg{subject: m.Subject(), sequence: meta.Sequence.Stream, header: m.Headers(), data: m.Data()}}
}
