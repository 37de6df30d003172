package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chatsessions/eventstore"
)

// A large is a service over a log of many finished sessions, with a Redis that was empty.
type large struct {
	population
	service *service
	redis   string        // URL
	took    time.Duration // to build the read model
	figures               // of building it
}

// needLarge starts the large service if it does not run. It ends with the run.
func (b *bench) needLarge(ctx context.Context) (*large, error) {
	if b.large != nil {
		return b.large, nil
	}
	l := &large{population: crowd(b.Sessions), figures: figures{}}
	dir := b.dir("large")
	if err := l.seed(ctx, filepath.Join(dir, "data")); err != nil {
		return nil, fmt.Errorf("seeding: %w", err)
	}
	b.large = l
	current := b.cleanups
	b.cleanups = nil
	err := b.startLarge(ctx, l, dir)
	b.cleanups, b.lasting = current, b.cleanups
	return l, err
}

func (b *bench) startLarge(ctx context.Context, l *large, dir string) (err error) {
	if l.redis, err = b.redis(ctx); err != nil {
		return err
	}
	before, err := redisMemory(ctx, l.redis)
	if err != nil {
		return err
	}
	progress("building the read model of %d events", l.events())
	began := time.Now()
	if l.service, err = launchService(b.binary, dir, "--redis-url", l.redis); err != nil {
		return err
	}
	b.cleanup(l.service.stop)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	// Undone before the cancel above, so that a service that is ready keeps running.
	defer context.AfterFunc(ctx, func() { _ = l.service.cmd.Process.Signal(syscall.SIGTERM) })()
	memory := watchMemory(l.service.pid())
	err = l.service.ready()
	l.took = time.Since(began)
	memory.end(l.figures, "start")
	if err != nil {
		return err
	}
	after, err := redisMemory(ctx, l.redis)
	l.add("bytes", (after-before)/float64(l.sessions))
	return err
}

// memory measures how much of Redis the read model of many finished sessions takes.
func (b *bench) memory(ctx context.Context) error {
	l, err := b.needLarge(ctx)
	if err != nil {
		return err
	}
	b.add(l.figures, ratio(fmt.Sprintf("Redis memory per session, %d finished", l.sessions), 0, "byte", "bytes", "", "≤ 2048"))
	return nil
}

// rebuild measures how quickly a read model is built, beside a bare consumer, and its memory.
func (b *bench) rebuild(ctx context.Context) error {
	l, err := b.needLarge(ctx)
	if err != nil {
		return err
	}
	f := l.figures
	return b.measure("rebuild", f, func(int) error {
		events, err := l.drain(ctx, f)
		if err != nil {
			return fmt.Errorf("ordered consumer: %w", err)
		}
		f.add("at start", float64(events)/l.took.Seconds())
		beside := watchMemory(l.service.pid())
		err = l.service.command(ctx, f, "rebuild", events, "rebuild", "--redis-url", l.redis)
		beside.end(f, "service")
		return err
	},
		ratio("rebuild, events/s ÷ ordered consumer that drains the log", 1, "1/s", "rebuild", "drained", "≥ 0.5"),
		ratio("start with an empty Redis, events/s ÷ the same", 1, "1/s", "at start", "drained", ""),
		flat("memory of chatsessions rebuild, second half ÷ first", "rebuild"),
		flat("memory of the service beside it, the same", "service"),
		flat("memory of the service that starts, the same", "start"))
}

// drain reads the whole log as a NATS client. It returns the number of events and adds their rate.
func (l *large) drain(ctx context.Context, f figures) (events int, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	content, err := os.ReadFile(filepath.Join(l.service.dataDir(), "connection.json"))
	if err != nil {
		return 0, err
	}
	var connection struct {
		NATSURL string `json:"natsUrl"`
	}
	if err := json.Unmarshal(content, &connection); err != nil {
		return 0, err
	}
	nc, err := nats.Connect(connection.NATSURL)
	if err != nil {
		return 0, err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return 0, err
	}
	stream, err := js.Stream(ctx, eventstore.StreamName)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return 0, err
	}
	read, total := 0, int(stream.CachedInfo().State.Msgs)
	all := make(chan struct{})
	consuming, err := consumer.Consume(func(jetstream.Msg) {
		if read++; read == total {
			close(all)
		}
	})
	if err != nil {
		return 0, err
	}
	defer consuming.Stop()
	select {
	case <-all:
		f.add("drained", float64(total)/time.Since(began).Seconds())
		return total, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}
