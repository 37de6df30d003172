package main

import (
	"errors"
	"fmt"
	"runtime"

	"chatsessions/eventstore"
	"chatsessions/projections/layout"
	"chatsessions/projections/redisconn"
)

// logFlags say where the log is.
type logFlags struct {
	DataDir string    `default:"./chatsessions-data" placeholder:"DIR" type:"path" help:"Directory of the embedded log (${default})."`
	NATS    natsFlags `embed:"" prefix:"nats-"`
}

// storeFlags say where the log and the read model are.
type storeFlags struct {
	logFlags
	RedisURL        string `name:"redis-url" placeholder:"URL" help:"Redis of the read model: redis://, redis+cluster:// or redis+sentinel://, and rediss for TLS; see deploy/redis. Without it, the process contains one, filled from the log at every start."`
	RedisPartitions int    `default:"1" placeholder:"N" help:"Parts of the read model (${default}), which a Redis Cluster spreads over its servers. Must be the same for every process that uses it; another number is another read model."`
}

// Empty paths have an empty default: without one, kong takes them for the current directory.
type natsFlags struct {
	URL      string `name:"url" placeholder:"URL" help:"NATS servers of the log, separated by commas. Without it, the process contains one."`
	Creds    string `default:"" placeholder:"FILE" type:"path" help:"NATS credentials file."`
	CA       string `name:"ca" default:"" placeholder:"FILE" type:"path" help:"Authorities to trust for TLS to NATS."`
	Cert     string `default:"" placeholder:"FILE" type:"path" help:"Client certificate for TLS to NATS."`
	Key      string `default:"" placeholder:"FILE" type:"path" help:"Key of the client certificate."`
	Replicas int    `default:"0" placeholder:"N" help:"Servers that keep the log, when it is created; 0 is three in a cluster, else one."`

	MonitorURLs []string `name:"monitor-urls" placeholder:"URL" help:"Monitoring endpoints (http://HOST:8222) of the NATS servers, separated by commas. At startup, each is asked whether its server acknowledges only what is on disk; if it does not, or if there is no answer, the service does not start."`
}

// Validate finds flags that make no sense. Parsing the command line calls it.
func (f logFlags) Validate() error {
	if f.DataDir == "" { // from its environment variable
		return errors.New("--data-dir is empty: name a directory, or leave it out")
	}
	if f.NATS.Replicas < 0 {
		return fmt.Errorf("--nats-replicas %d: want a number of servers, or 0", f.NATS.Replicas)
	}
	if f.NATS.URL != "" {
		if err := eventstore.CheckURL(f.NATS.URL); err != nil {
			return fmt.Errorf("--nats-url: %w", err)
		}
	}
	_, err := f.NATS.monitors()
	return err
}

// Validate finds flags that make no sense.
func (f storeFlags) Validate() error {
	if f.RedisPartitions < 1 || f.RedisPartitions > layout.MaxPartitions {
		return fmt.Errorf("--redis-partitions %d: want a number from 1 to %d", f.RedisPartitions, layout.MaxPartitions)
	}
	if f.RedisURL != "" {
		if err := redisconn.CheckURL(f.RedisURL); err != nil {
			return fmt.Errorf("--redis-url: %w", err)
		}
	}
	return f.logFlags.Validate()
}

// redisConnections is the maximum number of connections to Redis. The projector holds one
// for each partition.
func (f storeFlags) redisConnections() int { return f.RedisPartitions + 10*runtime.GOMAXPROCS(0) }
