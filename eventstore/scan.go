package eventstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/synadia-io/orbit.go/jetstreamext"
)

// scan gives every message up to a position, which has to be in the log, to handle, in
// batches of limit at most. Other than Follow it reads what is there, whole writes or
// not. It makes good for lost connections by itself.
func (l *Log) scan(ctx context.Context, upTo uint64, limit int, handle func([]*storedMsg) error) error {
	s := &scanner{log: l, upTo: upTo, limit: limit, handle: handle}
	var pause backoff
	for s.last.sequence < upTo {
		before := s.last.sequence
		err := s.run(ctx)
		var failed *handleError
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &failed):
			return failed.err
		case errors.Is(err, ErrReplaced), errors.Is(err, ErrRewritten):
			return err
		case l.nc.IsClosed():
			return unavailable("read the log", nats.ErrConnectionClosed)
		}
		l.logger.Warn("reading the log is interrupted", "position", s.last.sequence, "error", err)
		if s.last.sequence > before {
			pause = backoff{}
		}
		if pause.wait(ctx) != nil {
			return ctx.Err()
		}
	}
	return nil
}

// A scanner is one call of scan.
type scanner struct {
	log    *Log
	upTo   uint64
	limit  int
	handle func([]*storedMsg) error
	last   storedMsg // the last that was handled; its sequence is 0 while there is none
}

// run reads through one consumer, until something breaks or all was read.
func (s *scanner) run(ctx context.Context) error {
	reconnected := s.log.nc.StatusChanged(nats.CONNECTED)
	defer s.log.nc.RemoveStatusListener(reconnected)
	messages, stop, err := s.log.consume(ctx, allSubjects, max(s.last.sequence, 1)) // the last one once more
	if err != nil {
		return err
	}
	defer stop()
	batch := make([]*storedMsg, 0, s.limit)
	for read := s.last.sequence; read < s.upTo; {
		var next delivery
		select {
		case next = <-messages:
		case <-reconnected:
			return errReconnected
		case <-ctx.Done():
			return ctx.Err()
		}
		if next.err != nil {
			return next.err
		}
		if read = next.msg.sequence; read <= s.last.sequence {
			if next.msg.header.Get(headerID) != s.last.header.Get(headerID) {
				return fmt.Errorf("%w: position %d", ErrRewritten, read)
			}
			continue
		}
		batch = append(batch, next.msg)
		if len(batch) < s.limit && read < s.upTo {
			continue
		}
		if err := s.handle(batch); err != nil {
			return &handleError{err}
		}
		s.last = *batch[len(batch)-1]
		batch = make([]*storedMsg, 0, s.limit) // what was handed over is the receiver's
	}
	return nil
}

// batchOf returns the atomic write that a message is part of, "" for none.
func batchOf(m *storedMsg) string { return m.header.Get(jetstreamext.BatchIDHeader) }
