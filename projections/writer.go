package projections

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// A writer changes the read model through one connection that watches the
// checkpoint (WATCH, MULTI, EXEC): what it sends is carried out, all or nothing,
// only if the checkpoint has not moved since the writer saw it. It sees it again in
// the trip that writes, so a batch costs one trip.
//
// A Lua script could do the same; see docs/decisions/0006 for why it does not.
//
// The connection is given back only when it watches nothing: the first WATCH goes
// through tx, which sends UNWATCH in the end, whatever was sent meanwhile.
type writer struct {
	tx    *redis.Tx
	keys  keyspace
	alone bool   // nobody else reads or writes this Redis
	found string // the checkpoint that is watched, as it was seen then
}

// withWriter runs f with a writer.
func (p *Projector) withWriter(ctx context.Context, f func(*writer) error) error {
	// The end of ctx ends f; the connection must be told to stop watching even then.
	return p.rdb.Watch(context.WithoutCancel(ctx), func(tx *redis.Tx) error {
		w := &writer{tx: tx, keys: p.keys, alone: p.private}
		var err error
		if w.found, err = w.read(ctx); err != nil {
			return err
		}
		return f(w)
	}, p.keys.checkpoint())
}

// read returns what stands in the checkpoint's place now, "" for nothing.
func (w *writer) read(ctx context.Context) (string, error) { return w.keys.readCheckpoint(ctx, w.tx) }

// readCheckpoint returns what stands in the checkpoint's place, "" for nothing.
func (k keyspace) readCheckpoint(ctx context.Context, from redis.Cmdable) (string, error) {
	text, err := from.Get(ctx, k.checkpoint()).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return "", fmt.Errorf("read the checkpoint: %w", err)
	}
	return text, nil
}

// documents reads documents by session id, nil for those that are not there.
func (w *writer) documents(ctx context.Context, ids []string) ([]*stored, error) {
	keys := make([]string, len(ids))
	for i, id := range ids {
		keys[i] = w.keys.document(id)
	}
	reply, err := w.tx.MGet(ctx, keys...).Result()
	if err != nil {
		return nil, fmt.Errorf("read the documents to replace: %w", err)
	}
	documents := make([]*stored, len(ids))
	for i, value := range reply {
		if text, ok := value.(string); ok {
			if documents[i], err = decodeDocument(text); err != nil {
				return nil, fmt.Errorf("%s: %w", keys[i], err)
			}
		}
	}
	return documents, nil
}

// write stores documents, changes the indexes and moves the checkpoint from
// expected to after. When something else stands there, nothing is written and the
// error says what that means.
func (w *writer) write(ctx context.Context, expected string, after checkpoint, documents []*document, changes indexChanges) error {
	if w.found != expected {
		return moved(after.identity, w.found)
	}
	trip := w.tx.Pipeline()
	trip.Do(ctx, "MULTI")
	set := make([]any, 3, 3+2*len(documents))
	set[0], set[1], set[2] = "MSET", w.keys.checkpoint(), after.String()
	for _, d := range documents {
		set = append(set, w.keys.document(d.id), d.value)
	}
	trip.Do(ctx, set...)
	for name, members := range changes.leaving {
		trip.Do(ctx, append([]any{"ZREM", w.keys.index(name)}, members...)...)
	}
	for name, members := range changes.entering {
		trip.Do(ctx, append([]any{"ZADD", w.keys.index(name)}, members...)...)
	}
	if !w.alone {
		trip.Do(ctx, "PUBLISH", w.keys.notices(), after.String())
	}
	done := trip.Do(ctx, "EXEC")
	now := func() string { return after.String() }
	if !w.alone { // otherwise each is a turn in a queue behind everybody who reads
		trip.Do(ctx, "WATCH", w.keys.checkpoint())
		now = trip.Get(ctx, w.keys.checkpoint()).Val
	}
	if _, err := trip.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return err // of the first command that failed
	}
	w.found = now()
	replies, err := done.Slice()
	if errors.Is(err, redis.Nil) {
		if w.found == expected {
			return errors.New("the transaction was given up, for no reason that is left")
		}
		return moved(after.identity, w.found)
	}
	if err != nil {
		return err
	}
	for _, reply := range replies {
		if failed, ok := reply.(error); ok {
			return w.damaged(ctx, failed)
		}
	}
	return nil
}

// damaged tells everybody that what is there is no model of the log: Redis does not
// undo what it did before and after a command that failed.
func (w *writer) damaged(ctx context.Context, cause error) error {
	mark := w.tx.Set(context.WithoutCancel(ctx), w.keys.checkpoint(), clearingMark("damaged")+"0", 0)
	return fmt.Errorf("%w: %w", errDamaged, errors.Join(cause, mark.Err()))
}
