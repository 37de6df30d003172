package projector

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"chatsessions/projections"
	"chatsessions/projections/layout"
)

// A transaction changes one generation of a partition over a connection that watches its
// checkpoint (WATCH, MULTI, EXEC; docs/decisions/0006 says why not a script). Redis executes
// a commit completely, and only if the checkpoint has not moved since it was read. Each
// commit also watches and reads the checkpoint for the next one, so a batch costs one round
// trip. On a private Redis a commit does not watch: nothing else writes there.
//
// The first WATCH goes through redis.Client.Watch, which sends UNWATCH at the end in any
// case, so the connection returns to the pool watching nothing.
type transaction struct {
	conn          *redis.Tx
	checkpointKey string // of the live generation, or of one built beside it
	private       bool   // no other process uses this Redis
	found         string // the checkpoint as it was when it was last watched
}

// withTransaction runs f with a transaction on the checkpoint at a key.
func withTransaction(ctx context.Context, rdb redis.UniversalClient, checkpointKey string, private bool, f func(*transaction) error) error {
	// When ctx ends, f ends; the connection still has to send UNWATCH.
	return watching(context.WithoutCancel(ctx), rdb, func(conn *redis.Tx) error {
		tx := &transaction{conn: conn, checkpointKey: checkpointKey, private: private}
		var err error
		if tx.found, err = tx.read(ctx); err != nil {
			return err
		}
		return f(tx)
	}, checkpointKey)
}

// watching runs f on a connection that watches the keys.
func watching(ctx context.Context, rdb redis.UniversalClient, f func(*redis.Tx) error, keys ...string) error {
	called := false
	err := rdb.Watch(ctx, func(conn *redis.Tx) error {
		called = true
		return f(conn)
	}, keys...)
	if err == nil && !called { // go-redis 9.23 does this while a slot moves to another node of a cluster
		return fmt.Errorf("cannot watch %s: no node of the cluster owns its slot now", keys[0])
	}
	return err
}

// errTouched: a watched checkpoint was written and has the same value, as Retry leaves
// it.
var errTouched = errors.New("the read model was touched")

// watch watches the checkpoint of a private Redis, where that is not always done.
func (tx *transaction) watch(ctx context.Context) error {
	if !tx.private {
		return nil
	}
	err := tx.conn.Watch(ctx, tx.checkpointKey).Err()
	if err == nil {
		tx.found, err = tx.read(ctx)
	}
	return err
}

// read returns the checkpoint as it is now, "" for none.
func (tx *transaction) read(ctx context.Context) (string, error) {
	return projections.ReadText(ctx, tx.conn, tx.checkpointKey)
}

// documents reads documents by key, nil for a missing one.
func (tx *transaction) documents(ctx context.Context, keys []string) ([]*layout.Stored, error) {
	reply, err := tx.conn.MGet(ctx, keys...).Result()
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

// A change is what a transaction does besides moving the checkpoint, by default nothing.
type change struct {
	keys      layout.Keyspace
	documents []*layout.Document
	indexes   indexChanges
	healed    []any // sessions that are no longer parked
	begins    bool  // this is a new generation
}

// commit executes a change and moves the checkpoint from expected to after. If the
// checkpoint is another one, it writes nothing and returns an error that says why.
func (tx *transaction) commit(ctx context.Context, expected string, after layout.Checkpoint, c change) error {
	if tx.found != expected {
		return checkpointMoved(after.Identity, tx.found)
	}
	trip := tx.conn.Pipeline()
	trip.Do(ctx, "MULTI")
	c.send(ctx, trip, tx.checkpointKey, after)
	if !tx.private && tx.checkpointKey == c.keys.Partition.Checkpoint() { // a notice of a hidden generation would release writes too early
		trip.Do(ctx, "PUBLISH", c.keys.Partition.Notices(), after.String())
	}
	done := trip.Do(ctx, "EXEC")
	now := func() string { return after.String() }
	if !tx.private { // each command to the embedded Redis waits behind all readers
		trip.Do(ctx, "WATCH", tx.checkpointKey)
		now = trip.Get(ctx, tx.checkpointKey).Val
	}
	if _, err := trip.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return err // the first command that failed
	}
	tx.found = now()
	replies, err := done.Slice()
	if errors.Is(err, redis.Nil) {
		if tx.private {
			if tx.found, err = tx.read(ctx); err != nil {
				return err
			}
		}
		if tx.found == expected {
			return errTouched
		}
		return checkpointMoved(after.Identity, tx.found)
	}
	if err != nil {
		return err
	}
	for _, reply := range replies {
		if failed, ok := reply.(error); ok {
			// Redis keeps the effects of the other commands.
			mark := tx.conn.Set(context.WithoutCancel(ctx), tx.checkpointKey, "damaged", 0)
			return fmt.Errorf("%w: %w", errDamaged, errors.Join(failed, mark.Err()))
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
		trip.Do(ctx, "SADD", c.keys.Partition.Generations(), c.keys.Generation)
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

// checkpointMoved returns the error for an unexpected checkpoint.
func checkpointMoved(identity, found string) error {
	if c, ok := layout.ParseCheckpoint(found); ok && c.Identity == identity {
		return errDeposed
	}
	return fmt.Errorf("%w: checkpoint %q", errUnexpected, found)
}
