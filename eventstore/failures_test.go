package eventstore_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chatsessions/domain"
	"chatsessions/eventstore"
	"chatsessions/eventstore/natstest"

	"github.com/nats-io/nats.go"
)

// TestLostAcknowledgement loses the answers to a write that arrived. The write
// is found instead of repeated.
func TestLostAcknowledgement(t *testing.T) {
	server := natstest.Start(t, natstest.Config{})
	p := startProxy(t, server.Addr())
	cut, direct := openLog(t, connect(t, p.through(server.URL()))), openLog(t, connect(t, server.URL()))

	for _, test := range []struct {
		name   string
		events uint64
		decide func(id, account string) func(domain.Session) ([]domain.Event, error)
		follow int // events by another writer, before the connection is back
	}{
		{"one event", 1, create, 0},
		{"several events", importedEvents, imported, 0},
		{"another writer follows", importedEvents, imported, 1},
		{"more follow one event than are searched", 1, create, searched + 1},
		{"more follow several events than are searched", importedEvents, imported, searched + 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			id := newID()
			before := mustEnd(t, direct)
			decide := test.decide(id, "pat")
			calls := 0
			var trouble sync.WaitGroup
			got := mustTransact(t, cut, request(id, "pat"), func(s domain.Session) ([]domain.Event, error) {
				calls++
				p.loseAnswers()
				trouble.Go(func() {
					eventually(t, "the write arrives", func() bool { return mustEnd(t, direct) > before })
					for left := test.follow; left > 0; left -= searched / 2 {
						mustTransact(t, direct, request(id, "eve"), setRooms(min(left, searched/2)))
					}
					p.cut()
				})
				return decide(s)
			})
			trouble.Wait()
			if calls != 1 || got.Record.Position != before+test.events || got.Record.Event.Session.Version != test.events {
				t.Errorf("decided %d times, got %+v", calls, got)
			}
			records := history(t, direct, id)
			if r := records[test.events-1]; !sameRecord(&r, got.Record) {
				t.Errorf("answered %+v, recorded %+v", got, r)
			}
			if uint64(len(records)) != test.events+uint64(test.follow) {
				t.Errorf("%d events", len(records))
			}
		})
	}
}

// TestDeadline tells what was not written from what may have been.
func TestDeadline(t *testing.T) {
	server := natstest.Start(t, natstest.Config{})
	nc := connect(t, server.URL())
	l := openLog(t, nc)
	short := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}

	for name, decide := range map[string]func(id string) func(domain.Session) ([]domain.Event, error){
		"one event":      func(id string) func(domain.Session) ([]domain.Event, error) { return create(id, "pat") },
		"several events": func(id string) func(domain.Session) ([]domain.Event, error) { return imported(id, "pat") },
	} {
		t.Run("no answer to "+name, func(t *testing.T) {
			id := newID()
			req := keyed(id, "pat", "k", "body")
			_, err := l.Transact(short(), req, func(s domain.Session) ([]domain.Event, error) {
				server.Pause()
				return decide(id)(s)
			})
			if !errors.Is(err, domain.ErrOutcomeUnknown) || errors.Is(err, domain.ErrUnavailable) {
				t.Errorf("%v", err)
			}
			server.Resume()
			got := mustTransact(t, l, req, decide(id))
			if n := len(history(t, l, id)); uint64(n) != got.Record.Event.Session.Version || got.Record.Event.Session.State == domain.StateNone {
				t.Errorf("%d events after %+v", n, got)
			}
		})
	}

	t.Run("no answer to a read", func(t *testing.T) {
		id := newID()
		server.Pause()
		_, err := l.Transact(short(), request(id, "pat"), create(id, "pat"))
		if !errors.Is(err, domain.ErrUnavailable) || errors.Is(err, domain.ErrOutcomeUnknown) {
			t.Errorf("transact: %v", err)
		}
		if _, err := l.Load(short(), id); !errors.Is(err, domain.ErrUnavailable) {
			t.Errorf("load: %v", err)
		}
		if _, err := l.End(short()); !errors.Is(err, domain.ErrUnavailable) {
			t.Errorf("end: %v", err)
		}
		server.Resume()
		if _, err := l.Load(testContext(t), id); !errors.Is(err, domain.ErrNotFound) {
			t.Errorf("after that: %v", err)
		}
	})

	t.Run("no server", func(t *testing.T) {
		id := newID()
		end := mustEnd(t, l)
		_, err := l.Transact(short(), request(id, "pat"), func(s domain.Session) ([]domain.Event, error) {
			server.Kill()
			eventually(t, "the connection is known to be lost", nc.IsReconnecting)
			return create(id, "pat")(s)
		})
		if !errors.Is(err, domain.ErrUnavailable) || errors.Is(err, domain.ErrOutcomeUnknown) {
			t.Errorf("%v", err)
		}
		server.Restart()
		eventually(t, "the connection is back", nc.IsConnected)
		if got := mustEnd(t, l); got != end {
			t.Errorf("what was not written was written: %d, not %d", got, end)
		}
	})

	t.Run("no connection any more", func(t *testing.T) {
		nc := connect(t, server.URL())
		closed := openLog(t, nc)
		nc.Close()
		id := newID()
		if _, err := closed.Transact(testContext(t), request(id, "pat"), create(id, "pat")); !errors.Is(err, domain.ErrUnavailable) {
			t.Errorf("%v", err)
		}
	})
}

