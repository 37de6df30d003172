package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A cluster is three nats-server processes with the configuration that is
// deployed, and a redis-server.
type cluster struct {
	processes []*exec.Cmd
	addrs     []string
	redisURL  string
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
	ports, err := freePorts(2*servers + 1)
	if err != nil {
		return err
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
		err := c.run(filepath.Join(store, "output"), []string{
			"NATS_CLUSTER_LISTEN=" + fmt.Sprintf("127.0.0.1:%d", ports[servers+i]),
			"NATS_CLUSTER_USER=route", "NATS_CLUSTER_PASSWORD=secret",
			"NATS_CLUSTER_ROUTES=[" + strings.Join(routes, ", ") + "]",
			"NATS_USER=" + clusterUser, "NATS_PASSWORD=" + clusterPassword,
			"NATS_STORE_DIR=" + strconv.Quote(store), "NATS_SERVER_NAME=chat-sessions-" + strconv.Itoa(i+1),
		}, binary, "-c", "deploy/nats/cluster.conf", "--addr", "127.0.0.1", "--port", strconv.Itoa(ports[i]))
		if err != nil {
			return err
		}
	}
	redis := ports[2*servers]
	c.redisURL = fmt.Sprintf("redis://127.0.0.1:%d", redis)
	err = c.run(filepath.Join(dir, "redis-output"), nil, "redis-server", "--bind", "127.0.0.1", "--port", strconv.Itoa(redis), "--save", "", "--appendonly", "no")
	if err != nil {
		return err
	}
	return c.connect(ctx)
}

func (c *cluster) run(output string, env []string, name string, args ...string) error {
	out, err := os.Create(output)
	if err != nil {
		return err
	}
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return errors.Join(err, out.Close())
	}
	c.processes = append(c.processes, cmd)
	return out.Close()
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
}

// freePorts returns ports of the loopback interface that nobody uses now.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
