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

// A lane writes one generation of one partition.
type partitionWriter struct {
	log           projections.Log
	keys          layout.Keyspace
	checkpointKey string // key of its checkpoint
	private       bool
	logger        *slog.Logger
	tx            *transaction
	current       layout.Checkpoint   // what this lane believes to stand in Redis
	parked        map[string]struct{} // the sessions that are parked
}

// openLane returns a lane that goes on from a checkpoint.
func (p *Projector) openPartition(ctx context.Context, part layout.Partition, place string, c layout.Checkpoint) (*partitionWriter, error) {
	l := &partitionWriter{log: p.log, keys: part.Keys(c.Generation), checkpointKey: place, private: p.private, logger: p.logger, current: c, parked: map[string]struct{}{}}
	ids, err := p.rdb.HKeys(ctx, l.keys.Parked()).Result()
	if err != nil {
		return nil, fmt.Errorf("read which sessions are parked: %w", err)
	}
	for _, id := range ids {
		l.parked[id] = struct{}{}
	}
	return l, nil
}

// apply writes the documents, in the order of their events, in parts where one
// transaction would take too long, and moves the checkpoint to the last event, which
// may be of another partition.
func (l *partitionWriter) apply(ctx context.Context, documents []*layout.Document, last *domain.Entry) error {
	next := newChunk()
	for _, d := range documents {
		if d.Position <= l.current.Position {
			continue
		}
		if next.full(d) {
			if err := l.write(ctx, next, l.current.After(next.newest.Position, next.newest.Event)); err != nil {
				return err
			}
			next = newChunk()
		}
		next.put(d)
	}
	if last.Record.Position <= l.current.Position {
		return nil
	}
	return l.write(ctx, next, l.current.After(last.Record.Position, last.Record.ID))
}

// put adds documents to a generation that is being filled.
func (l *partitionWriter) fill(ctx context.Context, documents []*layout.Document) error {
	next := newChunk()
	for _, d := range documents {
		d.Before = nil // the event before is not what it replaces here
		if next.full(d) {
			if err := l.write(ctx, next, l.current.AfterFilling(len(next.documents))); err != nil {
				return err
			}
			next = newChunk()
		}
		next.put(d)
	}
	if len(next.documents) == 0 {
		return nil
	}
	return l.write(ctx, next, l.current.AfterFilling(len(next.documents)))
}

// write writes one chunk and moves the checkpoint.
func (l *partitionWriter) write(ctx context.Context, c *chunk, after layout.Checkpoint) error {
	for {
		err := l.tryToWrite(ctx, c, after)
		if !errors.Is(err, errTouched) {
			return err
		}
	}
}

func (l *partitionWriter) tryToWrite(ctx context.Context, c *chunk, after layout.Checkpoint) error {
	if err := l.findReplaced(ctx, c.documents); err != nil {
		return err
	}
	if !l.private {
		durable := after.Position
		if c.newest != nil {
			durable = max(durable, c.newest.Position)
		}
		if err := l.log.Durable(ctx, durable); err != nil {
			return fmt.Errorf("events up to position %d: %w", durable, err)
		}
	}
	change := change{keys: l.keys, documents: c.documents, indexes: diff(c.documents)}
	for _, d := range c.documents {
		if _, known := l.parked[d.ID]; known && d.Reason == "" {
			change.healed = append(change.healed, d.ID)
		}
	}
	if err := l.tx.commit(ctx, l.current.String(), after, change); err != nil {
		return fmt.Errorf("write positions %d to %d into the read model: %w", l.current.Position+1, after.Position, err)
	}
	for _, d := range c.documents {
		if d.Reason != "" {
			l.parked[d.ID] = struct{}{}
			l.logger.Error("an event cannot be projected: its session is parked", "session", d.ID, "position", d.Position, "error", d.Reason)
		} else {
			delete(l.parked, d.ID)
		}
	}
	l.current = after
	return nil
}

// replaced finds the documents that these replace, whose index entries may have to
// go. Where the log did not tell the session before, Redis has it: as of the same
// checkpoint on which the writer insists.
func (l *partitionWriter) findReplaced(ctx context.Context, documents []*layout.Document) error {
	var keys []string
	parked := false
	for _, d := range documents {
		if _, known := l.parked[d.ID]; known {
			d.Before, parked = nil, true // its entries went when it was parked, and may have come back since
		}
		if d.Before == nil {
			keys = append(keys, l.keys.Document(d.ID))
		}
	}
	if len(keys) == 0 {
		return nil
	}
	if parked { // and may come back any time
		if err := l.tx.watch(ctx); err != nil {
			return err
		}
	}
	found, err := l.tx.documents(ctx, keys)
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
