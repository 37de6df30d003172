package natstest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"chatsessions/deploy/servertest"
)

// Cluster is several servers that replicate among each other.
type Cluster struct{ Servers []*Server }

// StartCluster runs a server for each configuration, by default the deployed one of a
// cluster, and returns when all of them serve JetStream.
func StartCluster(tb testing.TB, configs ...Config) *Cluster {
	tb.Helper()
	listen := make([]string, len(configs))
	routes := make([]string, len(configs))
	for i := range configs {
		listen[i] = "127.0.0.1:" + servertest.Port(tb)
		routes[i] = fmt.Sprintf("%q", "nats-route://route:secret@"+listen[i])
	}
	c := &Cluster{}
	for i, config := range configs {
		c.Servers = append(c.Servers, prepare(tb, config, "cluster.conf", fmt.Sprintf("chat-sessions-%d", i+1),
			"NATS_CLUSTER_LISTEN="+listen[i],
			"NATS_CLUSTER_USER=route",
			"NATS_CLUSTER_PASSWORD=secret",
			"NATS_CLUSTER_ROUTES=["+strings.Join(routes, ",")+"]",
		))
	}
	for _, s := range c.Servers {
		s.begin()
	}
	for _, s := range c.Servers {
		s.Await(s.ready)
	}
	return c
}

// URL lists all servers for clients.
func (c *Cluster) URL() string {
	urls := make([]string, len(c.Servers))
	for i, s := range c.Servers {
		urls[i] = s.URL()
	}
	return strings.Join(urls, ",")
}

// Server returns the server of that name, which has to exist.
func (c *Cluster) Server(name string) *Server {
	return c.Servers[slices.IndexFunc(c.Servers, func(s *Server) bool { return s.name == name })]
}
