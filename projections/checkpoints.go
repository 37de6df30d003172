package projections

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"chatsessions/projections/layout"
)

// Bound is how long a write waits for the read model after the log's acknowledgement
// before it is answered anyway (readmodel.ReadModel.WaitFor), and the oldest a probe of the
// log's end may be for a read to rely on it. So every answered write was either in the read
// model before its answer, or is at or before an end that was requested less than Bound ago.
const Bound = 2 * time.Second

// ErrOtherLog is returned when the live read model was made from another log. If the log
// was replaced on purpose, the service's projector builds a new read model.
var ErrOtherLog = errors.New("the read model in this Redis is of another log")

// ReadText returns the string at a key, "" for none.
func ReadText(ctx context.Context, from redis.Cmdable, key string) (string, error) {
	text, err := from.Get(ctx, key).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return "", fmt.Errorf("read %s: %w", key, err)
	}
	return text, nil
}

// Live returns the checkpoint of the live generation of a partition: the one that answers.
func Live(ctx context.Context, rdb redis.UniversalClient, part layout.Partition) (layout.Checkpoint, error) {
	text, err := ReadText(ctx, rdb, part.Checkpoint())
	c, ok := layout.ParseCheckpoint(text)
	if err == nil && text == "" {
		err = FindPartitions(ctx, rdb, part.Count)
	}
	if err == nil && !ok {
		err = fmt.Errorf("there is no usable read model: %s is %q", part.Checkpoint(), text)
	}
	return c, err
}

// LogHolds reports whether the log still has the event at the checkpoint.
func LogHolds(ctx context.Context, log Log, c layout.Checkpoint) (bool, error) {
	if c.Event == "" {
		return true, nil
	}
	id, err := log.EventID(ctx, c.Position)
	if err != nil {
		return false, fmt.Errorf("look for the event at the checkpoint: %w", err)
	}
	return id == c.Event, nil
}

// A PartitionsError is returned when a read model is needed and Redis has only some with
// another number of partitions.
type PartitionsError struct {
	Asked int
	Found []int
}

func (e *PartitionsError) Error() string {
	return fmt.Sprintf("there is no read model of %d partitions in this Redis, but of %d", e.Asked, e.Found)
}

// FindPartitions returns a PartitionsError when this Redis has read models with other
// numbers of partitions than the one asked for, and nil when it has no read model at all.
func FindPartitions(ctx context.Context, rdb redis.UniversalClient, asked int) error {
	pipe := rdb.Pipeline()
	for n := 1; n <= layout.MaxPartitions; n++ {
		pipe.Exists(ctx, layout.Partitions(n)[0].Checkpoint())
	}
	found, err := pipe.Exec(ctx)
	if err != nil {
		return fmt.Errorf("look for the read model: %w", err)
	}
	other := &PartitionsError{Asked: asked}
	for i, exists := range found {
		if n := i + 1; n != asked && exists.(*redis.IntCmd).Val() > 0 {
			other.Found = append(other.Found, n)
		}
	}
	if len(other.Found) > 0 {
		return other
	}
	return nil
}

// Pause waits for d and reports whether ctx is still alive.
func Pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
