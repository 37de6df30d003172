package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"chatsessions/eventstore"
	"chatsessions/eventstore/embedded"
	"chatsessions/projections"
	"chatsessions/projections/redisconn"
)

// errNoReadModel: the read model is inside a service that is not running.
var errNoReadModel = errors.New("there is no read model now")

// openFromOutside connects to the log and the read model for a command: to those of a
// service that runs on the data directory, or to what --nats-url and --redis-url name.
// The log of an embedded service that is stopped is opened for as long as the command
// runs. It returns errNoReadModel where the read model is not to be had.
func (f storeFlags) openFromOutside(ctx context.Context, logger *slog.Logger) (_ *stores, err error) {
	reach, err := f.connection()
	if err != nil {
		return nil, err
	}
	if f.NATS.URL == "" && f.RedisURL != "" && reach.RedisURL != "" {
		return nil, fmt.Errorf("the service in %s has its read model inside: leave --redis-url out", f.DataDir)
	}
	if f.NATS.URL == "" {
		f.NATS.URL = reach.NATSURL
	}
	private := f.RedisURL == ""
	if private {
		f.RedisURL = reach.RedisURL
	}
	if f.NATS.URL == "" {
		if err := f.checkLogDir("--nats-url and --redis-url"); err != nil {
			return nil, err
		}
		if f.RedisURL == "" {
			return nil, errNoReadModel
		}
	}
	if f.RedisURL == "" {
		return nil, errors.New("the read model is in a Redis of its own: name it with --redis-url, as the service does")
	}
	redis.SetLogger(redisLog{logger})
	if f.NATS.URL == "" {
		return openStores(ctx, f, nil, logger)
	}
	s := &stores{private: private}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if err := s.openExisting(ctx, f.logFlags, reach, logger); err != nil {
		return nil, err
	}
	if s.redis, err = redisconn.Connect(ctx, redisconn.Options{URL: f.RedisURL, PoolSize: f.redisConnections()}); err != nil {
		return nil, err
	}
	s.onClose(func() { _ = s.redis.Close() })
	return s, nil
}

// openLogFromOutside is openFromOutside for a command that needs the log only.
func (f logFlags) openLogFromOutside(ctx context.Context, logger *slog.Logger) (_ *stores, err error) {
	reach, err := f.connection()
	if err != nil {
		return nil, err
	}
	if f.NATS.URL == "" {
		f.NATS.URL = reach.NATSURL
	}
	if f.NATS.URL == "" {
		if err := f.checkLogDir("--nats-url"); err != nil {
			return nil, err
		}
	}
	s := &stores{}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if err := s.openExisting(ctx, f, reach, logger); err != nil {
		return nil, err
	}
	return s, nil
}

// openExisting opens a log that is there, of a service that runs or does not. One that is
// embedded in a running service is synced from here before anything of it is shown: what
// its server shows may not be on disk yet.
func (s *stores) openExisting(ctx context.Context, f logFlags, reach connection, logger *slog.Logger) error {
	o := eventstore.Options{Existing: true, Logger: logger}
	if f.NATS.URL != "" && f.NATS.URL == reach.NATSURL {
		syncer, err := embedded.NewSyncer(filepath.Join(f.DataDir, logDir))
		if err != nil {
			return err
		}
		s.onClose(syncer.Close)
		o.Durability = syncer
	}
	// How to get there is told to nobody: the server is gone when this command is.
	err := s.openLog(ctx, f, o, rand.Text(), &connection{}, nil)
	if errors.Is(err, eventstore.ErrNoLog) {
		return fmt.Errorf("%w: name the servers of the service with --nats-url", err)
	}
	return err
}

// checkLogDir returns an error where no service ever had its embedded log: nothing is to
// be made there.
func (f logFlags) checkLogDir(flags string) error {
	if _, err := os.Stat(filepath.Join(f.DataDir, logDir)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s holds no log: name the data directory of the service with --data-dir, or its servers with %s", f.DataDir, flags)
	}
	return nil
}

// explain says by which flags a read model is to be found that was not.
func (f storeFlags) explain(err error) error {
	var parts *projections.PartitionsError
	if !errors.As(err, &parts) {
		return err
	}
	var all []string
	for _, n := range parts.Found {
		all = append(all, fmt.Sprintf("--redis-partitions %d", n))
	}
	return fmt.Errorf("there is no read model of --redis-partitions %d here, but one of %s: give the same as the service", parts.Asked, strings.Join(all, " and one of "))
}

// connection reads the connection file of a running service; without one, it is empty.
func (f logFlags) connection() (connection, error) {
	var reach connection
	content, err := os.ReadFile(filepath.Join(f.DataDir, connectionFile))
	if errors.Is(err, fs.ErrNotExist) {
		return reach, nil
	}
	if err == nil {
		err = json.Unmarshal(content, &reach)
	}
	if err != nil {
		return reach, fmt.Errorf("connection file: %w", err)
	}
	for _, at := range []string{reach.NATSURL, reach.RedisURL} {
		if at == "" {
			continue
		}
		server, err := url.Parse(at)
		if err != nil {
			return reach, fmt.Errorf("connection file: %s is not a URL", filepath.Join(f.DataDir, connectionFile))
		}
		conn, err := net.DialTimeout("tcp", server.Host, time.Second)
		if err != nil { // left by a service that was killed
			return connection{}, nil
		}
		_ = conn.Close()
	}
	return reach, nil
}
