package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"

	"github.com/nats-io/nats.go"
	"github.com/redis/go-redis/v9"

	"chatsessions/eventstore"
	"chatsessions/eventstore/embedded"
	"chatsessions/projections/embeddedredis"
	"chatsessions/projections/layout"
	"chatsessions/projections/redisconn"
)

// logFlags say where the log is.
type logFlags struct {
	DataDir string    `default:"./chatsessions-data" placeholder:"DIR" type:"path" help:"Where the embedded log is kept (${default})."`
	NATS    natsFlags `embed:"" prefix:"nats-"`
}

// storeFlags say where the log and the read model are.
type storeFlags struct {
	logFlags
	RedisURL        string `name:"redis-url" placeholder:"URL" help:"Redis of the read model: redis://, redis+cluster:// or redis+sentinel://, and rediss for TLS; see deploy/redis. Without it, one inside the process, filled from the log at every start."`
	RedisPartitions int    `default:"1" placeholder:"N" help:"Parts of the read model (${default}), which a Redis Cluster spreads over its servers. The same for every process that uses it; another number is another read model."`
}

// Empty paths have an empty default: without one, kong takes them for the current directory.
type natsFlags struct {
	URL      string `name:"url" placeholder:"URL" help:"NATS servers of the log, separated by commas. Without it, a server inside the process."`
	Creds    string `default:"" placeholder:"FILE" type:"path" help:"NATS credentials file."`
	CA       string `name:"ca" default:"" placeholder:"FILE" type:"path" help:"Authorities to trust for TLS to NATS."`
	Cert     string `default:"" placeholder:"FILE" type:"path" help:"Client certificate for TLS to NATS."`
	Key      string `default:"" placeholder:"FILE" type:"path" help:"Key of the client certificate."`
	Replicas int    `default:"0" placeholder:"N" help:"Servers that keep the log, when it is created; 0 is three in a cluster, else one."`

	MonitorURLs []string `name:"monitor-urls" placeholder:"URL" help:"Monitoring endpoints (http://HOST:8222) of the NATS servers, separated by commas. Each is asked at the start whether it acknowledges only what is on disk; if not, or without an answer, the service does not start."`
}

