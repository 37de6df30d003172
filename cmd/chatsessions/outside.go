package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"chatsessions/eventstore"
	"chatsessions/eventstore/embedded"
	"chatsessions/projections"
)

// errNoReadModel: the read model is inside a service that is not running.
var errNoReadModel = errors.New("there is no read model now")

// openFromOutside connects a command to the log and the read model of a service that runs on
// the data directory, or to those that --nats-url and --redis-url name. Of a stopped embedded
// service, it reads the log's files. It returns errNoReadModel if there is no read model.
func (f storeFlags) openFromOutside(ctx context.Context, out streams) (_ *stores, err error) {
	inside, err := f.connection()
	if err != nil {
		return nil, err
	}
	if f.NATS.URL == "" && f.RedisURL != "" && inside.RedisURL != "" {
		return nil, fmt.Errorf("the service in %s has its read model inside: leave --redis-url out", f.DataDir)
	}
	private := f.RedisURL == ""
	if private {
		f.RedisURL = inside.RedisURL
	}
	if f.RedisURL == "" && f.NATS.URL == "" && inside.NATSURL == "" {
		return nil, cmp.Or(f.checkLogDir("--nats-url and --redis-url"), errNoReadModel)
	}
	if f.RedisURL == "" {
		return nil, errors.New("the read model is in a Redis of its own: name it with --redis-url, as the service does")
	}
	s, err := f.openExisting(ctx, inside, out)
	if err != nil {
		return nil, err
	}
	s.private = private
	if err := s.openRedis(ctx, f, newLogger(out)); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// openLogFromOutside is openFromOutside for a command that needs only the log.
func (f logFlags) openLogFromOutside(ctx context.Context, out streams) (*stores, error) {
	inside, err := f.connection()
	if err != nil {
		return nil, err
	}
	return f.openExisting(ctx, inside, out)
}

// openExisting opens the log of a service, running or stopped. What a running embedded service
// shows may not be on disk yet, so this process syncs the log's files before it shows anything.
func (f logFlags) openExisting(ctx context.Context, inside connection, out streams) (*stores, error) {
	if f.NATS.URL == "" {
		f.NATS.URL = inside.NATSURL
	}
	if f.NATS.URL == "" {
		return f.openStopped(ctx, out)
	}
	s := &stores{}
	o := eventstore.Options{Existing: true, Logger: newLogger(out)}
	if f.NATS.URL == inside.NATSURL {
		syncer, err := embedded.NewSyncer(f.logDir())
		if err != nil {
			return nil, err
		}
		s.onClose(syncer.Close)
		o.Durability = syncer
	}
	err := s.openLog(ctx, f, o, nil)
	if err == nil {
		return s, nil
	}
	s.Close()
	if errors.Is(err, eventstore.ErrNoLog) {
		err = fmt.Errorf("%w: name the servers of the service with --nats-url", err)
	}
	return nil, err
}

// openStopped opens the embedded log of a stopped service for reading, and changes nothing.
// The damages that it finds are for the command to report.
func (f logFlags) openStopped(ctx context.Context, out streams) (*stores, error) {
	if err := f.checkLogDir("--nats-url"); err != nil {
		return nil, err
	}
	s := &stores{}
	bar := newProgress(out.err)
	defer bar.finish()
	log, unlock, err := embedded.OpenOffline(ctx, f.logDir(), func(err error) {
		if errors.As(err, new(*embedded.CutError)) { // no defect, and not to be silent about
			bar.finish()
			fmt.Fprintln(out.err, "chatsessions:", err)
			return
		}
		s.damages = append(s.damages, err)
	},
		func(done, all int64) { bar.bytes("checking the log", done, all) })
	if err != nil {
		return nil, f.explainStopped(err)
	}
	s.onClose(unlock)
	s.onClose(log.Close)
	s.log = log
	return s, nil
}

// logDir is the store directory of the embedded log.
func (f logFlags) logDir() string { return filepath.Join(f.DataDir, logDir) }

// explainStopped adds to the error about a log's directory what would help.
func (f logFlags) explainStopped(err error) error {
	switch {
	case errors.Is(err, embedded.ErrInUse):
		return fmt.Errorf("%s: a service that is starting, stopping, or paused uses this data directory, or another command does: %w", f.DataDir, err)
	case errors.Is(err, embedded.ErrNoLog):
		return fmt.Errorf("%s holds no log: name the data directory of the service with --data-dir", f.DataDir)
	}
	return err
}

// checkLogDir keeps commands from creating a log where no service ever had one.
func (f logFlags) checkLogDir(flags string) error {
	if _, err := os.Stat(f.logDir()); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s holds no log: name the data directory of the service with --data-dir, or its servers with %s", f.DataDir, flags)
	}
	return nil
}

// explain adds to the error about a missing read model the flags that would find it.
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
