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

	"chatsessions/deploy/servertest"
	"chatsessions/projections/logtest"
)

// silence is how long a server may be silent before the others replace it.
const silence = 2 * time.Second

const masters, slots = 3, 16384

// A Cluster is a Redis Cluster of six processes on free ports of the loopback interface: three
// masters with a replica each. It ends with its test.
type Cluster struct{ group }

// StartCluster returns when the cluster serves all slots and every replica follows its master.
func StartCluster(tb testing.TB, config Config) *Cluster {
	tb.Helper()
	c := &Cluster{group{tb: tb, config: config}}
	for range 2 * masters {
		own := config
		bus := servertest.Port(tb)
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
		logtest.MustRun(tb, c.servers[0].ask("CLUSTER", "MEET", "127.0.0.1", s.port, bus).Err())
	}
	for i, s := range c.servers[:masters] {
		logtest.MustRun(tb, s.ask("CLUSTER", "ADDSLOTSRANGE", i*slots/masters, (i+1)*slots/masters-1).Err())
		id := c.idOf(s)
		servertest.Eventually(tb, patience, func() error { // the replica has to have heard of its master first
			return c.servers[masters+i].ask("CLUSTER", "REPLICATE", id).Err()
		})
	}
	c.AwaitWhole()
	return c
}

// URL returns where to reach the cluster.
func (c *Cluster) URL() string { return c.config.url("+cluster", c.servers, "", nil) }

// MasterOf returns the server that has the slot of a key.
func (c *Cluster) MasterOf(key string) *Server { return c.nodesOf(key)[0] }

// nodesOf returns the master of the slot of a key, and its replicas.
func (c *Cluster) nodesOf(key string) (nodes []*Server) {
	c.tb.Helper()
	slot := c.slotOf(key)
	servertest.Eventually(c.tb, patience, func() error { // while a slot moves, it may have no owner
		ranges, err := slotsOf(c.Servers()[0])
		if err != nil {
			return err
		}
		i := slices.IndexFunc(ranges, func(r redis.ClusterSlot) bool { return r.Start <= slot && slot <= r.End })
		if i < 0 {
			return fmt.Errorf("no server has the slot of %s", key)
		}
		for _, node := range ranges[i].Nodes {
			nodes = append(nodes, c.at(node.Addr))
		}
		return nil
	})
	return nodes
}

func (c *Cluster) slotOf(key string) int {
	c.tb.Helper()
	slot, err := c.Servers()[0].ask("CLUSTER", "KEYSLOT", key).Int()
	logtest.MustRun(c.tb, err)
	return slot
}

func (c *Cluster) idOf(s *Server) string {
	c.tb.Helper()
	id, err := s.ask("CLUSTER", "MYID").Text()
	logtest.MustRun(c.tb, err)
	return id
}

// FailOver makes a replica take over from the server that has the slot of a key, as an
// operator does before maintenance. Both keep running.
func (c *Cluster) FailOver(key string) {
	c.tb.Helper()
	nodes := c.nodesOf(key)
	var asked time.Time
	servertest.Eventually(c.tb, patience, func() error {
		if c.MasterOf(key) == nodes[1] {
			return nil
		}
		if time.Since(asked) > 3*silence { // soon after another failover, the others do not vote
			asked = time.Now()
			_ = nodes[1].ask("CLUSTER", "FAILOVER").Err()
		}
		return fmt.Errorf("%s has not taken over %s", nodes[1].Addr(), key)
	})
	c.AwaitWhole()
}

// BeginMove moves the key, and the function that it returns the rest of the slot, to another
// master, as an operator does who adds one. The cluster must have a password.
func (c *Cluster) BeginMove(key string) (end func()) {
	c.tb.Helper()
	from := c.MasterOf(key)
	ranges, err := slotsOf(from)
	logtest.MustRun(c.tb, err)
	other := slices.IndexFunc(ranges, func(r redis.ClusterSlot) bool { return r.Nodes[0].Addr != from.Addr() })
	to := c.at(ranges[other].Nodes[0].Addr)
	c.setSlot(to, key, "IMPORTING", from)
	c.setSlot(from, key, "MIGRATING", to)
	c.migrate(from, to, key)
	return func() {
		c.tb.Helper()
		for {
			keys, err := from.ask("CLUSTER", "GETKEYSINSLOT", c.slotOf(key), 10).Slice()
			logtest.MustRun(c.tb, err)
			if len(keys) == 0 {
				break
			}
			c.migrate(from, to, keys...)
		}
		c.setSlot(to, key, "NODE", to)
		c.setSlot(from, key, "NODE", to)
	}
}

// migrate moves those of the keys that exist.
func (c *Cluster) migrate(from, to *Server, keys ...any) {
	c.tb.Helper()
	move := []any{"MIGRATE", "127.0.0.1", to.port, "", 0, patience.Milliseconds(), "AUTH", c.config.password(), "KEYS"}
	logtest.MustRun(c.tb, from.ask(append(move, keys...)...).Err())
}

func (c *Cluster) setSlot(on *Server, key, state string, node *Server) {
	c.tb.Helper()
	logtest.MustRun(c.tb, on.ask("CLUSTER", "SETSLOT", c.slotOf(key), state, c.idOf(node)).Err())
}

// AwaitServed returns when every running server reports all slots as served.
func (c *Cluster) AwaitServed() { c.tb.Helper(); c.await(false) }

// AwaitWhole returns when every slot is served, and has a replica that follows.
func (c *Cluster) AwaitWhole() { c.tb.Helper(); c.await(true) }

func (c *Cluster) await(whole bool) {
	c.tb.Helper()
	for _, s := range c.Servers() {
		servertest.Eventually(c.tb, patience, func() error { return c.served(s, whole) })
	}
}

// served returns nil if a server reports that the cluster is served, or whole.
func (c *Cluster) served(by *Server, whole bool) error {
	info, err := by.ask("CLUSTER", "INFO").Text()
	if err != nil {
		return err
	}
	if !strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, fmt.Sprintf("cluster_known_nodes:%d\r", len(c.servers))) {
		return fmt.Errorf("%s reports %s", by.Addr(), info)
	}
	ranges, err := slotsOf(by)
	if err != nil {
		return err
	}
	for _, r := range ranges {
		if !c.at(r.Nodes[0].Addr).Running() {
			return fmt.Errorf("slots %d to %d belong to %s, which has ended", r.Start, r.End, r.Nodes[0].Addr)
		}
		if whole && len(r.Nodes) < 2 {
			return fmt.Errorf("slots %d to %d have no replica", r.Start, r.End)
		}
		for _, replica := range r.Nodes[1:] {
			if err := c.at(replica.Addr).follows(); whole && err != nil {
				return err
			}
		}
	}
	return nil
}

// slotsOf returns the owners of all slots according to a server.
func slotsOf(s *Server) ([]redis.ClusterSlot, error) {
	command := redis.NewClusterSlotsCmd(context.Background(), "CLUSTER", "SLOTS")
	err := s.send(command)
	return command.Val(), err
}
