package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/nats-io/nats.go"
	"github.com/redis/go-redis/v9"

	"chatsessions/eventstore"
	"chatsessions/eventstore/embedded"
	"chatsessions/projections"
	"chatsessions/projections/embeddedredis"
	"chatsessions/projections/layout"
	"chatsessions/projections/redisconn"
)

// stores are the log and the Redis of the read model, wherever they run.
type stores struct {
	log      *eventstore.Log
	embedded *embedded.Server // the server of the log, if it runs in this process
	redis    redis.UniversalClient
	inside   connection // how to reach what runs in this process
	// private: the Redis is inside a running service.
	private bool
	// damages are what is not sound in the files of a stopped log.
	damages []error
	// redisConnections counts the connections made to an external Redis.
	redisConnections atomic.Uint64
	close            []func()
}

// logDir, in the data directory, holds the embedded log.
const logDir = "log"

// openStores connects to the log and the read model, and starts those that run inside
// this process.
func openStores(ctx context.Context, f storeFlags, m *metrics, logger *slog.Logger) (_ *stores, err error) {
	s := &stores{}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if err := s.openLog(ctx, f.logFlags, eventstore.Options{Logger: logger}, m); err != nil {
		return nil, err
	}
	if s.embedded == nil {
		if err := f.NATS.checkServers(ctx, s.log, logger); err != nil {
			return nil, err
		}
	}
	if err := s.openRedis(ctx, f, logger); err != nil {
		return nil, err
	}
	if f.RedisURL != "" {
		if err := s.checkEviction(ctx, f.RedisPartitions); err != nil {
			return nil, err
		}
	}
	return s, s.publish(f.DataDir)
}

// openLog connects to the log, or starts the server of an embedded one.
func (s *stores) openLog(ctx context.Context, f logFlags, o eventstore.Options, m *metrics) error {
	var nc *nats.Conn
	var err error
	if f.NATS.URL != "" {
		nc, err = f.NATS.connect(ctx, o.Logger)
	} else {
		nc, err = s.embedNATS(ctx, f.DataDir, m, o.Logger)
	}
	if err != nil {
		return err
	}
	s.onClose(nc.Close)
	o.Replicas = f.NATS.Replicas
	if s.embedded != nil {
		o.Durability, o.OnlyWriter = s.embedded, true
	}
	if s.log, err = eventstore.Open(ctx, nc, o); err != nil {
		return err
	}
	s.onClose(s.log.Close)
	return nil
}

// connect connects to external servers.
func (f natsFlags) connect(ctx context.Context, logger *slog.Logger) (*nats.Conn, error) {
	return eventstore.Connect(ctx, eventstore.ConnectOptions{
		URL: f.URL, CredentialsFile: f.Creds, CAFile: f.CA, CertFile: f.Cert, KeyFile: f.Key, Name: "chatsessions", Logger: logger,
	})
}

// openRedis connects to the Redis of the read model, or starts an embedded one.
func (s *stores) openRedis(ctx context.Context, f storeFlags, logger *slog.Logger) (err error) {
	redis.SetLogger(redisLog{logger})
	if f.RedisURL == "" {
		s.redis, err = s.embedRedis()
	} else {
		s.redis, err = redisconn.Connect(ctx, redisconn.Options{
			URL: f.RedisURL, PoolSize: f.redisConnections(), OnConnect: func() { s.redisConnections.Add(1) }, KeyPrefix: layout.Version(),
		})
	}
	if err != nil {
		return err
	}
	s.onClose(func() { _ = s.redis.Close() })
	return nil
}

// checkEviction returns an error if the Redis may drop keys of the read model. One that
// cannot be reached now is asked later.
func (s *stores) checkEviction(ctx context.Context, partitions int) error {
	err := projections.CheckEviction(ctx, s.redis, layout.Partitions(partitions))
	switch {
	case errors.As(err, new(*projections.EvictionError)):
		return fmt.Errorf("%w. What is in it may lack sessions: it is discarded, and the service builds it anew", err)
	case redis.HasErrorPrefix(err, "NOPERM"):
		return fmt.Errorf("%w (deploy/redis/users.acl has the rights that are needed)", err)
	}
	return nil
}

// A redisLog receives what go-redis would print on standard error in its own format.
// Callers of Redis get the same problems as errors.
type redisLog struct{ logger *slog.Logger }

// Printf implements the interface of redis.SetLogger.
func (l redisLog) Printf(_ context.Context, format string, v ...any) {
	l.logger.Debug(fmt.Sprintf(format, v...))
}

func (s *stores) embedNATS(ctx context.Context, dataDir string, m *metrics, logger *slog.Logger) (*nats.Conn, error) {
	const user = "chatsessions"
	password := rand.Text()
	server, err := embedded.Start(ctx, embedded.Options{
		StoreDir: filepath.Join(dataDir, logDir), User: user, Password: password, Logger: logger,
		Sync: syncFunc(), Synced: m.synced(),
	})
	if errors.Is(err, embedded.ErrInUse) {
		return nil, fmt.Errorf("%s: another process serves this data directory; stop it, or choose another with --data-dir", dataDir)
	}
	if errors.As(err, new(*embedded.DamageError)) {
		return nil, fmt.Errorf("starting the embedded log: %w. Nothing was changed. Restore a backup (chatsessions restore), or copy what is sound (chatsessions salvage); see docs/how-to/disaster.md", err)
	}
	if err != nil {
		return nil, fmt.Errorf("starting the embedded log: %w", err)
	}
	s.embedded = server
	s.onClose(server.Shutdown)
	s.inside.NATSURL = "nats://" + user + ":" + password + "@" + strings.TrimPrefix(server.ClientURL(), "nats://")
	return server.Connect()
}

func (s *stores) embedRedis() (redis.UniversalClient, error) {
	server, err := embeddedredis.Start(rand.Text())
	if err != nil {
		return nil, fmt.Errorf("starting the embedded read model: %w", err)
	}
	s.onClose(func() { _ = server.Close() })
	s.inside.RedisURL = server.URL()
	return server.Client(), nil
}

// watch returns when ctx ends, or with the error after which nothing can be written any
// more.
func (s *stores) watch(ctx context.Context) error {
	var embedded <-chan struct{} // nil, which blocks, for an external log
	if s.embedded != nil {
		embedded = s.embedded.Failed()
	}
	select {
	case <-ctx.Done():
		return nil
	case <-embedded:
	case <-s.log.Failed():
	}
	return s.failure()
}

// failure is the error after which nothing can be written any more, or nil.
func (s *stores) failure() error {
	if s.embedded != nil && s.embedded.Err() != nil && strings.Contains(s.embedded.Err().Error(), syscall.ENOSPC.Error()) {
		return fmt.Errorf("the disk of the embedded log is full, nothing is written any more: %w; make room, and start the service again", s.embedded.Err())
	}
	if s.embedded != nil && s.embedded.Err() != nil {
		return fmt.Errorf("the embedded log has failed, nothing is written any more: %w", s.embedded.Err())
	}
	if err := s.log.Err(); err != nil {
		return fmt.Errorf("the log cannot be reached any more: %w; start the service again", err)
	}
	return nil
}

func (s *stores) onClose(f func()) { s.close = append(s.close, f) }

// Close closes what was opened, in reverse order.
func (s *stores) Close() {
	for i := len(s.close) - 1; i >= 0; i-- {
		s.close[i]()
	}
}
