package chaos

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"chatsessions/eventstore/natstest"
	"chatsessions/projections/redistest"
)

// embeddedSystem is one node with everything inside, on a small disk.
func embeddedSystem(t *testing.T, r *round) *system {
	disk := mountSmallDisk(t, "128m")
	n := startNode(t, "the node", "--data-dir", disk.dir+"/data")
	// A node that met a write error ends; until then it answers 503.
	ends := func() error {
		before := r.history.tally.unavailable()
		err := n.dies(failsWithin)
		r.totals.add("writes and reads answered 503 by a node with a write error", int(r.history.tally.unavailable()-before))
		return err
	}
	process := append(n.kinds(),
		kind{"does not sync", 4, shortestHold, n.inject(func(ctx context.Context, _ injection) error {
			again, err := n.failSyncs()
			if err != nil {
				return err
			}
			from := r.history.now()
			ended := ends()
			r.history.unsynced = append(r.history.unsynced, span{from, r.history.now()})
			again()
			return errors.Join(ended, n.up(ctx))
		})},
	)
	process = append(process, disk.kinds(kind{"disk full", 3, shortestHold, n.inject(func(ctx context.Context, f injection) error {
		// What is left ends in the middle of something.
		if err := disk.fill(int64(f.choice % (32 << 10))); err != nil {
			return err
		}
		ended := ends()
		return errors.Join(ended, disk.free(), n.up(ctx))
	})})...)
	return &system{nodes: []*node{n}, gremlins: []*gremlin{
		{part: "service", kinds: process, calm: 1500 * time.Millisecond},
		{part: "clients - service", kinds: linkKinds([]*link{n.clients}), calm: 3 * time.Second},
	}}
}

// failsWithin bounds how long a node whose disk takes nothing may go on: it ends at
// the next write, and answers before what is in flight.
const failsWithin = 20 * time.Second

// clusterSystem is two nodes, three NATS servers of which one is on a small disk,
// and a Redis; all connections but those between the NATS servers can be cut.
func clusterSystem(t *testing.T, _ *round) *system {
	disk := mountSmallDisk(t, "128m")
	// A server that told clients of the others would lead them past the links.
	alone := natstest.Config{Args: []string{"--no_advertise"}}
	onDisk := alone
	onDisk.StoreDir = disk.dir
	nats := natstest.StartCluster(t, alone, alone, onDisk)
	redis := redistest.Start(t, redistest.Config{Args: []string{"--appendonly", "yes", "--appendfsync", "always"}})

	s := &system{}
	var toClients, toNATS, toRedis []*link
	for _, name := range []string{"service 1", "service 2"} {
		var urls []string
		for _, server := range nats.Servers {
			l := startLinkTo(t, server.Addr())
			toNATS = append(toNATS, l)
			urls = append(urls, l.through(server.URL()))
		}
		l := startLinkTo(t, redis.Addr())
		toRedis = append(toRedis, l)
		n := startNode(t, name, "--nats-url", strings.Join(urls, ","), "--redis-url", l.through(redis.URL()), "--data-dir", t.TempDir())
		n.mayRefuse = true
		toClients = append(toClients, n.clients)
		s.nodes = append(s.nodes, n)
		s.gremlins = append(s.gremlins, &gremlin{part: name, kinds: n.kinds(), calm: 14 * time.Second})
	}
	s.gremlins = append(s.gremlins,
		&gremlin{part: "nats", kinds: natsKinds(nats, disk), calm: 8 * time.Second},
		&gremlin{part: "redis", kinds: redisKinds(redis), calm: 14 * time.Second},
		&gremlin{part: "clients - services", kinds: linkKinds(toClients), calm: 10 * time.Second},
		&gremlin{part: "services - nats", kinds: linkKinds(toNATS), calm: 9 * time.Second},
		&gremlin{part: "services - redis", kinds: linkKinds(toRedis), calm: 14 * time.Second},
	)
	return s
}

// natsKinds are the faults of the cluster. One server can be missed, two cannot.
func natsKinds(cluster *natstest.Cluster, disk smallDisk) []kind {
	some := func(f injection, n int) []*natstest.Server {
		var picked []*natstest.Server
		for i := range n {
			picked = append(picked, cluster.Servers[(f.choice+uint64(i))%uint64(len(cluster.Servers))])
		}
		return picked
	}
	killed := func(n int) func(ctx context.Context, f injection) error {
		return func(ctx context.Context, f injection) error {
			for _, s := range some(f, n) {
				s.Kill()
			}
			sleep(ctx, f.hold)
			for _, s := range some(f, n) {
				s.Restart()
			}
			return nil
		}
	}
	paused := func(n int) func(ctx context.Context, f injection) error {
		return func(ctx context.Context, f injection) error {
			for _, s := range some(f, n) {
				s.Pause()
			}
			sleep(ctx, f.hold)
			for _, s := range some(f, n) {
				s.Resume()
			}
			return nil
		}
	}
	return []kind{
		{"one of three killed", 3, 4 * time.Second, killed(1)},
		{"one of three paused", 4, 10 * time.Second, paused(1)}, // some for longer than an election takes
		{"two of three killed", 1, 9 * time.Second, killed(2)},
		{"two of three paused", 2, 9 * time.Second, paused(2)},
		{"disk of one full", 1, 4 * time.Second, func(ctx context.Context, f injection) error {
			server := cluster.Servers[2]
			if err := disk.fill(int64(f.choice % (32 << 10))); err != nil {
				return err
			}
			sleep(ctx, f.hold)
			server.Kill()
			if err := disk.free(); err != nil {
				return err
			}
			server.Restart()
			return nil
		}},
	}
}

func redisKinds(redis *redistest.Server) []kind {
	return []kind{
		{"killed", 2, 2 * time.Second, func(ctx context.Context, f injection) error {
			redis.Kill()
			sleep(ctx, f.hold)
			redis.Restart()
			return nil
		}},
		{"killed, and back without its data", 1, 2 * time.Second, func(ctx context.Context, f injection) error {
			redis.Kill()
			sleep(ctx, f.hold)
			redis.Restart()
			redis.Flush()
			return nil
		}},
		{"emptied", 1, shortestHold, func(context.Context, injection) error {
			redis.Flush()
			return nil
		}},
		{"paused", 2, 4 * time.Second, func(ctx context.Context, f injection) error {
			redis.Pause()
			sleep(ctx, f.hold)
			redis.Resume()
			return nil
		}},
	}
}
