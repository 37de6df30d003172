package main

import (
	"context"
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
	"chatsessions/projections"
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
	if f.NATS.URL == "" { // nothing is to be made where a service never was
		if _, err := os.Stat(filepath.Join(f.DataDir, logDir)); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s holds no log: name the data directory of the service with --data-dir, or its servers with --nats-url and --redis-url", f.DataDir)
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
	nc, err := f.connectNATS(ctx, logger)
	if err != nil {
		return nil, err
	}
	s.onClose(nc.Close)
	s.log, err = eventstore.Open(ctx, nc, eventstore.Options{Replicas: f.NATS.Replicas, Existing: true, Logger: logger})
	if errors.Is(err, eventstore.ErrNoLog) {
		return nil, fmt.Errorf("%w: name the servers of the service with --nats-url", err)
	}
	if err != nil {
		return nil, err
	}
	s.onClose(s.log.Close)
	if s.redis, err = projections.Connect(ctx, projections.RedisOptions{URL: f.RedisURL, PoolSize: f.redisConnections()}); err != nil {
		return nil, err
	}
	s.onClose(func() { _ = s.redis.Close() })
	return s, nil
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
func (f storeFlags) connection() (connection, error) {
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
