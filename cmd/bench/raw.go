package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A rawLog is the baseline of writes: a stream that syncs before it acknowledges.
type rawLog struct {
	dir    string
	server *server.Server // nil in a cluster
	nc     *nats.Conn
	js     jetstream.JetStream
	next   atomic.Int64 // number of used subjects
}

// rawStream has the configuration of the service's own stream.
var rawStream = jetstream.StreamConfig{
	Name: "RAW", Subjects: []string{"raw.*"}, AllowDirect: true, AllowAtomicPublish: true, DenyDelete: true, DenyPurge: true,
}

// startRawLog starts a server with such a stream in this process.
func startRawLog(dir string) (*rawLog, error) {
	srv, err := server.NewServer(&server.Options{
		DontListen: true, JetStream: true, StoreDir: dir, SyncAlways: true, NoSigs: true, NoLog: true,
	})
	if err != nil {
		return nil, err
	}
	go srv.Start() // returns when the server is up; ends with stop
	if !srv.ReadyForConnections(10 * time.Second) {
		return nil, errors.New("the baseline's server is not ready")
	}
	l := &rawLog{dir: dir, server: srv}
	if l.nc, err = nats.Connect("", nats.InProcessServer(srv)); err == nil {
		if l.js, err = jetstream.New(l.nc); err == nil {
			_, err = l.js.CreateStream(context.Background(), rawStream)
		}
	}
	if err != nil {
		l.stop()
		return nil, err
	}
	return l, nil
}

func (l *rawLog) stop() {
	if l.nc != nil {
		l.nc.Close()
	}
	l.server.Shutdown()
	l.server.WaitForShutdown()
	_ = os.RemoveAll(l.dir) // the next round has a log of its own
}

// publish publishes messages of a size, each on a subject of its own.
func (l *rawLog) publish(inFlight, size int, duration time.Duration) (*result, error) {
	payload := slices.Repeat([]byte("x"), size)
	for range 2000 { // warm up, as the service is by then
		if _, err := l.js.Publish(context.Background(), fmt.Sprintf("raw.%d", l.next.Add(1)), payload); err != nil {
			return nil, err
		}
	}
	until := time.Now().Add(duration)
	return inParallel(inFlight, func(_ int, r *result) error {
		for time.Now().Before(until) {
			sent := time.Now()
			if _, err := l.js.Publish(context.Background(), fmt.Sprintf("raw.%d", l.next.Add(1)), payload); err != nil {
				return err
			}
			r.latencies = append(r.latencies, time.Since(sent))
		}
		return nil
	})
}