// A barrier is a Durability of which only Durable does anything.
type barrier func() error

func (b barrier) Settle(context.Context, eventstore.Recovery) error { return b() }
func (b barrier) Durable(context.Context, uint64) error             { return b() }
func (b barrier) Err() error                                        { return nil }
func (b barrier) Intend(uint64, []*nats.Msg) (func(uint64), error) {
	return func(uint64) {}, nil
}

// TestBarrier checks that nothing gets past a barrier that fails.
func TestBarrier(t *testing.T) {
	e := startEmbedded(t, t.TempDir())
	nc := connectEmbedded(t, e)
	plain := openLog(t, nc)
	var broken atomic.Bool
	lost := errors.New("fsync failed")
	l, err := eventstore.Open(testContext(t), nc, eventstore.Options{Durability: barrier(func() error {
		if broken.Load() {
			return lost
		}
		return nil
	})})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	id := newID()
	req := keyed(id, "pat", "k", "body")
	mustTransact(t, l, req, create(id, "pat"))
	start := mustEnd(t, plain)

	broken.Store(true)
	check := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) || !errors.Is(err, lost) {
			t.Errorf("%s: %v", what, err)
		}
	}
	ctx := testContext(t)
	_, err = l.Transact(ctx, request(id, "pat"), setRoom("r"))
	check("append", err, domain.ErrOutcomeUnknown)
	_, err = l.Transact(ctx, req, create(id, "pat"))
	check("replay", err, domain.ErrUnavailable)
	_, err = l.Transact(ctx, request(id, "pat"), change("pat"))
	check("no-op", err, domain.ErrUnavailable)
	_, err = l.Transact(ctx, request(id, "pat"), change("pat", domain.Finish))
	check("refusal", err, domain.ErrUnavailable)
	_, err = l.Load(ctx, id)
	check("load", err, domain.ErrUnavailable)
	_, err = l.End(ctx)
	check("end", err, domain.ErrUnavailable)
	for _, err := range l.History(ctx, id) {
		check("history", err, domain.ErrUnavailable)
	}
	_, err = eventstore.Open(ctx, nc, eventstore.Options{Durability: barrier(func() error { return lost })})
	if !errors.Is(err, lost) {
		t.Errorf("open: %v", err)
	}

	// The feed gets an event before it is durable; its reader calls Durable before it shows the
	// event.
	done := errors.New("done")
	err = l.Follow(ctx, start, 10, func(batch []domain.Entry) error {
		if batch[0].Record.Position != start+1 {
			t.Errorf("%+v", batch)
		}
		if err := l.Durable(ctx, batch[0].Record.Position); !errors.Is(err, lost) {
			t.Errorf("an event that the feed handed over counts as durable: %v", err)
		}
		return done
	})
	if !errors.Is(err, done) {
		t.Errorf("follow: %v", err)
	}
	broken.Store(false)
	if err := l.Durable(ctx, start+1); err != nil {
		t.Error(err)
	}
}

// TestKilledInMidWrite kills servers under load: what was answered is there, once;
// what was not written is not.
func TestKilledInMidWrite(t *testing.T) {
	t.Run("server", func(t *testing.T) {
		server := natstest.Start(t, natstest.Config{})
		disturbed(t, func(t testing.TB) *nats.Conn { return connect(t, server.URL()) }, func() {
			server.Kill()
			server.Restart()
		})
	})
	t.Run("leader of a cluster", func(t *testing.T) {
		cluster := natstest.StartCluster(t, make([]natstest.Config, 3)...)
		nc := connect(t, cluster.URL())
		disturbed(t, func(t testing.TB) *nats.Conn { return connect(t, cluster.URL()) }, func() {
			leader := cluster.Server(streamLeader(t, nc))
			leader.Kill()
			leader.Restart()
		})
	})
	t.Run("paused leader of a cluster", func(t *testing.T) {
		cluster := natstest.StartCluster(t, make([]natstest.Config, 3)...)
		nc := connect(t, cluster.URL())
		disturbed(t, func(t testing.TB) *nats.Conn { return connect(t, cluster.URL()) }, func() {
			leader := streamLeader(t, nc)
			cluster.Server(leader).Pause()
			eventually(t, "another leader", func() bool { return streamLeader(t, nc) != leader })
			cluster.Server(leader).Resume()
		})
	})
}

