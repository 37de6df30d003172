package eventstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"chatsessions/domain"
	"chatsessions/domain/cloudevent"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
)

// VerifyOptions are what a verification can be told; the zero value will do.
type VerifyOptions struct {
	// Defect, where it is set, is told each defect as it is found, in the order of the
	// log. Its error ends the verification.
	Defect func(domain.Defect) error
	// Settled, where it is set, is told every session, as its newest event or message has
	// left it, once it was not written for so long that it is forgotten, or when all was
	// read: one that is written after that is told again.
	Settled func(ctx context.Context, sessions []domain.Entry) error
	// Progress, where it is set, is told how far the log was read, now and then.
	Progress func(position, end uint64)
	// Pace, where it is set, is called before some more events are read, as Pacer.Wait is.
	Pace func(ctx context.Context, events int) error
	// Memory is about how many bytes are kept of the sessions' states; 0 is 32 MB.
	Memory int

	words int // size of the table of claims: claimWords, or a test's
}

// A Verified is what came of a verification.
type Verified struct {
	End      uint64 // up to which position the log was read: its end when it began
	Events   uint64 // readable ones
	Sessions uint64 // that were created
	Defects  uint64
}

// defaultVerifyMemory is of some 30,000 sessions. One that was not written for longer
// is read again, from the position to which ce-previous leads.
const defaultVerifyMemory = 32 << 20

// Verify reads the whole log and tells every defect: each event is checked by
// domain.Check against the session before it, and each has to be the only one that
// follows the one before it. It writes nothing, and its memory does not grow with the
// log. Lost connections are made good, as Follow does.
func (l *Log) Verify(ctx context.Context, o VerifyOptions) (Verified, error) {
	if o.Defect == nil {
		o.Defect = func(domain.Defect) error { return nil }
	}
	if o.Progress == nil {
		o.Progress = func(uint64, uint64) {}
	}
	if o.Settled == nil {
		o.Settled = func(context.Context, []domain.Entry) error { return nil }
	}
	if o.Pace == nil {
		o.Pace = func(context.Context, int) error { return nil }
	}
	if o.Memory == 0 {
		o.Memory = defaultVerifyMemory
	}
	if o.words == 0 {
		o.words = claimWords
	}
	v := &verification{VerifyOptions: o, log: l, newest: newRecent(o.Memory), claims: newClaims(o.words)}
	if err := v.run(ctx); err != nil {
		return v.done, fmt.Errorf("verify the log: %w", err)
	}
	return v.done, nil
}

