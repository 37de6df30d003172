package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"chatsessions/deploy/loopback"
)

// A redisServer is a redis-server process with the configuration that is deployed,
// without snapshots.
type redisServer struct {
	cmd    *exec.Cmd
	dir    string
	url    string
	client *redis.Client
}

func startRedis(ctx context.Context, dir string) (*redisServer, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	port, err := loopback.Port()
	if err != nil {
		return nil, err
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	r := &redisServer{dir: dir, url: "redis://" + addr, client: redis.NewClient(&redis.Options{
		Addr: addr, ReadTimeout: time.Minute, // the size of a set of a million members takes its time
	})}
	r.cmd, err = launch(filepath.Join(dir, "output"), nil, "redis-server", "deploy/redis/redis.conf",
		"--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--dir", dir, "--save", "", "--appendonly", "no")
	if err != nil {
		return nil, err
	}
	ready, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		err := r.client.Ping(ready).Err()
		if err == nil {
			return r, nil
		}
		if ready.Err() != nil {
			r.stop()
			return nil, fmt.Errorf("redis-server did not get ready: %w", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (r *redisServer) stop() {
	_ = r.client.Close()
	_ = terminate(r.cmd)
	_ = os.RemoveAll(r.dir)
}

// used is the memory that Redis has given out, in bytes.
func (r *redisServer) used(ctx context.Context) (float64, error) {
	memory, err := r.client.InfoMap(ctx, "memory").Result()
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(memory["Memory"]["used_memory"], 64)
}

// usedByKind adds up what the keys occupy, each with its name and its value, by
// what they are for.
func (r *redisServer) usedByKind(ctx context.Context) (map[string]float64, error) {
	const batch = 1000
	sums := map[string]float64{}
	for cursor := uint64(0); ; {
		keys, next, err := r.client.Scan(ctx, cursor, "", batch).Result()
		if err != nil {
			return nil, err
		}
		pipeline := r.client.Pipeline()
		sizes := make([]*redis.IntCmd, len(keys))
		for i, key := range keys {
			sizes[i] = pipeline.MemoryUsage(ctx, key, 0) // 0 samples: every member of a set
		}
		if _, err := pipeline.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) { // Nil: the key has gone meanwhile
			return nil, err
		}
		for i, key := range keys {
			sums[kindOf(key)] += float64(sizes[i].Val())
		}
		if cursor = next; cursor == 0 {
			return sums, nil
		}
	}
}

// kindOf is what a key of the read model is for: doc, by and the field of an index, or,
// of a key that is of no generation, its name.
func kindOf(key string) string {
	_, name, found := strings.Cut(key, "}:")
	if !found {
		return "other"
	}
	_, inGeneration, found := strings.Cut(name, ":")
	if !found {
		return name
	}
	kind, rest, _ := strings.Cut(inGeneration, ":")
	if field, _, _ := strings.Cut(rest, ":"); kind == "by" {
		return kind + " " + field
	}
	return kind
}
