package main

import (
	"slices"
	"testing"

	"chatsessions/eventstore/natstest"
	"chatsessions/projections/redistest"
)

// onAllSetups runs a test on each way to run the service: everything embedded, a
// real Redis beside the embedded log, and both outside.
func onAllSetups(t *testing.T, test func(t *testing.T, s *service)) {
	t.Run("embedded", func(t *testing.T) {
		test(t, startService(t, "--dev"))
	})
	t.Run("redis", func(t *testing.T) {
		redis := redistest.Start(t, redistest.Config{})
		test(t, startService(t, "--dev", "--redis-url", redis.URL()))
	})
	t.Run("nats and redis", func(t *testing.T) {
		nats, redis := natstest.Start(t, natstest.Config{}), redistest.Start(t, redistest.Config{})
		test(t, startService(t, "--dev", "--nats-url", nats.URL(), "--redis-url", redis.URL()))
	})
}

// onSeveralNodes runs a test on nodes that share one NATS: two complete ones on one
// Redis, a projector with two that only serve the API, and two with a Redis of their
// own inside, of which neither hears how far the other one's is.
func onSeveralNodes(t *testing.T, test func(t *testing.T, nodes []*service)) {
	t.Run("two complete nodes", func(t *testing.T) {
		urls := startServers(t).flags()
		test(t, []*service{startService(t, urls...), startService(t, urls...)})
	})
	t.Run("a projector and two API nodes", func(t *testing.T) {
		urls := startServers(t).flags()
		startService(t, append(urls, "--only", "projector")...)
		api := append(urls, "--only", "api")
		test(t, []*service{startService(t, api...), startService(t, api...)})
	})
	t.Run("two nodes with a Redis each", func(t *testing.T) {
		nats := natstest.Start(t, natstest.Config{})
		test(t, []*service{startService(t, "--dev", "--nats-url", nats.URL()), startService(t, "--dev", "--nats-url", nats.URL())})
	})
}

// onRealRedis runs a test on the set-ups that have a real Redis.
func onRealRedis(t *testing.T, test func(t *testing.T, s *service, redis *redistest.Server)) {
	t.Run("embedded log", func(t *testing.T) {
		redis := redistest.Start(t, redistest.Config{})
		test(t, startService(t, "--dev", "--redis-url", redis.URL()), redis)
	})
	t.Run("real nats", func(t *testing.T) {
		servers := servers{natstest.Start(t, natstest.Config{}), redistest.Start(t, redistest.Config{})}
		test(t, startService(t, servers.flags()...), servers.redis)
	})
}

// onEveryStore runs a test, in parallel with others, on each way to run the service,
// with metrics; flags are those by which a command finds it.
func onEveryStore(t *testing.T, test func(t *testing.T, s *service, flags []string)) {
	t.Parallel()
	t.Run("everything embedded", func(t *testing.T) {
		t.Parallel()
		s := startService(t, "--dev", "--ops-listen", "127.0.0.1:0")
		test(t, s, []string{"--data-dir", s.flag("--data-dir")})
	})
	t.Run("log embedded", func(t *testing.T) {
		t.Parallel()
		redis := redistest.Start(t, redistest.Config{})
		s := startService(t, "--dev", "--ops-listen", "127.0.0.1:0", "--redis-url", redis.URL())
		test(t, s, []string{"--data-dir", s.flag("--data-dir"), "--redis-url", redis.URL()})
	})
	t.Run("nats and redis", func(t *testing.T) {
		t.Parallel()
		servers := servers{natstest.Start(t, natstest.Config{}), redistest.Start(t, redistest.Config{})}
		test(t, startService(t, append(servers.flags(), "--ops-listen", "127.0.0.1:0")...), servers.stores())
	})
}

// servers are the real ones that a service can be run with.
type servers struct {
	nats  *natstest.Server
	redis *redistest.Server
}

func startServers(t *testing.T) servers {
	t.Helper()
	return servers{natstest.Start(t, natstest.Config{}), redistest.Start(t, redistest.Config{})}
}

func (s servers) flags() []string {
	return slices.Clip([]string{"--dev", "--nats-url", s.nats.URL(), "--redis-url", s.redis.URL()})
}

// stores are the flags that say where the servers are.
func (s servers) stores() []string {
	return slices.Clip([]string{"--nats-url", s.nats.URL(), "--redis-url", s.redis.URL()})
}
