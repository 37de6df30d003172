package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/redis/go-redis/v9"

	"chatsessions/deploy/loopback"
)

// within repeats a step until it succeeds, for at most a duration.
func within(ctx context.Context, limit time.Duration, what string, step func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := step(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s is not ready: %w", what, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// listening waits until a server accepts connections.
func listening(ctx context.Context, addr string) error {
	return within(ctx, 10*time.Second, addr, func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// redis runs a redis-server as deployed, without snapshots, for the current measurement.
func (b *bench) redis(ctx context.Context) (url string, err error) {
	dir := b.dir("redis")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	port, err := loopback.Port()
	if err != nil {
		return "", err
	}
	cmd, err := launch(ctx, filepath.Join(dir, "output"), nil, "redis-server", "deploy/redis/redis.conf",
		"--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--dir", dir, "--save", "", "--appendonly", "no")
	if err != nil {
		return "", err
	}
	b.cleanup(func() error {
		_ = terminate(cmd)
		return os.RemoveAll(dir)
	})
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	return "redis://" + addr, listening(ctx, addr)
}

// redisMemory returns how many bytes Redis has allocated.
func redisMemory(ctx context.Context, url string) (float64, error) {
	options, err := redis.ParseURL(url)
	if err != nil {
		return 0, err
	}
	client := redis.NewClient(options)
	defer func() { _ = client.Close() }()
	memory, err := client.InfoMap(ctx, "memory").Result()
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(memory["Memory"]["used_memory"], 64)
}

// natsCluster starts three nats-servers as deployed, and a stream in them for the baseline.
func (b *bench) natsCluster(ctx context.Context) (url string, raw *rawLog, err error) {
	const servers, user, password = 3, "chatsessions", "secret"
	dir := b.dir("nats")
	ports, routes, urls := make([]int, 2*servers), make([]string, servers), make([]string, servers)
	for i := range ports {
		if ports[i], err = loopback.Port(); err != nil {
			return "", nil, err
		}
	}
	for i := range servers {
		routes[i] = fmt.Sprintf(`"nats-route://route:secret@127.0.0.1:%d"`, ports[servers+i])
		urls[i] = fmt.Sprintf("nats://%s:%s@127.0.0.1:%d", user, password, ports[i])
	}
	for i := range servers {
		store := filepath.Join(dir, strconv.Itoa(i+1))
		if err := os.MkdirAll(store, 0o700); err != nil {
			return "", nil, err
		}
		cmd, err := launch(ctx, filepath.Join(store, "output"), []string{
			"NATS_CLUSTER_LISTEN=" + fmt.Sprintf("127.0.0.1:%d", ports[servers+i]),
			"NATS_CLUSTER_USER=route", "NATS_CLUSTER_PASSWORD=secret",
			"NATS_CLUSTER_ROUTES=[" + strings.Join(routes, ", ") + "]",
			"NATS_USER=" + user, "NATS_PASSWORD=" + password,
			"NATS_STORE_DIR=" + strconv.Quote(store), "NATS_SERVER_NAME=chat-sessions-" + strconv.Itoa(i+1),
		}, b.nats, "-c", "deploy/nats/cluster.conf", "--addr", "127.0.0.1", "--port", strconv.Itoa(ports[i]))
		if err != nil {
			return "", nil, err
		}
		b.cleanup(func() error {
			_ = terminate(cmd)
			return nil
		})
	}
	url = strings.Join(urls, ",")
	raw = &rawLog{}
	err = within(ctx, 30*time.Second, "the cluster", func(ctx context.Context) error {
		nc, err := nats.Connect(url)
		if err != nil {
			return err
		}
		config := rawStream
		config.Replicas = servers
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		if raw.js, err = jetstream.New(nc); err == nil {
			_, err = raw.js.CreateOrUpdateStream(attempt, config)
		}
		if err != nil {
			nc.Close()
			return err
		}
		b.cleanup(func() error { nc.Close(); return nil })
		return nil
	})
	return url, raw, err
}
