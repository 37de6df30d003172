package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"chatsessions/domain"
	"chatsessions/eventstore"
	"chatsessions/eventstore/envelope"

	"golang.org/x/sync/errgroup"
)

// VerifyOptions are the options of Verify. Sessions and Memory are optional.
type VerifyOptions struct {
	// Defect gets each defect in the order of the log. Its error ends the verification.
	Defect func(domain.Defect) error
	// Sessions gets each session as its newest event or message left it, when its state is
	// evicted or all is read; again if it is written later.
	Sessions func(ctx context.Context, sessions []domain.Entry) error
	// Progress gets the position up to which the log was read, now and then.
	Progress func(position, end uint64)
	// Pace is called before the next events are read, like Pacer.Wait.
	Pace func(ctx context.Context, events int) error
	// Memory is about how many bytes the sessions' states may take, and the claims as many
	// again; 0 is 32 MB.
	Memory int
}

// Verified is the result of a verification.
type Verified struct {
	End      uint64 // position up to which the log was read: its end at the start
	Events   uint64 // readable events
	Sessions uint64 // sessions that were created
	Defects  uint64
}

const (
	// defaultMemory is enough for some 30,000 sessions; the state of another one is read again.
	// With ten million events, one claim in two hundred is looked up unnecessarily.
	defaultMemory = 32 << 20
	// batchSize is how many events are decoded and looked up at once.
	batchSize = 512
)

// Verify reads the whole log and reports every defect: each event by domain.Check, and any two
// that follow the same one. It writes nothing and recovers from lost connections.
func Verify(ctx context.Context, log *eventstore.Log, o VerifyOptions) (Verified, error) {
	memory := cmp.Or(o.Memory, defaultMemory)
	v := &verification{options: o, log: log, states: newRecentStates(memory), claims: newClaims(memory)}
	if err := v.run(ctx); err != nil {
		return v.result, fmt.Errorf("verify the log: %w", err)
	}
	return v.result, nil
}

// A verification is one call of Verify.
type verification struct {
	options     VerifyOptions
	log         *eventstore.Log
	states      *recentStates
	claims      claims
	read        uint64 // position of the last message
	openID      string // of the atomic write that continues after that message, "" for none
	openRequest string // correlation id of that write
	result      Verified
}

// run reads, decodes, and checks, each in a goroutine of its own, which ends with run.
func (v *verification) run(ctx context.Context) error {
	// The stream's last sequence is higher if messages at the end were removed.
	end, err := v.log.End(ctx)
	if err != nil {
		return err
	}
	last, err := v.log.NewestMessage(ctx)
	switch {
	case errors.Is(err, eventstore.ErrNoMessage):
		last = &envelope.Message{}
	case err != nil:
		return err
	}
	v.result.End = max(end, last.Sequence)
	if err := v.log.Durable(ctx, v.result.End); err != nil {
		return err
	}
	v.options.Progress(0, v.result.End)

	raw, decoded := make(chan []*envelope.Message, 2), make(chan []message, 2)
	all, working := errgroup.WithContext(ctx)
	all.Go(func() error {
		defer close(raw)
		return v.log.ReadMessages(working, last.Sequence, batchSize, func(batch []*envelope.Message) error {
			if err := v.options.Pace(working, len(batch)); err != nil {
				return err
			}
			return send(working, raw, batch)
		})
	})
	all.Go(func() error {
		defer close(decoded)
		for batch := range raw {
			messages := make([]message, len(batch))
			for i, m := range batch {
				messages[i] = decode(m)
			}
			if err := send(working, decoded, messages); err != nil {
				return err
			}
		}
		return nil
	})
	all.Go(func() error {
		for messages := range decoded {
			if err := v.check(working, messages); err != nil {
				return err
			}
			v.options.Progress(v.read, v.result.End)
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

// A message is a decoded message of the log, with its envelope where a Record lacks it.
type message struct {
	record          *domain.Record
	err             error    // why it is not an event; see domain.Entry
	writeID         string   // of the atomic write that it is part of, "" for none
	writeContinues  bool     // after it
	wrongHeaders    []string // of a readable event
	previousInWrite bool     // ce-previous says that it follows the message before in its write
}

func decode(m *envelope.Message) message {
	e := envelope.Entry(m)
	d := message{record: e.Record, err: e.Err, writeID: m.WriteID(), writeContinues: m.WriteContinues()}
	if d.err == nil {
		d.wrongHeaders, d.previousInWrite = m.CheckHeaders(), m.HasPreviousInWrite()
	}
	return d
}

// report counts and reports a defect.
func (v *verification) report(d domain.Defect) error {
	v.result.Defects++
	return v.options.Defect(d)
}

// finish reports the remaining sessions and checks where the log ends.
func (v *verification) finish(ctx context.Context) error {
	for id := range v.states.newer {
		delete(v.states.older, id)
	}
	for _, states := range []map[string]*lastState{v.states.older, v.states.newer} {
		if err := v.reportSessions(ctx, states); err != nil {
			return err
		}
	}
	if v.openID != "" {
		if err := v.reportTorn(); err != nil {
			return err
		}
	}
	if v.read < v.result.End {
		if err := v.reportMissing(v.read+1, v.result.End); err != nil {
			return err
		}
	}
	v.options.Progress(v.result.End, v.result.End)
	return nil
}

func (v *verification) reportSessions(ctx context.Context, states map[string]*lastState) error {
	if len(states) == 0 || v.options.Sessions == nil {
		return nil
	}
	sessions := make([]domain.Entry, 0, len(states))
	for id, s := range states {
		sessions = append(sessions, s.entry(id))
	}
	return v.options.Sessions(ctx, sessions)
}

func (v *verification) reportMissing(from, to uint64) error {
	detail := "there is no message at this position"
	if to > from {
		detail = fmt.Sprintf("there are no messages at positions %d to %d", from, to)
	}
	return v.report(domain.Defect{Kind: domain.DefectMissing, Position: from, Detail: detail})
}

func (v *verification) reportTorn() error {
	return v.report(domain.Defect{
		Kind: domain.DefectMissing, Position: v.read,
		Detail: "the message is part of an atomic write, and the rest of that write is not there",
	})
}
