package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// A large is a service over a log of many finished sessions. It has a Redis of its
// own, which was empty when it started.
type large struct {
	population
	service *service
	redis   *redisServer
	// What it took to build the read model.
	took            time.Duration
	before, after   float64 // bytes that Redis used
	memory, atFirst float64 // at most, bytes of the service's process in the last and the first half of the time
}

// patience bounds whatever reads the whole log.
const patience = 30 * time.Minute

// needLarge starts the large service for the first that needs it.
func (b *bench) needLarge(ctx context.Context) (*large, error) {
	if b.large != nil {
		return b.large, nil
	}
	l := &large{population: crowd(b.Sessions)}
	dir := b.dir("large")
	if err := l.seed(ctx, filepath.Join(dir, "data")); err != nil {
		return nil, fmt.Errorf("seeding: %w", err)
	}
	b.large = l
	return l, l.start(ctx, b.binary, dir, b.dir("redis"))
}

func (l *large) start(ctx context.Context, binary, dir, redisDir string) (err error) {
	if l.redis, err = startRedis(ctx, redisDir); err != nil {
		return err
	}
	if l.before, err = l.redis.used(ctx); err != nil {
		return err
	}
	// It logs each list that it refuses, and some are meant to be.
	logged, err := os.Create(filepath.Join(dir, "output"))
	if err != nil {
		return err
	}
	defer func() { _ = logged.Close() }()
	began := time.Now()
	l.service, err = launchService(binary, dir, withArgs("--redis-url", l.redis.url), func(cmd *exec.Cmd) { cmd.Stderr = logged })
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	// Undone before the cancel above, so that a service that is ready stays.
	defer context.AfterFunc(ctx, func() { _ = l.service.cmd.Process.Signal(syscall.SIGTERM) })()
	memory := watchMemory(l.service.pid())
	reported := report(ctx, "building the read model", "events", l.events(), func() (int, error) {
		m, err := l.service.metrics(ctx)
		return int(m["chatsessions_projected_position"]), err
	})
	if err = l.service.ready(); err != nil {
		err = fmt.Errorf("%w%s", err, said(logged.Name()))
	}
	l.took = time.Since(began)
	l.atFirst, l.memory = memory.end()
	reported()
	if err != nil {
		return err
	}
	l.after, err = l.redis.used(ctx)
	return err
}

func (l *large) stop() (err error) {
	if l == nil {
		return nil
	}
	if l.service != nil {
		err = l.service.stop()
	}
	if l.redis != nil {
		l.redis.stop()
	}
	return err
}
