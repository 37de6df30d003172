package rig

import (
	"slices"
	"testing"

	"chatsessions/eventstore/natstest"
	"chatsessions/projections/redistest"
)

// OnAllSetups runs a test with all embedded, with a real Redis, and with both external.
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
