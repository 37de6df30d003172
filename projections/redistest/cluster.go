package redistest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// failoverTimeout is how long a replica may take to become a master: the time after
// which a silent master is given up, an election, and a machine with much to do.
const failoverTimeout = 30 * time.Second

// silence is how long a server says nothing until the others give it up.
const silence = 2 * time.Second

const masters, slots = 3, 16384

// A Cluster is a Redis Cluster of six redis-server processes on free ports of the
// loopback interface: three masters with a third of the slots each, and a replica of
// each. It ends with its test.
type Cluster struct {
	tb      testing.TB
	config  Config
	servers []*Server
}

// StartCluster runs a cluster, and returns when it serves all slots and every replica
// follows its master.
func StartCluster(tb testing.TB, config Config) *Cluster {
	tb.Helper()
	c := &Cluster{tb: tb, config: config}
	for range 2 * masters {
		own := config
		bus := strconv.Itoa(freePort(tb))
		own.Args = slices.Concat(config.Args, []string{
			"--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-port", bus,
			"--cluster-node-timeout", strconv.FormatInt(silence.Milliseconds(), 10),
			"--repl-diskless-sync-delay", "0", // a replica need not wait for others
			"--repl-ping-replica-period", "1", // the first tells that it follows
		})
		s := Start(tb, own)
		c.servers = append(c.servers, s)
		if s == c.servers[0] {
			continue
		}
		c.must(c.servers[0].do(func(ctx context.Context, rdb *redis.Client) error {
			return rdb.Do(ctx, "CLUSTER", "MEET", "127.0.0.1", strconv.Itoa(s.port), bus).Err()
		}))
	}
	var ids []string
	for i, s := range c.servers {
		c.must(s.do(func(ctx context.Context, rdb *redis.Client) error {
			id, err := rdb.Do(ctx, "CLUSTER", "MYID").Text()
			ids = append(ids, id)
			if err != nil || i >= masters {
				return err
			}
			return rdb.ClusterAddSlotsRange(ctx, i*slots/masters, (i+1)*slots/masters-1).Err()
		}))
	}
	for i, s := range c.servers[masters:] {
		eventually(tb, startTimeout, func() error { // it has to have heard of its master first
			return s.do(func(ctx context.Context, rdb *redis.Client) error { return rdb.ClusterReplicate(ctx, ids[i]).Err() })
		})
	}
	c.AwaitWhole()
	return c
}

// URL returns where to reach the cluster.
func (c *Cluster) URL() string { return c.config.url("+cluster", c.addrs(), "", nil) }

func (c *Cluster) addrs() []string {
	var addrs []string
	for _, s := range c.servers {
		addrs = append(addrs, s.Addr())
	}
	return addrs
}

// Servers returns all servers that run.
func (c *Cluster) Servers() []*Server {
	return slices.DeleteFunc(slices.Clone(c.servers), func(s *Server) bool { return !s.alive() })
}

// MasterOf returns the server that has the slot of a key.
func (c *Cluster) MasterOf(key string) *Server { return c.nodesOf(key)[0] }

// nodesOf returns the master of the slot of a key, and its replicas.
func (c *Cluster) nodesOf(key string) []*Server {
	c.tb.Helper()
	var nodes []*Server
	eventually(c.tb, failoverTimeout, func() error { // while it changes hands, it may be nobody's
		return c.Servers()[0].do(func(ctx context.Context, rdb *redis.Client) error {
			slot, err := rdb.ClusterKeySlot(ctx, key).Result()
			if err != nil {
				return err
			}
			ranges, err := slotsAsClientsSeeThem(ctx, rdb)
			if err != nil {
				return err
			}
			for _, r := range ranges {
				if int(slot) < r.Start || int(slot) > r.End {
					continue
				}
				for _, node := range r.Nodes {
					nodes = append(nodes, c.at(node.Addr))
				}
				return nil
			}
			return fmt.Errorf("nobody has the slot of %s", key)
		})
	})
	return nodes
}

func (c *Cluster) at(addr string) *Server {
	c.tb.Helper()
	i := slices.IndexFunc(c.servers, func(s *Server) bool { return s.Addr() == addr })
	if i < 0 {
		c.tb.Fatalf("no server of the cluster is at %s", addr)
	}
	return c.servers[i]
}

// KillMasterOf ends the server that has the slot of a key, as kill -9 does, and returns
// it. Its replica takes over by itself; AwaitServed waits for that.
func (c *Cluster) KillMasterOf(key string) *Server {
	c.tb.Helper()
	victim := c.MasterOf(key)
	victim.Kill()
	return victim
}

// FailOver has a replica of the server that has the slot of a key take over from it,
// as an operator does before maintenance: both go on running.
func (c *Cluster) FailOver(key string) {
	c.tb.Helper()
	nodes := c.nodesOf(key)
	if len(nodes) < 2 {
		c.tb.Fatalf("the master of %s has no replica", key)
	}
	var asked time.Time
	eventually(c.tb, failoverTimeout, func() error {
		if c.MasterOf(key) == nodes[1] {
			return nil
		}
		if time.Since(asked) > 3*silence { // it gives up; soon after another failover the others do not vote
			asked = time.Now()
			_ = nodes[1].do(func(ctx context.Context, rdb *redis.Client) error { return rdb.ClusterFailover(ctx).Err() })
		}
		return fmt.Errorf("%s has not taken over %s", nodes[1].Addr(), key)
	})
	c.AwaitWhole()
}

