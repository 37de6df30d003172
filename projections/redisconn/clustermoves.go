package redisconn

import (
	"context"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// onSlotMove calls moved before a command goes to another node of the cluster than the
// last command for its slot.
func onSlotMove(client *redis.ClusterClient, prefix string, moved func()) {
	owners := &slotOwners{nodes: map[string]*redis.Client{}}
	client.OnNewNode(func(node *redis.Client) { node.AddHook(slotHook{node, owners, prefix, moved}) })
}

// slotOwners are the nodes that got the last command for each slot, by the beginning of its
// keys up to the end of their hash tag.
type slotOwners struct {
	mu    sync.RWMutex
	nodes map[string]*redis.Client
}

// A slotHook sees every command that goes to one node of the cluster.
type slotHook struct {
	node   *redis.Client
	owners *slotOwners
	prefix string // begins the keys whose slots count
	moved  func()
}

func (h slotHook) see(cmd redis.Cmder) {
	key, ok := keyOf(cmd, h.prefix)
	if !ok {
		return
	}
	slot := key[:strings.IndexByte(key, '}')+1]
	h.owners.mu.RLock()
	owner := h.owners.nodes[slot]
	h.owners.mu.RUnlock()
	if owner != h.node {
		h.moved() // before the owner is stored, so that no reader sees the new owner first
		h.owners.mu.Lock()
		h.owners.nodes[strings.Clone(slot)] = h.node
		h.owners.mu.Unlock()
	}
}

func (h slotHook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h slotHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		h.see(cmd)
		return next(ctx, cmd)
	}
}

func (h slotHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			h.see(cmd)
		}
		return next(ctx, cmds)
	}
}

// keyOf returns the first key of a command: its first argument, or the third of a script.
func keyOf(cmd redis.Cmder, prefix string) (string, bool) {
	args := cmd.Args()
	for _, at := range [...]int{1, 3} {
		if at < len(args) {
			if key, ok := args[at].(string); ok && strings.HasPrefix(key, prefix) {
				return key, true
			}
		}
	}
	return "", false
}