// streamLeader returns the name of the stream's leader.
func streamLeader(t testing.TB, nc *nats.Conn) string {
	t.Helper()
	var info struct {
		Cluster struct {
			Leader string `json:"leader"`
		} `json:"cluster"`
	}
	eventually(t, "the stream has a leader", func() bool {
		answer, err := nc.Request("$JS.API.STREAM.INFO."+eventstore.StreamName, nil, time.Second)
		return err == nil && json.Unmarshal(answer.Data, &info) == nil && info.Cluster.Leader != ""
	})
	return info.Cluster.Leader
}

// An attempted write, and what was answered.
type attempted struct {
	req    domain.Request
	result domain.Result
	err    error
}

// disturbed writes from two nodes while the log is disturbed, and compares what
// was answered with what the log has.
func disturbed(t *testing.T, connect func(testing.TB) *nats.Conn, disturb func()) {
	logs := []*eventstore.Log{openLog(t, connect(t)), openLog(t, connect(t))}
	var shared []string // sessions that several writers change
	for range 4 {
		id := newID()
		mustTransact(t, logs[0], request(id, "pat"), create(id, "pat"))
		shared = append(shared, id)
	}
	var stop atomic.Bool
	var acknowledged atomic.Int64
	results := make([][]attempted, 8)
	var writers sync.WaitGroup
	for w := range results {
		writers.Go(func() {
			for n := 0; !stop.Load(); n++ {
				id, decide := newID(), create
				if n%3 == 0 {
					decide = imported
				}
				do := decide(id, "pat")
				if n%3 == 1 {
					id = shared[rand.N(len(shared))]
					do = setRoom(fmt.Sprint(w, "-", n))
				}
				a := attempted{req: request(id, "pat")}
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				a.result, a.err = logs[w%2].Transact(ctx, a.req, do)
				cancel()
				if a.err == nil {
					acknowledged.Add(1)
				}
				results[w] = append(results[w], a)
			}
		})
	}
	eventually(t, "writes before the trouble", func() bool { return acknowledged.Load() > 50 })
	disturb()
	before := acknowledged.Load()
	eventually(t, "writes after the trouble", func() bool { return acknowledged.Load() > before+50 })
	stop.Store(true)
	writers.Wait()

	written := map[string][]domain.Record{} // by the request that wrote them
	seen := map[string]bool{}
	for _, r := range everything(t, logs[0], 0) {
		if id := r.Record.Event.Session.ID; !seen[id] {
			seen[id] = true
			records := history(t, logs[0], id)
			for i, r := range records {
				if r.Event.Session.Version != uint64(i+1) {
					t.Fatalf("session %s: event %d has version %d", id, i+1, r.Event.Session.Version)
				}
				written[r.Request.CorrelationID] = append(written[r.Request.CorrelationID], r)
			}
		}
	}
	counts := map[string]int{}
	for _, a := range slices.Concat(results...) {
		records := written[a.req.CorrelationID]
		switch {
		case a.err == nil:
			counts["answered"]++
			if len(records) == 0 {
				t.Errorf("answered and lost: %+v", a)
			} else if last := records[len(records)-1]; !sameRecord(&last, a.result.Record) {
				t.Errorf("answered %+v, recorded %+v", a.result, last)
			}
		case errors.Is(a.err, domain.ErrOutcomeUnknown):
			counts["unknown"]++
		case errors.Is(a.err, domain.ErrUnavailable):
			counts["not written"]++
			if len(records) > 0 {
				t.Errorf("written, and answered with %v", a.err)
			}
		default:
			t.Errorf("%v", a.err)
		}
		// All events of a write or none, and none twice.
		types := map[domain.EventType]int{}
		for _, r := range records {
			types[r.Event.Type]++
		}
		if n := len(records); n > 1 && (n != importedEvents || len(types) != n) {
			t.Errorf("request %+v wrote %d events", a.req, n)
		}
	}
	t.Log(counts)
}