// BeginMove has the slot of a key begin to move to another master, the key first, as an
// operator does who adds a master: what is not there any more is asked for at the other.
func (c *Cluster) BeginMove(key string) {
	c.tb.Helper()
	from, to := c.MasterOf(key), c.otherMaster(key)
	c.setSlot(to, key, "IMPORTING", from)
	c.setSlot(from, key, "MIGRATING", to)
	c.must(from.do(func(ctx context.Context, rdb *redis.Client) error { return c.migrate(ctx, rdb, to, key) }))
}

// EndMove moves what is left in the slot of a key, and gives the slot to the master that
// it moves to.
func (c *Cluster) EndMove(key string) {
	c.tb.Helper()
	from, to := c.MasterOf(key), c.otherMaster(key)
	c.must(from.do(func(ctx context.Context, rdb *redis.Client) error {
		slot, err := rdb.ClusterKeySlot(ctx, key).Result()
		for err == nil {
			var keys []string
			if keys, err = rdb.ClusterGetKeysInSlot(ctx, int(slot), 10).Result(); len(keys) == 0 {
				break
			}
			err = c.migrate(ctx, rdb, to, keys...)
		}
		return err
	}))
	c.setSlot(to, key, "NODE", to)
	c.setSlot(from, key, "NODE", to)
}

// migrate moves keys, where they are there.
func (c *Cluster) migrate(ctx context.Context, from *redis.Client, to *Server, keys ...string) error {
	move := []any{"MIGRATE", "127.0.0.1", to.port, "", 0, startTimeout.Milliseconds()}
	if password := c.config.password(); password != "" {
		move = append(move, "AUTH", password)
	}
	move = append(move, "KEYS")
	for _, key := range keys {
		move = append(move, key)
	}
	return from.Do(ctx, move...).Err()
}

// otherMaster returns a master that does not have the slot of a key, always the same.
func (c *Cluster) otherMaster(key string) *Server {
	c.tb.Helper()
	has := c.MasterOf(key)
	for i := range slots {
		if s := c.MasterOf(fmt.Sprint(i)); s != has {
			return s
		}
	}
	return nil // there are three
}

func (c *Cluster) setSlot(on *Server, key, state string, node *Server) {
	c.tb.Helper()
	var id string
	c.must(node.do(func(ctx context.Context, rdb *redis.Client) (err error) {
		id, err = rdb.Do(ctx, "CLUSTER", "MYID").Text()
		return err
	}))
	c.must(on.do(func(ctx context.Context, rdb *redis.Client) error {
		slot, err := rdb.ClusterKeySlot(ctx, key).Result()
		if err != nil {
			return err
		}
		return rdb.Do(ctx, "CLUSTER", "SETSLOT", slot, state, id).Err()
	}))
}

// AwaitServed returns when every server that runs says that the cluster serves all
// slots, none of them by a server that has ended.
func (c *Cluster) AwaitServed() {
	c.tb.Helper()
	c.await(func(ranges []redis.ClusterSlot) error {
		for _, r := range ranges {
			if !c.at(r.Nodes[0].Addr).alive() {
				return fmt.Errorf("slots %d to %d are those of %s, which has ended", r.Start, r.End, r.Nodes[0].Addr)
			}
		}
		return nil
	})
}

// AwaitWhole returns when every slot is served, and has a replica that follows.
func (c *Cluster) AwaitWhole() {
	c.tb.Helper()
	c.AwaitServed()
	c.await(func(ranges []redis.ClusterSlot) error {
		for _, r := range ranges {
			if len(r.Nodes) < 2 {
				return fmt.Errorf("slots %d to %d have no replica", r.Start, r.End)
			}
			for _, replica := range r.Nodes[1:] {
				if err := c.at(replica.Addr).follows(); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func (c *Cluster) await(fine func([]redis.ClusterSlot) error) {
	c.tb.Helper()
	for _, s := range c.Servers() {
		eventually(c.tb, failoverTimeout, func() error {
			return s.do(func(ctx context.Context, rdb *redis.Client) error {
				info, err := rdb.ClusterInfo(ctx).Result()
				if err != nil {
					return err
				}
				if !strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, fmt.Sprintf("cluster_known_nodes:%d\r", len(c.servers))) {
					return fmt.Errorf("%s says %s", s.Addr(), info)
				}
				ranges, err := slotsAsClientsSeeThem(ctx, rdb)
				if err != nil {
					return err
				}
				return fine(ranges)
			})
		})
	}
}

func slotsAsClientsSeeThem(ctx context.Context, rdb *redis.Client) ([]redis.ClusterSlot, error) {
	return rdb.ClusterSlots(ctx).Result() //nolint:staticcheck // go-redis asks this way too
}

// follows returns an error unless the server is a replica that is in touch with its
// master.
func (s *Server) follows() error {
	return s.do(func(ctx context.Context, rdb *redis.Client) error {
		info, err := rdb.Info(ctx, "replication").Result()
		if err == nil && !strings.Contains(info, "master_link_status:up") {
			err = fmt.Errorf("%s does not follow its master: %s", s.Addr(), info)
		}
		return err
	})
}

// CheckRights fails the test when somebody asked a server for what Config.ACL does not
// allow.
func (c *Cluster) CheckRights() {
	c.tb.Helper()
	for _, s := range c.Servers() {
		s.CheckRights()
	}
}

func (c *Cluster) must(err error) {
	c.tb.Helper()
	if err != nil {
		c.tb.Fatalf("redis cluster: %v", err)
	}
}
