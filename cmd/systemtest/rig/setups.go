package rig

import (
	"slices"
	"testing"

	"chatsessions/eventstore/natstest"
	"chatsessions/projections/redistest"
)

// OnAllSetups runs a test on each set-up of the service: everything embedded, a real Redis
// beside the embedded log, and both external.
func OnAllSetups(t *testing.T, test func(t *testing.T, s *Service), flags ...string) {
	flags = append([]string{"--dev"}, flags...)
	t.Run("embedded", func(t *testing.T) {
		test(t, Start(t, flags...))
	})
	t.Run("redis", func(t *testing.T) {
		test(t, Start(t, slices.Concat(flags, []string{"--redis-url", redistest.Start(t, redistest.Config{}).URL()})...))
	})
	t.Run("nats and redis", func(t *testing.T) {
		test(t, Start(t, slices.Concat(flags, StartServers(t).Stores())...))
	})
}

// OnSeveralNodes runs a test on nodes that share one NATS: two complete nodes on one Redis, a
// projector with two API nodes, and two nodes with an embedded Redis each.
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
		servers := StartServers(t)
		test(t, Start(t, servers.Flags()...), servers.Redis)
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
	return slices.Clip(append([]string{"--dev"}, s.Stores()...))
}

// Stores returns the flags that name the servers.
func (s Servers) Stores() []string {
	return slices.Clip([]string{"--nats-url", s.NATS.URL(), "--redis-url", s.Redis.URL()})
}
