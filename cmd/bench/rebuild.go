package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chatsessions/eventstore"
)

// rebuild measures how quickly a new read model is built beside the one that is
// served, beside a consumer that only reads the same log, and what memory that
// takes.
func (b *bench) rebuild(ctx context.Context) error {
	const megabyte = 1 << 20
	l, err := b.needLarge(ctx)
	if err != nil {
		return err
	}
	f := figures{}
	for round := range b.Rounds {
		events, took, err := l.drain(ctx)
		if err != nil {
			return fmt.Errorf("ordered consumer: %w", err)
		}
		f.add("drained", float64(events)/took.Seconds())
		f.add("at start", float64(events)/l.took.Seconds())
		progress("rebuild, round %d of %d: running; what it says is in %s", round+1, b.Rounds, l.service.output("rebuild"))
		beside := watchMemory(l.service.pid())
		took, first, last, err := l.service.command(ctx, b.binary, "rebuild", "--redis-url", l.redis.url)
		f.addHalves("service memory", beside, megabyte)
		if err != nil {
			return err
		}
		f.add("rebuilt", float64(events)/took.Seconds())
		f.add("memory at first", first/megabyte)
		f.add("memory", last/megabyte)
		progress("rebuild, round %d of %d: %.0f events/s, %.0f drained", round+1, b.Rounds, f["rebuilt"][round], f["drained"][round])
	}
	f.add("start memory at first", l.atFirst/megabyte)
	f.add("start memory", l.memory/megabyte)
	b.rows = append(b.rows,
		f.ratio("rebuild, events/s ÷ ordered consumer that drains the log", 1, "1/s", "rebuilt", "drained", "≥ 0.5"),
		f.ratio("start with an empty Redis, events/s ÷ the same", 1, "1/s", "at start", "drained", ""),
		f.ratio("memory of chatsessions rebuild, second half ÷ first", 1, "MB", "memory", "memory at first", "≤ 1.1"),
		f.ratio("memory of the service beside it, the same", 1, "MB", "service memory", "service memory at first", "≤ 1.1"),
		f.ratio("memory of the service that starts, the same", 1, "MB", "start memory", "start memory at first", "≤ 1.1"),
	)
	return nil
}

func (f figures) addHalves(name string, w *memoryWatch, unit float64) {
	first, last := w.end()
	f.add(name+" at first", first/unit)
	f.add(name, last/unit)
}

// drain reads the whole log through the port that the service has for that.
func (l *large) drain(ctx context.Context) (events int, took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	content, err := os.ReadFile(filepath.Join(l.service.dataDir(), "connection.json"))
	if err != nil {
		return 0, 0, err
	}
	var connection struct {
		NATSURL string `json:"natsUrl"`
	}
	if err := json.Unmarshal(content, &connection); err != nil {
		return 0, 0, err
	}
	nc, err := nats.Connect(connection.NATSURL)
	if err != nil {
		return 0, 0, err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return 0, 0, err
	}
	stream, err := js.Stream(ctx, eventstore.StreamName)
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return 0, 0, err
	}
	var read atomic.Int64
	total := int64(stream.CachedInfo().State.Msgs)
	all := make(chan struct{})
	defer report(ctx, "draining", "events", int(total), func() (int, error) { return int(read.Load()), nil })()
	consuming, err := consumer.Consume(func(jetstream.Msg) {
		if read.Add(1) == total {
			close(all)
		}
	})
	if err != nil {
		return 0, 0, err
	}
	defer consuming.Stop()
	select {
	case <-all:
		return int(total), time.Since(began), nil
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
}
