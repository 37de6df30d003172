package projector

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"chatsessions/projections"
	"chatsessions/projections/layout"
)

// A writer changes one generation of a partition through one connection that watches
// its checkpoint (WATCH, MULTI, EXEC): what it sends is carried out, all or nothing,
// only if the checkpoint has not moved since the writer saw it. It sees it again in
// the trip that writes, so a batch costs one trip.
//
// A Lua script could do the same; see docs/decisions/0006 for why it does not.
//
// The connection is given back only when it watches nothing: the first WATCH goes
// through tx, which sends UNWATCH in the end, whatever was sent meanwhile.
type transaction struct {
	tx            *redis.Tx
	checkpointKey string // key of the checkpoint: of the generation that answers, or of one built beside it
	private       bool   // nobody else reads or writes this Redis
	found         string // the checkpoint that is watched, as it was seen then
}

// withWriter runs f with a writer of what the checkpoint at a place vouches for.
func withTransaction(ctx context.Context, rdb redis.UniversalClient, place string, alone bool, f func(*transaction) error) error {
	// The end of ctx ends f; the connection must be told to stop watching even then.
	return watching(context.WithoutCancel(ctx), rdb, func(tx *redis.Tx) error {
		w := &transaction{tx: tx, checkpointKey: place, private: alone}
		var err error
		if w.found, err = w.read(ctx); err != nil {
			return err
		}
		return f(w)
	}, place)
}

// watched runs f on a connection that watches the keys.
func watching(ctx context.Context, rdb redis.UniversalClient, f func(*redis.Tx) error, keys ...string) error {
	called := false
	err := rdb.Watch(ctx, func(tx *redis.Tx) error {
		called = true
		return f(tx)
	}, keys...)
	if err == nil && !called { // go-redis 9.23 says so while a slot moves to another node of a cluster
		return fmt.Errorf("%s cannot be watched now: no node of the cluster has it", keys[0])
	}
	return err
}

// errTouched: somebody changed what the checkpoint vouches for and left it where it was,
// as Retry does.
var errTouched = errors.New("the read model was touched")

// watch watches the checkpoint, where that is not done all the time.
func (w *transaction) watch(ctx context.Context) error {
	if !w.private {
		return nil
	}
	err := w.tx.Watch(ctx, w.checkpointKey).Err()
	if err == nil {
		w.found, err = w.read(ctx)
	}
	return err
}

// read returns what stands in the checkpoint's place now, "" for nothing.
func (w *transaction) read(ctx context.Context) (string, error) {
	return projections.ReadText(ctx, w.tx, w.checkpointKey)
}

// documents reads documents by their keys, nil for those that are not there.
func (w *transaction) documents(ctx context.Context, keys []string) ([]*layout.Stored, error) {
	reply, err := w.tx.MGet(ctx, keys...).Result()
	if err != nil {
		return nil, fmt.Errorf("read the documents to replace: %w", err)
	}
	documents := make([]*layout.Stored, len(keys))
	for i, value := range reply {
		if text, ok := value.(string); ok {
			if documents[i], err = layout.DecodeDocument(text); err != nil {
				return nil, fmt.Errorf("%s: %w", keys[i], err)
			}
		}
	}
	return documents, nil
}

// A change is what one transaction does to the read model beside moving the
// checkpoint; the zero value is nothing.
type change struct {
	keys      layout.Keyspace
	documents []*layout.Document
	indexes   indexChanges
	healed    []any // sessions that are parked no more
	begins    bool  // the generation is a new one
}

// write carries a change out and moves the checkpoint from expected to after. When
// something else stands there, nothing is written and the error says what that means.
func (w *transaction) commit(ctx context.Context, expected string, after layout.Checkpoint, c change) error {
	if w.found != expected {
		return checkpointMoved(after.Identity, w.found)
	}
	trip := w.tx.Pipeline()
	trip.Do(ctx, "MULTI")
	c.send(ctx, trip, w.checkpointKey, after)
	if !w.private && w.checkpointKey == c.keys.Checkpoint() { // what nobody reads yet is no news, and would have writes answered too early
		trip.Do(ctx, "PUBLISH", c.keys.Notices(), after.String())
	}
	done := trip.Do(ctx, "EXEC")
	now := func() string { return after.String() }
	if !w.private { // otherwise each is a turn in a queue behind everybody who reads
		trip.Do(ctx, "WATCH", w.checkpointKey)
		now = trip.Get(ctx, w.checkpointKey).Val
	}
	if _, err := trip.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return err // of the first command that failed
	}
	w.found = now()
	replies, err := done.Slice()
	if errors.Is(err, redis.Nil) {
		if w.private {
			if w.found, err = w.read(ctx); err != nil {
				return err
			}
		}
		if w.found == expected {
			return errTouched
		}
		return checkpointMoved(after.Identity, w.found)
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

// send queues the commands of a change.
func (c *change) send(ctx context.Context, trip redis.Pipeliner, place string, after layout.Checkpoint) {
	set := make([]any, 3, 3+2*len(c.documents))
	set[0], set[1], set[2] = "MSET", place, after.String()
	var gone, parked []any
	for _, d := range c.documents {
		if d.Reason == "" {
			set = append(set, c.keys.Document(d.ID), d.Value)
			continue
		}
		gone = append(gone, c.keys.Document(d.ID))
		parked = append(parked, d.ID, layout.NewParked(d).String())
	}
	trip.Do(ctx, set...)
	if len(parked) > 0 {
		trip.Do(ctx, append([]any{"DEL"}, gone...)...)
		trip.Do(ctx, append([]any{"HSET", c.keys.Parked()}, parked...)...)
	}
	if c.begins {
		trip.Do(ctx, "SADD", c.keys.Generations(), c.keys.Generation)
	}
	if len(c.healed) > 0 {
		trip.Do(ctx, append([]any{"HDEL", c.keys.Parked()}, c.healed...)...)
	}
	for name, members := range c.indexes.leaving {
		trip.Do(ctx, append([]any{"ZREM", c.keys.Index(name)}, members...)...)
	}
	for name, members := range c.indexes.entering {
		trip.Do(ctx, append([]any{"ZADD", c.keys.Index(name)}, members...)...)
	}
}

// damaged tells everybody that what is there is no model of the log: Redis does not
// undo what it did before and after a command that failed.
func (w *transaction) damaged(ctx context.Context, cause error) error {
	mark := w.tx.Set(context.WithoutCancel(ctx), w.checkpointKey, "damaged", 0)
	return fmt.Errorf("%w: %w", errDamaged, errors.Join(cause, mark.Err()))
}

// moved says what it means that something else stands in the checkpoint's place.
func checkpointMoved(identity, found string) error {
	if c, ok := layout.ParseCheckpoint(found); ok && c.Identity == identity {
		return errDeposed
	}
	return fmt.Errorf("%w: checkpoint %q", errUnexpected, found)
}
