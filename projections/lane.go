package projections

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"chatsessions/domain"
)

// A lane writes one generation of one partition.
type lane struct {
	log     Log
	keys    keyspace
	place   string // key of its checkpoint
	private bool
	logger  *slog.Logger
	writer  *writer
	current checkpoint          // what this lane believes to stand in Redis
	parked  map[string]struct{} // the sessions that are parked
}

// openLane returns a lane that goes on from a checkpoint.
func (p *Projector) openLane(ctx context.Context, part partition, place string, c checkpoint) (*lane, error) {
	l := &lane{log: p.log, keys: part.of(c.generation), place: place, private: p.private, logger: p.logger, current: c, parked: map[string]struct{}{}}
	ids, err := p.rdb.HKeys(ctx, l.keys.parked()).Result()
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
func (l *lane) apply(ctx context.Context, documents []*document, last *domain.Entry) error {
	next := newChunk()
	for _, d := range documents {
		if d.position <= l.current.position {
			continue
		}
		if next.full(d) {
			if err := l.write(ctx, next, l.current.after(next.newest.position, next.newest.event)); err != nil {
				return err
			}
			next = newChunk()
		}
		next.put(d)
	}
	if last.Record.Position <= l.current.position {
		return nil
	}
	return l.write(ctx, next, l.current.after(last.Record.Position, last.Record.ID))
}

// put adds documents to a generation that is being filled.
func (l *lane) put(ctx context.Context, documents []*document) error {
	next := newChunk()
	for _, d := range documents {
		d.before = nil // the event before is not what it replaces here
		if next.full(d) {
			if err := l.write(ctx, next, l.current.fuller(len(next.documents))); err != nil {
				return err
			}
			next = newChunk()
		}
		next.put(d)
	}
	if len(next.documents) == 0 {
		return nil
	}
	return l.write(ctx, next, l.current.fuller(len(next.documents)))
}

// write writes one chunk and moves the checkpoint.
func (l *lane) write(ctx context.Context, c *chunk, after checkpoint) error {
	for {
		err := l.tryToWrite(ctx, c, after)
		if !errors.Is(err, errTouched) {
			return err
		}
	}
}

func (l *lane) tryToWrite(ctx context.Context, c *chunk, after checkpoint) error {
	if err := l.replaced(ctx, c.documents); err != nil {
		return err
	}
	if !l.private {
		durable := after.position
		if c.newest != nil {
			durable = max(durable, c.newest.position)
		}
		if err := l.log.Durable(ctx, durable); err != nil {
			return fmt.Errorf("events up to position %d: %w", durable, err)
		}
	}
	change := change{keys: l.keys, documents: c.documents, indexes: diff(c.documents)}
	for _, d := range c.documents {
		if _, known := l.parked[d.id]; known && d.parked == "" {
			change.healed = append(change.healed, d.id)
		}
	}
	if err := l.writer.write(ctx, l.current.String(), after, change); err != nil {
		return fmt.Errorf("write positions %d to %d into the read model: %w", l.current.position+1, after.position, err)
	}
	for _, d := range c.documents {
		if d.parked != "" {
			l.parked[d.id] = struct{}{}
			l.logger.Error("an event cannot be projected: its session is parked", "session", d.id, "position", d.position, "error", d.parked)
		} else {
			delete(l.parked, d.id)
		}
	}
	l.current = after
	return nil
}

// replaced finds the documents that these replace, whose index entries may have to
// go. Where the log did not tell the session before, Redis has it: as of the same
// checkpoint on which the writer insists.
func (l *lane) replaced(ctx context.Context, documents []*document) error {
	var keys []string
	parked := false
	for _, d := range documents {
		if _, known := l.parked[d.id]; known {
			d.before, parked = nil, true // its entries went when it was parked, and may have come back since
		}
		if d.before == nil {
			keys = append(keys, l.keys.document(d.id))
		}
	}
	if len(keys) == 0 {
		return nil
	}
	if parked { // and may come back any time
		if err := l.writer.watch(ctx); err != nil {
			return err
		}
	}
	found, err := l.writer.documents(ctx, keys)
	if err != nil {
		return err
	}
	for _, d := range documents {
		if d.before != nil {
			continue
		}
		d.before = &entries{}
		if found[0] != nil {
			d.before = &found[0].entries
		}
		found = found[1:]
	}
	return nil
}
