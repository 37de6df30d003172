package eventstore

import (
	"context"
	"fmt"

	"chatsessions/domain"
)

// Newest gives the newest event of every session to handle, in the order of the log,
// in batches of limit at most, and returns the position up to which that is so: what
// comes after it, Follow tells. That is the position of the last one, 0 without any. A session that is written meanwhile may be handed over
// more than once. It costs as much as there are sessions, however long their
// histories. The events may not be durable yet, and a message that is not an event is
// handed over as Follow does.
//
// It fails when the connection to the server breaks, with handle's error, and with
// ctx's; then nothing can be said of what was handed over.
func (l *Log) Newest(ctx context.Context, limit int, handle func([]domain.Entry) error) (end uint64, err error) {
	messages, stop, err := l.consume(ctx, allSubjects, newestOfEach)
	if err != nil {
		return 0, fmt.Errorf("newest events: %w", err)
	}
	defer stop()
	// Not before: what was written until the consumer was there may be left out
	// because there is something newer, which has to be read too.
	if end, err = l.lastSequence(ctx); err != nil {
		return 0, fmt.Errorf("newest events: %w", err)
	}
	batch := make([]domain.Entry, 0, limit)
	for read := uint64(0); read < end; {
		select {
		case next := <-messages:
			if next.err != nil {
				return 0, fmt.Errorf("newest events: %w", next.err)
			}
			read = next.msg.sequence
			batch = append(batch, entryIn(next.msg))
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		if len(batch) == limit || read >= end {
			if err := handle(batch); err != nil {
				return 0, fmt.Errorf("newest events: %w", err)
			}
			batch = make([]domain.Entry, 0, limit) // what was handed over is the receiver's
		}
	}
	return end, nil
}
