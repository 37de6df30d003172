package projector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"chatsessions/domain"
	"chatsessions/projections"
	"chatsessions/projections/layout"
)

// A partitionWriter writes one generation of one partition.
type partitionWriter struct {
	log           projections.Log
	keys          layout.Keyspace
	checkpointKey string // of its checkpoint
	private       bool
	logger        *slog.Logger
	tx            *transaction
	current       layout.Checkpoint   // what Redis should hold at checkpointKey
	parked        map[string]struct{} // sessions that are parked
}

// openPartition returns a writer that resumes at a checkpoint.
func (p *Projector) openPartition(ctx context.Context, part layout.Partition, place string, c layout.Checkpoint) (*partitionWriter, error) {
	w := &partitionWriter{log: p.log, keys: part.Keys(c.Generation), checkpointKey: place, private: p.private, logger: p.logger, current: c, parked: map[string]struct{}{}}
	ids, err := p.rdb.HKeys(ctx, w.keys.Parked()).Result()
	if err != nil {
		return nil, fmt.Errorf("read the parked sessions: %w", err)
	}
	for _, id := range ids {
		w.parked[id] = struct{}{}
	}
	return w, nil
}

// apply writes documents in the order of their events and moves the checkpoint to the
// last event of the batch, which may belong to another partition.
func (w *partitionWriter) apply(ctx context.Context, documents []*layout.Document, last *domain.Entry) error {
	rest, err := w.writeFull(ctx, documents, func(c *chunk) layout.Checkpoint {
		return w.current.After(c.newest.Position, c.newest.Event)
	})
	if err != nil || last.Record.Position <= w.current.Position {
		return err
	}
	return w.write(ctx, rest, w.current.After(last.Record.Position, last.Record.ID))
}

// fill adds documents to a generation that is being filled.
func (w *partitionWriter) fill(ctx context.Context, documents []*layout.Document) error {
	for _, d := range documents {
		d.Before = nil // the generation may not hold the event before
	}
	filled := func(c *chunk) layout.Checkpoint { return w.current.AfterFilling(len(c.documents)) }
	rest, err := w.writeFull(ctx, documents, filled)
	if err != nil || len(rest.documents) == 0 {
		return err
	}
	return w.write(ctx, rest, filled(rest))
}

// writeFull divides the documents after the checkpoint into chunks, writes all but the last
// one, and returns that.
func (w *partitionWriter) writeFull(ctx context.Context, documents []*layout.Document, after func(*chunk) layout.Checkpoint) (*chunk, error) {
	next := newChunk()
	for _, d := range documents {
		if d.Position <= w.current.Position {
			continue
		}
		if next.full(d) {
			if err := w.write(ctx, next, after(next)); err != nil {
				return nil, err
			}
			next = newChunk()
		}
		next.put(d)
	}
	return next, nil
}

// write writes one chunk and moves the checkpoint.
func (w *partitionWriter) write(ctx context.Context, c *chunk, after layout.Checkpoint) error {
	for {
		err := w.tryToWrite(ctx, c, after)
		if !errors.Is(err, errTouched) {
			return err
		}
	}
}

func (w *partitionWriter) tryToWrite(ctx context.Context, c *chunk, after layout.Checkpoint) error {
	if err := w.findReplaced(ctx, c.documents); err != nil {
		return err
	}
	if !w.private {
		durable := after.Position
		if c.newest != nil {
			durable = max(durable, c.newest.Position)
		}
		if err := w.log.Durable(ctx, durable); err != nil {
			return fmt.Errorf("events up to position %d: %w", durable, err)
		}
	}
	change := change{keys: w.keys, documents: c.documents, indexes: diff(c.documents)}
	for _, d := range c.documents {
		if _, known := w.parked[d.ID]; known && d.Reason == "" {
			change.healed = append(change.healed, d.ID)
		}
	}
	if err := w.tx.commit(ctx, w.current.String(), after, change); err != nil {
		return fmt.Errorf("write positions %d to %d into the read model: %w", w.current.Position+1, after.Position, err)
	}
	for _, d := range c.documents {
		if d.Reason != "" {
			w.parked[d.ID] = struct{}{}
			w.logger.Error("an event cannot be projected: its session is parked", "session", d.ID, "position", d.Position, "error", d.Reason)
		} else {
			delete(w.parked, d.ID)
		}
	}
	w.current = after
	return nil
}

// findReplaced finds the entries that the documents replace, and which may have to leave
// their indexes. If the log did not supply the session before the event, Redis has it, as
// of the same checkpoint that the transaction expects.
func (w *partitionWriter) findReplaced(ctx context.Context, documents []*layout.Document) error {
	var keys []string
	parked := false
	for _, d := range documents {
		if _, known := w.parked[d.ID]; known {
			d.Before, parked = nil, true // its entries were removed when it was parked, and Retry may have restored them
		}
		if d.Before == nil {
			keys = append(keys, w.keys.Document(d.ID))
		}
	}
	if len(keys) == 0 {
		return nil
	}
	if parked { // Retry may restore it at any time
		if err := w.tx.watch(ctx); err != nil {
			return err
		}
	}
	found, err := w.tx.documents(ctx, keys)
	if err != nil {
		return err
	}
	for _, d := range documents {
		if d.Before != nil {
			continue
		}
		d.Before = &layout.Entries{}
		if found[0] != nil {
			d.Before = &found[0].Entries
		}
		found = found[1:]
	}
	return nil
}
