package rig

import (
	"slices"
	"testing"

	"chatsessions/eventstore/natstest"
	"chatsessions/projections/redistest"
)

// OnAllSetups runs a test on each set-up of the service: everything embedded, a real
// Redis beside the embedded log, and both external.
func OnAllSetups(t *testing.T, test func(t *testing.T, s *Service)) {
	t.Run("embedded", func(t *testing.T) {
		test(t, Start(t, "--dev"))
	})
	t.Run("redis", func(t *testing.T) {
		redis := redistest.Start(t, redistest.Config{})
		test(t, Start(t, "--dev", "--redis-url", redis.URL()))
	})
	t.Run("nats and redis", func(t *testing.T) {
		nats, redis := natstest.Start(t, natstest.Config{}), redistest.Start(t, redistest.Config{})
		test(t, Start(t, "--dev", "--nats-url", nats.URL(), "--redis-url", redis.URL()))
	})
}

// OnSeveralNodes runs a test on nodes that share one NATS: two complete nodes on one
// Redis, a projector with two API nodes, and two nodes with an embedded Redis each, of
// which neither knows the position of the other.
func OnSeveralNodes(t *testing.T, test func(t *testing.T, nodes []*Service)) {
	t.Run("two complete nodes", func(t *testing.T) {
		urls := StartServers(t).Flags()
		test(t, []*Service{Start(t, urls...), Start(t, urls...)})
	})
	t.Run("a projector and two API nodes", func(t *testing.T) {
		urls := StartServers(t).Flags()
		Start(t, append(urls, "--only", "projector")...)
		api := append(urls, "--only", "api")
		test(t, []*Service{Start(t, api...), Start(t, api...)})
	})
	t.Run("two nodes with a Redis each", func(t *testing.T) {
		nats := natstest.Start(t, natstest.Config{})
		test(t, []*Service{Start(t, "--dev", "--nats-url", nats.URL()), Start(t, "--dev", "--nats-url", nats.URL())})
	})
}

// OnRealRedis runs a test on the set-ups that have a real Redis.
func OnRealRedis(t *testing.T, test func(t *testing.T, s *Service, redis *redistest.Server)) {
	t.Run("embedded log", func(t *testing.T) {
		redis := redistest.Start(t, redistest.Config{})
		test(t, Start(t, "--dev", "--redis-url", redis.URL()), redis)
	})
	t.Run("real nats", func(t *testing.T) {
		servers := Servers{natstest.Start(t, natstest.Config{}), redistest.Start(t, redistest.Config{})}
		test(t, Start(t, servers.Flags()...), servers.Redis)
	})
}

// OnEveryStore runs a test in parallel on each set-up of the service, with metrics. The
// flags are for commands that connect to it.
func OnEveryStore(t *testing.T, test func(t *testing.T, s *Service, flags []string)) {
	t.Parallel()
	t.Run("everything embedded", func(t *testing.T) {
		t.Parallel()
		s := Start(t, "--dev", "--ops-listen", "127.0.0.1:0")
		test(t, s, []string{"--data-dir", s.Flag("--data-dir")})
	})
	t.Run("log embedded", func(t *testing.T) {
		t.Parallel()
		redis := redistest.Start(t, redistest.Config{})
		s := Start(t, "--dev", "--ops-listen", "127.0.0.1:0", "--redis-url", redis.URL())
		test(t, s, []string{"--data-dir", s.Flag("--data-dir"), "--redis-url", redis.URL()})
	})
	t.Run("nats and redis", func(t *testing.T) {
		t.Parallel()
		servers := Servers{natstest.Start(t, natstest.Config{}), redistest.Start(t, redistest.Config{})}
		test(t, Start(t, append(servers.Flags(), "--ops-listen", "127.0.0.1:0")...), servers.Stores())
	})
}

// Servers are the external servers of a service.
type Servers struct {
	NATS  *natstest.Server
	Redis *redistest.Server
}

// StartServers starts a NATS server and a Redis.
func StartServers(t *testing.T) Servers {
	t.Helper()
	return Servers{natstest.Start(t, natstest.Config{}), redistest.Start(t, redistest.Config{})}
}

// Flags returns the flags of a service on the servers.
func (s Servers) Flags() []string {
	return slices.Clip([]string{"--dev", "--nats-url", s.NATS.URL(), "--redis-url", s.Redis.URL()})
}

// Stores returns the flags that name the servers.
func (s Servers) Stores() []string {
	return slices.Clip([]string{"--nats-url", s.NATS.URL(), "--redis-url", s.Redis.URL()})
}