// Event returns the event at a position. It returns an error that is
// domain.ErrUnreadable for a message that is none, and domain.ErrUnavailable when there
// is nothing, or the log cannot be reached in time.
func (l *Log) Event(ctx context.Context, position uint64) (*domain.Record, error) {
	ctx, cancel := withPatience(ctx, readPatience)
	defer cancel()
	r, err := l.at(ctx, position)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// A verification is one call of Verify.
type verification struct {
	VerifyOptions
	log    *Log
	newest *recent
	claims claims
	read   uint64 // position of the last message
	batch  string // the atomic write that it is part of, and that goes on
	done   Verified
}

// verifyBatch is how many events are decoded and looked up at once.
const verifyBatch = 512

func (v *verification) run(ctx context.Context) error {
	// The log may say that it goes further than it does: what was there was removed.
	end, err := v.log.End(ctx)
	if err != nil {
		return err
	}
	last, err := v.log.get(ctx, leader, `{"last_by_subj":"`+allSubjects+`"}`)
	switch {
	case errors.Is(err, errNoMessage):
		last = &storedMsg{}
	case err != nil:
		return unavailable("newest event", err)
	}
	v.done.End = max(end, last.sequence)
	if err := v.log.Durable(ctx, v.done.End); err != nil {
		return err
	}
	v.Progress(0, v.done.End)

	// Three steps, each in a goroutine of its own: read, decode, check.
	raw, decoded := make(chan []*storedMsg, 2), make(chan []examined, 2)
	all, working := errgroup.WithContext(ctx)
	all.Go(func() error {
		defer close(raw)
		return v.log.scan(working, last.sequence, verifyBatch, func(batch []*storedMsg) error {
			if err := v.Pace(working, len(batch)); err != nil {
				return err
			}
			return send(working, raw, batch)
		})
	})
	all.Go(func() error {
		defer close(decoded)
		for batch := range raw {
			events := make([]examined, len(batch))
			for i, m := range batch {
				events[i] = examine(m)
			}
			if err := send(working, decoded, events); err != nil {
				return err
			}
		}
		return nil
	})
	all.Go(func() error {
		for events := range decoded {
			if err := v.check(working, events); err != nil {
				return err
			}
			v.Progress(v.read, v.done.End)
		}
		return nil
	})
	if err := all.Wait(); err != nil {
		return err
	}
	return v.finish(ctx)
}

func send[T any](ctx context.Context, to chan<- T, value T) error {
	select {
	case to <- value:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// An examined is a message of the log, read.
type examined struct {
	domain.Entry
	batch string   // the atomic write that it is part of, "" for none
	goes  bool     // that goes on behind it
	wrong []string // with what the Record does not hold of the envelope
	joins bool     // ce-previous says that it follows the message before in its write
	stray bool     // there is no such message
}

func examine(m *storedMsg) examined {
	e := examined{Entry: entryIn(m), batch: batchOf(m), goes: unfinished(m)}
	if e.Err != nil {
		return e
	}
	if previous, err := headerValue(m.header, headerPrevious); err == nil && previous != "" {
		n, err := strconv.ParseUint(previous, 10, 64)
		e.joins = err == nil && n == previousInBatch
	}
	for _, header := range []struct{ name, want string }{
		{headerSource, cloudevent.Source},
		{headerDataContentType, cloudevent.DataType},
	} {
		if got, err := headerValue(m.header, header.name); err != nil || got != header.want {
			e.wrong = append(e.wrong, fmt.Sprintf("%s is %q, not %q", header.name, got, header.want))
		}
	}
	if id, err := uuid.Parse(e.Record.ID); err != nil || id.Version() != 7 {
		e.wrong = append(e.wrong, fmt.Sprintf("%s is %q, not a UUIDv7", headerID, e.Record.ID))
	}
	return e
}

func (v *verification) found(d domain.Defect) error {
	v.done.Defects++
	return v.Defect(d)
}

// check checks some events.
func (v *verification) check(ctx context.Context, events []examined) error {
	looked, err := v.lookUp(ctx, events)
	if err != nil {
		return err
	}
	for i := range events {
		e := &events[i]
		if err := v.sequel(e); err != nil {
			return err
		}
		id := e.Record.Event.Session.ID
		known := v.newest.get(id)
		if known == nil {
			known = &lastState{}
		}
		if e.Err != nil {
			cause := e.Err
			var unreadable *UnreadableError
			if errors.As(cause, &unreadable) {
				cause = unreadable.Err
			}
			if err := v.found(domain.Defect{Kind: domain.DefectUnreadable, SessionID: id, Position: e.Record.Position, Detail: cause.Error()}); err != nil {
				return err
			}
			known.unreadable, known.between = e.Record.Position, known.between+1
			if err := v.keep(ctx, id, known); err != nil {
				return err
			}
			continue
		}
		if err := v.event(ctx, e, known, looked[i]); err != nil {
			return err
		}
	}
	return nil
}

// sequel checks that nothing is missing between the message before and this one.
func (v *verification) sequel(e *examined) error {
	if e.Record.Position > v.read+1 {
		if err := v.missing(v.read+1, e.Record.Position-1); err != nil {
			return err
		}
	}
	if v.batch != "" && v.batch != e.batch {
		if err := v.torn(); err != nil {
			return err
		}
	}
	e.stray = e.joins && (e.batch == "" || e.batch != v.batch || e.Record.Position != v.read+1)
	v.read, v.batch = e.Record.Position, ""
	if e.goes {
		v.batch = e.batch
	}
	return nil
}

func (v *verification) missing(from, to uint64) error {
	detail := "there is no message at this position"
	if to > from {
		detail = fmt.Sprintf("there are no messages at positions %d to %d", from, to)
	}
	return v.found(domain.Defect{Kind: domain.DefectMissing, Position: from, Detail: detail})
}

func (v *verification) torn() error {
	return v.found(domain.Defect{
		Kind: domain.DefectMissing, Position: v.read,
		Detail: "the message is part of an atomic write, and the rest of that write is not there",
	})
}

// finish tells the sessions that are still in mind, and checks that the log ends as it
// says.
func (v *verification) finish(ctx context.Context) error {
	for id := range v.newest.newer {
		delete(v.newest.older, id)
	}
	for _, states := range []map[string]*lastState{v.newest.older, v.newest.newer} {
		if err := v.settle(ctx, states); err != nil {
			return err
		}
	}
	if v.batch != "" {
		if err := v.torn(); err != nil {
			return err
		}
	}
	if v.read < v.done.End {
		if err := v.missing(v.read+1, v.done.End); err != nil {
			return err
		}
	}
	v.Progress(v.done.End, v.done.End)
	return nil
}

// event checks a readable event, given what is known of its session.
func (v *verification) event(ctx context.Context, e *examined, known *lastState, looked *looked) error {
	r := e.Record
	v.done.Events++
	for _, wrong := range e.wrong {
		if err := v.found(domain.Defect{Kind: domain.DefectEnvelope, SessionID: e.Record.Event.Session.ID, Position: e.Record.Position, Detail: wrong}); err != nil {
			return err
		}
	}
	before, chain, err := v.before(ctx, r, known, looked)
	if err != nil {
		return err
	}
	if chain == nil && e.stray {
		chain = &domain.Defect{
			Kind: domain.DefectPrevious, SessionID: e.Record.Event.Session.ID, Position: e.Record.Position,
			Detail: fmt.Sprintf("%s is %d, and the message before is not part of the same atomic write", headerPrevious, previousInBatch),
		}
	}
	if chain != nil {
		if err := v.found(*chain); err != nil {
			return err
		}
	}
	if before != nil && !before.Exists() {
		v.done.Sessions++
	}
	defects, folded := domain.Check(before, r)
	if before == nil {
		earlier, err := v.lastRead(ctx, r, known)
		if err != nil {
			return err
		}
		if earlier.session != nil {
			defects = domain.CheckLater(earlier.session, earlier.between, r)
		}
	}
	if before != nil && len(defects) > 0 && r.Previous > 0 {
		// The event before may have been falsified, and this one go on from what it was.
		other, err := v.foldedAt(ctx, r.Previous, known)
		if err != nil {
			return err
		}
		if other != nil {
			if others, led := domain.Check(other, r); len(others) < len(defects) {
				defects, folded = others, led
			}
		}
	}
	for _, d := range defects {
		if err := v.found(d); err != nil {
			return err
		}
	}
	v.claims.add(r)
	session := r.Event.Session
	return v.keep(ctx, session.ID, &lastState{position: r.Position, session: &session, folded: folded, unreadable: known.unreadable})
}

// errNoEvent is what is said of a message that is not an event, after it was told why.
var errNoEvent = errors.New("the session's newest message is not an event")

// keep keeps a session's state in mind, and tells those that are forgotten for it.
func (v *verification) keep(ctx context.Context, id string, s *lastState) error {
	return v.settle(ctx, v.newest.put(id, s))
}

func (v *verification) settle(ctx context.Context, states map[string]*lastState) error {
	if len(states) == 0 {
		return nil
	}
	settled := make([]domain.Entry, 0, len(states))
	for id, s := range states {
		settled = append(settled, s.entry(id))
	}
	return v.Settled(ctx, settled)
}
