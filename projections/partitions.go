package projections

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// A PartitionsError is returned by what needs a read model that is there, when there are
// only some with another number of partitions.
type PartitionsError struct {
	Asked int
	Found []int
}

func (e *PartitionsError) Error() string {
	return fmt.Sprintf("there is no read model of %d partitions in this Redis, but of %d", e.Asked, e.Found)
}

// findPartitions returns a PartitionsError when this Redis has read models with other
// numbers of partitions than the one asked for, nil when it has none at all.
func findPartitions(ctx context.Context, rdb redis.UniversalClient, asked int) error {
	other := &PartitionsError{Asked: asked}
	pipe := rdb.Pipeline()
	found := make([]*redis.IntCmd, MaxPartitions+1)
	for n := 1; n <= MaxPartitions; n++ {
		found[n] = pipe.Exists(ctx, newPartitions(n)[0].checkpoint())
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("look for the read model: %w", err)
	}
	for n := 1; n <= MaxPartitions; n++ {
		if found[n].Val() > 0 && n != asked {
			other.Found = append(other.Found, n)
		}
	}
	if len(other.Found) > 0 {
		return other
	}
	return nil
}
