package eventstore_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chatsessions/domain"
	"chatsessions/eventstore"
	"chatsessions/eventstore/embedded"

	"github.com/google/uuid"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// BenchmarkTransact compares writes through the barrier with writes to a server
// that syncs every message by itself, in turns within one run: of one event, and
// of four. ns/op is of one write on each.
func BenchmarkTransact(b *testing.B) {
	for _, events := range []int{1, 4} {
		for _, writers := range []int{1, 64, 256} {
			b.Run(fmt.Sprintf("events=%d/writers=%d", events, writers), func(b *testing.B) {
				var syncs, grouped atomic.Int64
				barrier := barrierLog(b, embedded.Options{Synced: func(group int, _ time.Duration) {
					syncs.Add(1)
					grouped.Add(int64(group))
				}})
				always := syncingLog(b)
				var took [2]time.Duration
				b.ResetTimer()
				const turns = 8
				for turn := range turns {
					n := b.N*(turn+1)/turns - b.N*turn/turns
					for i, l := range []*eventstore.Log{barrier, always} {
						began := time.Now()
						benchWrites(b, l, n, writers, events)
						took[i] += time.Since(began)
					}
				}
				b.ReportMetric(float64(b.N)/took[0].Seconds(), "barrier/s")
				b.ReportMetric(float64(b.N)/took[1].Seconds(), "always/s")
				b.ReportMetric(took[1].Seconds()/took[0].Seconds(), "ratio")
				b.ReportMetric(float64(grouped.Load())/float64(max(syncs.Load(), 1)), "group")
			})
		}
	}
}

func barrierLog(b *testing.B, o embedded.Options) *eventstore.Log {
	o.StoreDir, o.User, o.Password = b.TempDir(), "u", "p"
	e, err := embedded.Start(b.Context(), o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(e.Shutdown)
	nc, err := e.Connect()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(nc.Close)
	return benchLog(b, nc, eventstore.Options{Durability: e, OnlyWriter: true})
}

// syncingLog is on a server in this process that syncs every message itself.
func syncingLog(b *testing.B) *eventstore.Log {
	srv, err := server.NewServer(&server.Options{
		DontListen: true, JetStream: true, StoreDir: b.TempDir(), SyncAlways: true, NoSigs: true, NoLog: true,
	})
	if err != nil {
		b.Fatal(err)
	}
	go srv.Start()
	b.Cleanup(srv.WaitForShutdown)
	b.Cleanup(srv.Shutdown)
	if !srv.ReadyForConnections(10 * time.Second) {
		b.Fatal("the server does not get ready")
	}
	nc, err := nats.Connect("", append(eventstore.ConnectionOptions("bench", nil), nats.InProcessServer(srv))...)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(nc.Close)
	return benchLog(b, nc, eventstore.Options{OnlyWriter: true})
}

func benchLog(b *testing.B, nc *nats.Conn, o eventstore.Options) *eventstore.Log {
	l, err := eventstore.Open(b.Context(), nc, o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(l.Close)
	return l
}

// benchWrites makes n writes of so many events, each to a session of its own.
func benchWrites(b *testing.B, l *eventstore.Log, n, writers, events int) {
	var next atomic.Int64
	var running sync.WaitGroup
	for range writers {
		running.Go(func() {
			for next.Add(1) <= int64(n) {
				id := uuid.Must(uuid.NewV7()).String()
				_, err := l.Transact(b.Context(), domain.Request{SessionID: id, Actor: "pat"}, func(s domain.Session) ([]domain.Event, error) {
					at := int64(1)
					c := domain.Create{ID: id, By: domain.Caller{Account: "pat"}, Now: 2, Values: domain.Values{CreatedAt: &at}}
					if events > 1 {
						for _, t := range []domain.Transition{domain.Start, domain.Accept, domain.Finish} {
							c.Values.Stamps[t].At = &at
						}
					}
					return domain.Decide(s, c)
				})
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	running.Wait()
}