// check finds flags that make no sense.
func (f logFlags) check() error {
	if f.DataDir == "" { // by its variable
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

// check finds flags that make no sense.
func (f storeFlags) check() error {
	if f.RedisPartitions < 1 || f.RedisPartitions > layout.MaxPartitions {
		return fmt.Errorf("--redis-partitions %d: want a number from 1 to %d", f.RedisPartitions, layout.MaxPartitions)
	}
	if f.RedisURL != "" {
		if err := redisconn.CheckURL(f.RedisURL); err != nil {
			return fmt.Errorf("--redis-url: %w", err)
		}
	}
	return f.logFlags.check()
}

// redisConnections is how many connections to Redis there may be: the projector holds
// one for each partition.
func (f storeFlags) redisConnections() int { return f.RedisPartitions + 10*runtime.GOMAXPROCS(0) }

// stores are the log and the Redis of the read model, wherever they run.
type stores struct {
	log      *eventstore.Log
	embedded *embedded.Server // the server of the log, where it runs in this process
	redis    redis.UniversalClient
	// private says that the Redis is inside a service that runs.
	private bool
	// redisConnections counts the connections that were made to an external Redis.
	redisConnections atomic.Uint64
	close            []func()
}

// logDir, in the data directory, holds the embedded log.
const logDir = "log"

// connectionFile, in the data directory, tells other processes of this machine
// how to reach what runs inside the service. It is readable by its owner only.
const connectionFile = "connection.json"

// A connection is the content of the connection file; a URL is absent where the
// part is not embedded.
type connection struct {
	NATSURL  string `json:"natsUrl,omitempty"`
	RedisURL string `json:"redisUrl,omitempty"`
}

// openStores connects to the log and the read model, and starts those that are
// to run inside this process.
func openStores(ctx context.Context, c storeFlags, m *metrics, logger *slog.Logger) (_ *stores, err error) {
	s := &stores{}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	reach := connection{}
	password := rand.Text()

	if err := s.openLog(ctx, c.logFlags, eventstore.Options{Logger: logger}, password, &reach, m); err != nil {
		return nil, err
	}
	if s.embedded == nil {
		if err := c.NATS.checkServers(ctx, s.log, logger); err != nil {
			return nil, err
		}
	}

	redis.SetLogger(redisLog{logger})
	if c.RedisURL != "" {
		s.redis, err = redisconn.Connect(ctx, redisconn.Options{
			URL: c.RedisURL, PoolSize: c.redisConnections(), OnConnect: func() { s.redisConnections.Add(1) }, KeyPrefix: layout.Version(),
		})
	} else {
		s.redis, err = s.embedRedis(password, &reach)
	}
	if err != nil {
		return nil, err
	}
	s.onClose(func() { _ = s.redis.Close() })

	if reach != (connection{}) {
		if err := s.publish(c.DataDir, reach); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// openLog connects to the log, or starts the server of an embedded one and says in reach
// how others get there.
func (s *stores) openLog(ctx context.Context, c logFlags, o eventstore.Options, password string, reach *connection, m *metrics) error {
	var nc *nats.Conn
	var err error
	if c.NATS.URL != "" {
		nc, err = c.connectNATS(ctx, o.Logger)
	} else {
		nc, err = s.embedNATS(ctx, c.DataDir, password, reach, m, o.Logger)
	}
	if err != nil {
		return err
	}
	s.onClose(nc.Close)
	o.Replicas = c.NATS.Replicas
	if s.embedded != nil {
		o.Durability, o.OnlyWriter = s.embedded, true
	}
	if s.log, err = eventstore.Open(ctx, nc, o); err != nil {
		return err
	}
	s.onClose(s.log.Close)
	return nil
}

func (f logFlags) connectNATS(ctx context.Context, logger *slog.Logger) (*nats.Conn, error) {
	return eventstore.Connect(ctx, eventstore.ConnectOptions{
		URL: f.NATS.URL, CredentialsFile: f.NATS.Creds, CAFile: f.NATS.CA, CertFile: f.NATS.Cert, KeyFile: f.NATS.Key,
		Name: "chatsessions", Logger: logger,
	})
}

// A redisLog takes what go-redis would print on standard error, in a format of its
// own. Whoever asks Redis gets the same trouble as an error.
type redisLog struct{ logger *slog.Logger }

// Printf implements the interface of redis.SetLogger.
func (l redisLog) Printf(_ context.Context, format string, v ...any) {
	l.logger.Debug(fmt.Sprintf(format, v...))
}

func (s *stores) embedNATS(ctx context.Context, dataDir, password string, reach *connection, m *metrics, logger *slog.Logger) (*nats.Conn, error) {
	server, err := embedded.Start(ctx, embedded.Options{
		StoreDir: filepath.Join(dataDir, logDir), User: "chatsessions", Password: password, Logger: logger,
		Sync: syncFile, Synced: m.synced(),
	})
	if errors.Is(err, embedded.ErrInUse) {
		return nil, fmt.Errorf("%s: another process serves this data directory; stop it, or choose another with --data-dir", dataDir)
	}
	if err != nil {
		return nil, fmt.Errorf("starting the embedded log: %w", err)
	}
	s.embedded = server
	s.onClose(server.Shutdown)
	reach.NATSURL = "nats://chatsessions:" + password + "@" + strings.TrimPrefix(server.ClientURL(), "nats://")
	return server.Connect()
}

func (s *stores) embedRedis(password string, reach *connection) (redis.UniversalClient, error) {
	embedded, err := embeddedredis.Start(password)
	if err != nil {
		return nil, fmt.Errorf("starting the embedded read model: %w", err)
	}
	s.onClose(func() { _ = embedded.Close() })
	reach.RedisURL = embedded.URL()
	return embedded.Client(), nil
}

// publish writes the connection file; it is removed when the stores are closed.
func (s *stores) publish(dataDir string, reach connection) error {
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	content, err := json.MarshalIndent(reach, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(dataDir, connectionFile)
	// Written beside and renamed, so that nobody reads half of it, nor with the
	// rights of a file that was there before.
	beside, err := os.CreateTemp(dataDir, connectionFile+".*")
	if err != nil {
		return fmt.Errorf("connection file: %w", err)
	}
	_, err = beside.Write(append(content, '\n'))
	if err = errors.Join(err, beside.Close()); err == nil {
		err = os.Rename(beside.Name(), path)
	}
	if err != nil {
		_ = os.Remove(beside.Name())
		return fmt.Errorf("connection file: %w", err)
	}
	s.onClose(func() { _ = os.Remove(path) })
	return nil
}

// watch returns when ctx ends, or with the error after which the embedded log takes
// no more writes.
func (s *stores) watch(ctx context.Context) error {
	if s.embedded == nil {
		return nil
	}
	select {
	case <-ctx.Done():
		return nil
	case <-s.embedded.Failed():
		return s.failure()
	}
}

// failure is the error after which the embedded log takes no more writes, or nil.
func (s *stores) failure() error {
	if s.embedded == nil || s.embedded.Err() == nil {
		return nil
	}
	return fmt.Errorf("the embedded log has failed, nothing is written any more: %w", s.embedded.Err())
}

func (s *stores) onClose(f func()) { s.close = append(s.close, f) }

// Close closes what openStores opened, the last first.
func (s *stores) Close() {
	for i := len(s.close) - 1; i >= 0; i-- {
		s.close[i]()
	}
}
