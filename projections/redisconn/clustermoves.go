package redisconn

import (
	"context"
	"strings"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
)

// onSlotMove calls moved before a command goes to another node of the cluster than the
// last command for its slot.
func onSlotMove(client *redis.ClusterClient, prefix string, moved func()) {
	owners := new(slotOwners)
	client.OnNewNode(func(node *redis.Client) { node.AddHook(slotHook{node, owners, prefix, moved}) })
}

// slotOwners are the nodes that got the last command for each slot.
type slotOwners [1 << 14]atomic.Pointer[redis.Client]

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
	if owner := &h.owners[slotOf(key)]; owner.Load() != h.node {
		h.moved() // before the owner is stored, so that no reader sees the new owner first
		owner.Store(h.node)
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

// slotOf returns the slot of a key in a Redis Cluster.
// https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#key-distribution-model
func slotOf(key string) uint16 {
	if open := strings.IndexByte(key, '{'); open >= 0 {
		if length := strings.IndexByte(key[open+1:], '}'); length > 0 {
			key = key[open+1 : open+1+length]
		}
	}
	var crc uint16 // CRC-16/XMODEM
	for i := range len(key) {
		crc ^= uint16(key[i]) << 8
		for range 8 {
			carry := crc >> 15
			crc = crc<<1 ^ carry*0x1021
		}
	}
	return crc % uint16(len(slotOwners{}))
}
