package projector

import (
	"context"
	_ "embed" // sweep.lua
	"fmt"
	"slices"

	"github.com/redis/go-redis/v9"

	"chatsessions/projections/layout"
)

//go:embed sweep.lua
var sweepSource string

var sweepScript = redis.NewScript(sweepSource)

// sweepKeys is how many keys one script examines.
const sweepKeys = 1000

// sweep removes the generations of a partition that no checkpoint names, and returns how
// many keys it removed. It calls progress with that number as it grows, and stops with
// progress's error. It can be interrupted and repeated.
func sweep(ctx context.Context, rdb redis.UniversalClient, part layout.Partition, progress func(removed int64) error) (removed int64, err error) {
	generations, err := rdb.SMembers(ctx, part.Generations()).Result()
	if err != nil {
		return 0, fmt.Errorf("list the generations of the read model: %w", err)
	}
	slices.Sort(generations)
	for _, generation := range generations {
		for cursor := "0"; ; {
			reply, err := sweepScript.Run(ctx, rdb, []string{part.Checkpoint(), part.Next(), part.Generations()},
				generation, part.Keys(generation).GenerationPattern(), cursor, sweepKeys).Slice()
			if err != nil {
				return removed, fmt.Errorf("remove generation %s of the read model: %w", generation, err)
			}
			cursor, _ = reply[0].(string)
			n, _ := reply[1].(int64)
			removed += n
			if err := progress(removed); err != nil {
				return removed, err
			}
			if cursor == "0" || cursor == "" {
				break
			}
		}
	}
	return removed, nil
}
