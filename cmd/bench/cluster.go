package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chatsessions/deploy/loopback"
)

// A cluster is three nats-server processes with the configuration that is
// deployed, and a redis-server.
type cluster struct {
	processes []*exec.Cmd
	addrs     []string
	redis     *redisServer
	nc        *nats.Conn
	raw       rawLog // only its publish
}

// clusterUser and clusterPassword are what clients of the cluster give.
const clusterUser, clusterPassword = "chatsessions", "secret"

func startCluster(ctx context.Context, binary, dir string) (*cluster, error) {
	c := &cluster{}
	if err := c.start(ctx, binary, dir); err != nil {
		c.stop()
		return nil, err
	}
	return c, nil
}

func (c *cluster) start(ctx context.Context, binary, dir string) error {
	const servers = 3
	ports := make([]int, 2*servers)
	for i := range ports {
		var err error
		if ports[i], err = loopback.Port(); err != nil {
			return err
		}
	}
	routes := make([]string, servers)
	for i := range routes {
		routes[i] = fmt.Sprintf("%q", fmt.Sprintf("nats-route://route:secret@127.0.0.1:%d", ports[servers+i]))
	}
	for i := range servers {
		store := filepath.Join(dir, fmt.Sprintf("nats-%d", i+1))
		if err := os.MkdirAll(store, 0o700); err != nil {
			return err
		}
		c.addrs = append(c.addrs, fmt.Sprintf("127.0.0.1:%d", ports[i]))
		cmd, err := launch(filepath.Join(store, "output"), []string{
			"NATS_CLUSTER_LISTEN=" + fmt.Sprintf("127.0.0.1:%d", ports[servers+i]),
			"NATS_CLUSTER_USER=route", "NATS_CLUSTER_PASSWORD=secret",
			"NATS_CLUSTER_ROUTES=[" + strings.Join(routes, ", ") + "]",
			"NATS_USER=" + clusterUser, "NATS_PASSWORD=" + clusterPassword,
			"NATS_STORE_DIR=" + strconv.Quote(store), "NATS_SERVER_NAME=chat-sessions-" + strconv.Itoa(i+1),
		}, binary, "-c", "deploy/nats/cluster.conf", "--addr", "127.0.0.1", "--port", strconv.Itoa(ports[i]))
		if err != nil {
			return err
		}
		c.processes = append(c.processes, cmd)
	}
	var err error
	if c.redis, err = startRedis(ctx, filepath.Join(dir, "redis")); err != nil {
		return err
	}
	return c.connect(ctx)
}

// connect waits for the cluster and makes the stream of the baseline.
func (c *cluster) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		err := c.tryConnect(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func (c *cluster) tryConnect(ctx context.Context) (err error) {
	if c.nc == nil {
		if c.nc, err = nats.Connect(c.natsURL(), nats.UserInfo(clusterUser, clusterPassword)); err != nil {
			return err
		}
		if c.raw.js, err = jetstream.New(c.nc); err != nil {
			return err
		}
	}
	attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	config := rawStream
	config.Replicas = 3
	_, err = c.raw.js.CreateOrUpdateStream(attempt, config)
	return err
}

// natsURL names all servers, with the credentials.
func (c *cluster) natsURL() string {
	return "nats://" + clusterUser + ":" + clusterPassword + "@" + strings.Join(c.addrs, ",nats://"+clusterUser+":"+clusterPassword+"@")
}

func (c *cluster) stop() {
	if c.nc != nil {
		c.nc.Close()
	}
	for _, p := range c.processes {
		_ = p.Process.Signal(syscall.SIGTERM)
	}
	for _, p := range c.processes {
		_ = p.Wait()
	}
	if c.redis != nil {
		c.redis.stop()
	}
}
