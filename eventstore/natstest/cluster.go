package natstest

import (
	"cmp"
	"fmt"
	"strings"
	"testing"
)

// Cluster is several servers that replicate among each other.
type Cluster struct{ Servers []*Server }

// StartCluster runs n servers with the deployed configuration of a cluster, and
// returns when all of them serve JetStream.
func StartCluster(tb testing.TB, n int) *Cluster {
	tb.Helper()
	return StartClusterOf(tb, make([]Config, n)...)
}

// StartClusterOf is StartCluster with a say in how each server is run. The
// configuration file is the cluster's where none is given.
func StartClusterOf(tb testing.TB, configs ...Config) *Cluster {
	tb.Helper()
	n := len(configs)
	listen := make([]string, n)
	routes := make([]string, n)
	for i := range n {
		listen[i] = fmt.Sprintf("127.0.0.1:%d", freePort(tb))
		routes[i] = fmt.Sprintf("%q", "nats-route://route:secret@"+listen[i])
	}
	c := &Cluster{}
	file := deployed(tb, "cluster.conf")
	for i, config := range configs {
		config.File = cmp.Or(config.File, file)
		c.Servers = append(c.Servers, prepare(tb, config, fmt.Sprintf("chat-sessions-%d", i+1),
			"NATS_CLUSTER_LISTEN="+listen[i],
			"NATS_CLUSTER_USER=route",
			"NATS_CLUSTER_PASSWORD=secret",
			"NATS_CLUSTER_ROUTES=["+strings.Join(routes, ",")+"]",
		))
	}
	for _, s := range c.Servers {
		s.start()
	}
	for _, s := range c.Servers {
		s.waitReady()
	}
	return c
}

// URL lists all servers, as clients take it.
func (c *Cluster) URL() string {
	urls := make([]string, len(c.Servers))
	for i, s := range c.Servers {
		urls[i] = s.URL()
	}
	return strings.Join(urls, ",")
}

// Server returns the server of that name, nil for none.
func (c *Cluster) Server(name string) *Server {
	for _, s := range c.Servers {
		if s.name == name {
			return s
		}
	}
	return nil
}
