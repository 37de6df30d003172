package projections

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// dump returns everything that Redis holds of the read model that answers, and whatever
// else there is. Of generations it shows no names, since these are made up.
func dump(t testing.TB, rdb redis.UniversalClient) map[string]string {
	t.Helper()
	return dumpOf(t, rdb, 1)
}

// dumpOf is dump for a read model of so many partitions.
func dumpOf(t testing.TB, rdb redis.UniversalClient, partitions int) map[string]string {
	t.Helper()
	ctx := context.Background()
	keys, err := rdb.Keys(ctx, "*").Result()
	mustRun(t, err)
	all := map[string]string{}
	for _, key := range keys {
		kind, err := rdb.Type(ctx, key).Result()
		mustRun(t, err)
		name, text := key, ""
		var part partition // that the key is of
		for _, p := range newPartitions(partitions) {
			if strings.HasPrefix(key, p.base) {
				part = p
			}
		}
		if rest, ok := strings.CutPrefix(key, part.base); ok && part.base != "" && strings.Contains(rest, ":") {
			generation, rest, _ := strings.Cut(rest, ":")
			state := "of another generation "
			if c, _ := parseCheckpoint(rdb.Get(ctx, part.checkpoint()).Val()); c.generation == generation {
				state = ""
			}
			name = fmt.Sprint(part.shard, ": ", state, rest)
		}
		switch {
		case key == layoutsKey || key == part.generations():
			continue
		case kind == "string":
			text, err = rdb.Get(ctx, key).Result()
			if c, ok := parseCheckpoint(text); ok && key == part.checkpoint() {
				text = fmt.Sprint(c.identity, " ", c.position, " ", string(c.state))
			}
		case kind == "zset":
			var members []string
			members, err = rdb.ZRangeByLex(ctx, key, &redis.ZRangeBy{Min: "-", Max: "+"}).Result()
			for i, m := range members {
				_, id := placeOf(m)
				members[i] = id
			}
			text = strings.Join(members, " ")
		case kind == "hash":
			var fields map[string]string
			fields, err = rdb.HGetAll(ctx, key).Result()
			text = fmt.Sprint(fields)
		default:
			t.Fatalf("%s is a %s", key, kind)
		}
		mustRun(t, err)
		all[name] = text
	}
	return all
}

// reached waits until a checkpoint is at a position. Any goroutine may call it.
func reached(t testing.TB, rdb redis.UniversalClient, key string, position uint64) {
	t.Helper()
	for until := time.Now().Add(30 * time.Second); time.Now().Before(until); {
		if c, ok := parseCheckpoint(rdb.Get(t.Context(), key).Val()); ok && c.state != filling && c.position >= position {
			return
		}
		pause(t.Context(), time.Millisecond)
	}
	t.Errorf("%s does not reach %d", key, position)
}

// checkpoints returns what stands in the places of the partitions' checkpoints.
func checkpoints(t testing.TB, rdb redis.UniversalClient, partitions int) []string {
	t.Helper()
	var all []string
	for _, part := range newPartitions(partitions) {
		all = append(all, rdb.Get(t.Context(), part.checkpoint()).Val())
	}
	return all
}
