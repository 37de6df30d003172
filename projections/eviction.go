package projections

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"chatsessions/projections/layout"
)

// An EvictionError is returned for a Redis that may drop keys of the read model to make
// room. Lists from it would silently lack sessions.
type EvictionError struct {
	Addr   string
	Policy string // the value of maxmemory-policy; "" if the server does not say
}

func (e *EvictionError) Error() string {
	if e.Policy == "" {
		return fmt.Sprintf("redis at %s does not say what its maxmemory-policy is (INFO memory), so it may drop keys; it has to be noeviction", e.Addr)
	}
	return fmt.Sprintf("redis at %s has maxmemory-policy %s: when it runs out of memory, it drops keys of the read model, and lists lack sessions; set maxmemory-policy noeviction (deploy/redis/redis.conf)",
		e.Addr, e.Policy)
}

// neverEvicts reports whether a policy keeps every document, index, and checkpoint. The
// policies that begin with volatile- drop only keys that expire. Of ours, these are the saved
// queries of long cursors; without one, a cursor is refused, as it is after a day. When no
// such key is left, Redis refuses writes, as it does with noeviction.
func neverEvicts(policy string) bool {
	return policy == "noeviction" || strings.HasPrefix(policy, "volatile-")
}

// CheckEviction returns an EvictionError if a server of the partitions may drop keys to make
// room. It then also removes their checkpoints: keys may be gone already, so the read model
// has to be rebuilt. The projector does that when the policy is right again.
func CheckEviction(ctx context.Context, rdb redis.UniversalClient, partitions []layout.Partition) error {
	asked := map[*redis.Client]bool{}
	for _, part := range partitions {
		server, err := serverOf(ctx, rdb, part)
		if err != nil {
			return fmt.Errorf("ask Redis for its maxmemory-policy: %w", err)
		}
		if asked[server] {
			continue
		}
		asked[server] = true
		err = checkServer(ctx, server)
		if evicts := new(*EvictionError); errors.As(err, evicts) && (*evicts).Policy != "" {
			return errors.Join(err, discard(ctx, rdb, partitions))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// serverOf returns a client of the server that has a partition.
func serverOf(ctx context.Context, rdb redis.UniversalClient, part layout.Partition) (*redis.Client, error) {
	switch rdb := rdb.(type) {
	case *redis.Client:
		return rdb, nil
	case *redis.ClusterClient:
		return rdb.MasterForKey(ctx, part.Checkpoint())
	}
	return nil, fmt.Errorf("a client of the type %T", rdb)
}

// checkServer asks by INFO: managed servers forbid CONFIG, and so does our own user.
func checkServer(ctx context.Context, server *redis.Client) error {
	memory, err := server.Info(ctx, "memory").Result()
	if err != nil {
		return fmt.Errorf("ask Redis at %s for its maxmemory-policy (INFO memory): %w", server.Options().Addr, err)
	}
	policy := ""
	for line := range strings.Lines(memory) {
		if value, found := strings.CutPrefix(line, "maxmemory_policy:"); found {
			policy = strings.TrimSpace(value)
		}
	}
	if neverEvicts(policy) {
		return nil
	}
	return &EvictionError{Addr: server.Options().Addr, Policy: policy}
}

// discard removes the checkpoints of the live read model and of one that is built beside it.
func discard(ctx context.Context, rdb redis.UniversalClient, partitions []layout.Partition) error {
	for _, part := range partitions {
		if err := rdb.Del(ctx, part.Checkpoint(), part.Next()).Err(); err != nil {
			return fmt.Errorf("discard the read model: %w", err)
		}
	}
	return nil
}
