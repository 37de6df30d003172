package modeltest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"chatsessions/projections"
	"chatsessions/projections/layout"
	"chatsessions/projections/logtest"
)

// Dump returns everything in Redis, without the names of generations, which are random.
func Dump(t testing.TB, rdb redis.UniversalClient) map[string]string {
	t.Helper()
	return DumpOf(t, rdb, 1)
}

// DumpOf is Dump for a read model with that many partitions.
func DumpOf(t testing.TB, rdb redis.UniversalClient, partitions int) map[string]string {
	t.Helper()
	ctx := context.Background()
	keys, err := rdb.Keys(ctx, "*").Result()
	logtest.MustRun(t, err)
	all := map[string]string{}
	for _, key := range keys {
		var part layout.Partition // of the key
		for _, p := range layout.Partitions(partitions) {
			if strings.HasPrefix(key, p.Base) {
				part = p
			}
		}
		if key == layout.LayoutsKey || key == part.Generations() {
			continue
		}
		name := key
		if generation, rest, ok := strings.Cut(strings.TrimPrefix(key, part.Base), ":"); ok && part.Base != "" {
			state := "of another generation "
			if c, _ := layout.ParseCheckpoint(rdb.Get(ctx, part.Checkpoint()).Val()); c.Generation == generation {
				state = ""
			}
			name = fmt.Sprint(part.Number, ": ", state, rest)
		}
		kind, err := rdb.Type(ctx, key).Result()
		logtest.MustRun(t, err)
		var value any
		switch kind {
		case "string":
			value, err = rdb.Get(ctx, key).Result()
		case "zset":
			value, err = rdb.ZRange(ctx, key, 0, -1).Result()
		case "hash":
			value, err = rdb.HGetAll(ctx, key).Result()
		default:
			t.Fatalf("%s is a %s", key, kind)
		}
		logtest.MustRun(t, err)
		all[name] = fmt.Sprint(value)
		if c, ok := layout.ParseCheckpoint(all[name]); ok && key == part.Checkpoint() {
			all[name] = fmt.Sprint(c.Identity, " ", c.Position, " ", string(c.State))
		}
	}
	return all
}

// Reached waits until a checkpoint is at a position. Any goroutine may call it.
func Reached(t testing.TB, rdb redis.UniversalClient, key string, position uint64) {
	t.Helper()
	for until := time.Now().Add(30 * time.Second); time.Now().Before(until); {
		if c, ok := layout.ParseCheckpoint(rdb.Get(t.Context(), key).Val()); ok && c.State != layout.Filling && c.Position >= position {
			return
		}
		projections.Pause(t.Context(), time.Millisecond)
	}
	t.Errorf("%s does not reach %d", key, position)
}

// Checkpoints returns the checkpoints of all partitions.
func Checkpoints(t testing.TB, rdb redis.UniversalClient, partitions int) []string {
	t.Helper()
	var all []string
	for _, part := range layout.Partitions(partitions) {
		all = append(all, rdb.Get(t.Context(), part.Checkpoint()).Val())
	}
	return all
}
