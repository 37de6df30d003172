package eventstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"chatsessions/eventstore/envelope"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A Recovery is the log as Open has found it. Nobody else writes to it yet.
type Recovery struct {
	Stream jetstream.StreamConfig
	log    *Log
}

// End returns the position of the newest event.
func (r Recovery) End(ctx context.Context) (uint64, error) { return r.log.LastSequence(ctx) }

// Complete appends the missing messages of an atomic write, after a sequence of its subject,
// of which the log has some. Nothing else can follow these: any other write to the subject
// came after the whole of this one.
func (r Recovery) Complete(ctx context.Context, after uint64, msgs []*nats.Msg) error {
	l, subject := r.log, msgs[0].Subject
	newest, err := l.newest(ctx, envelope.SessionID(subject), leader)
	if err != nil {
		return err
	}
	present := map[string]bool{}
	for r := newest; r.Position > after; {
		present[r.ID] = true
		if r.Previous == 0 {
			break
		}
		if r, err = l.at(ctx, r.Previous); err != nil {
			return err
		}
	}
	id := func(i int) string { return msgs[i].Header.Get(envelope.HeaderID) }
	n := 0 // how many are in the log
	for n < len(msgs) && present[id(n)] {
		n++
	}
	switch {
	case n == len(msgs), n == 0: // without any of it, the write was never acknowledged
		return nil
	case newest.ID != id(n-1):
		return fmt.Errorf("%d of its %d events are in the log, and event %d follows them", n, len(msgs), newest.Position)
	}
	missing := msgs[n:]
	for _, m := range missing {
		for name := range m.Header {
			if strings.HasPrefix(name, "Nats-") { // of the attempt that was cut
				delete(m.Header, name)
			}
		}
	}
	first := missing[0].Header
	// The message before it need not be the log's last, so it is named.
	first.Set(envelope.HeaderPrevious, strconv.FormatUint(newest.Position, 10))
	expect(missing[0], newest.Position)
	var pause backoff
	for {
		last, outcome, err := l.publish(ctx, missing)
		switch {
		case outcome == acknowledged:
			l.logger.Warn("completed a write that a crash had cut", "subject", subject, "events", len(msgs), "appended", len(missing), "position", last)
			return nil
		case outcome != busy:
			return err
		}
		if pause.wait(ctx) != nil {
			return errors.Join(err, ctx.Err())
		}
	}
}
