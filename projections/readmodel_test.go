package projections

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"chatsessions/domain"
	"chatsessions/domain/query"
	"chatsessions/projections/redistest"
)

// mustRefuse checks that neither a session nor a list is answered.
func (r *rig) mustRefuse(why string) {
	r.t.Helper()
	var asked sync.WaitGroup
	for name, ask := range map[string]func() error{
		"Get of a session": func() error { _, err := r.Get(r.t.Context(), id(1), ""); return err },
		"Get of none":      func() error { _, err := r.Get(r.t.Context(), id(999), ""); return err },
		"List":             func() error { _, err := r.List(r.t.Context(), query.Everything(10)); return err },
		"List with merge": func() error {
			q := query.Everything(10)
			q.Filters = []query.Filter{{Field: "state", Values: []string{"created", "started"}}}
			_, err := r.List(r.t.Context(), q)
			return err
		},
		"List with skip": func() error {
			q := query.Everything(10)
			q.Skip = 1
			_, err := r.List(r.t.Context(), q)
			return err
		},
		"count": func() error {
			q := query.Everything(0)
			q.Count = true
			_, err := r.List(r.t.Context(), q)
			return err
		},
	} {
		asked.Go(func() {
			if err := ask(); !errors.Is(err, domain.ErrUnavailable) || !strings.Contains(err.Error(), why) {
				r.t.Errorf("%s: got %v, want %q", name, err, why)
			}
		})
	}
	asked.Wait()
}

func TestWithoutAProjectorNothingIsAnswered(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := newFakeLog("log")
		log.append(session(1, 1))
		r := newRig(t, rdb, log)
		r.caughtUp()
		r.projector.end()
		log.append(session(1, 1, version(2)))
		// A write is answered without the projector only after Bound; by then no
		// probe from before it counts.
		eventually(t, "the read model is too old", func() bool {
			_, err := r.Get(t.Context(), id(1), "")
			return errors.Is(err, domain.ErrUnavailable)
		})
		r.mustRefuse("at position 1, and 2 may have been answered")
		r.project()
		r.caughtUp()
		got, err := r.Get(t.Context(), id(1), "")
		if err != nil || got.Version != 2 {
			t.Fatalf("got version %d, %v", got.Version, err)
		}
	})
}

func TestAFlushedRedisIsNotBelievedAndHeals(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := newFakeLog("log")
		for n := range 1000 {
			log.append(session(n, int64(n)))
		}
		r := newRig(t, rdb, log)
		r.caughtUp()
		r.projector.end()
		empty(t, rdb)
		r.mustRefuse("it is empty")
		mustRun(t, rdb.Set(t.Context(), r.keys.checkpoint(), "log 0 g f1 e", 0).Err())
		r.mustRefuse("at position 0")
		mustRun(t, rdb.Set(t.Context(), r.keys.checkpoint(), "other 1000 g p0 e", 0).Err())
		r.mustRefuse("of another log")
		empty(t, rdb)
		r.project()
		r.caughtUp()
		sameKeys(t, dump(t, rdb), scratch(t, log))

		// Under an idle projector: nobody writes, and it heals all the same. What is
		// answered meanwhile is right.
		empty(t, rdb)
		eventually(t, "it heals", func() bool {
			got, err := r.Get(t.Context(), id(1), "")
			if err != nil && !errors.Is(err, domain.ErrUnavailable) {
				t.Fatalf("got %v", err)
			}
			return got.Version == 1
		})
		page, err := r.List(t.Context(), query.Everything(1000))
		if err != nil || len(page.Documents) != 1000 {
			t.Fatalf("%d sessions, %v", len(page.Documents), err)
		}
	})
}

func TestAfterAFailoverToAnOlderReplicaNothingOlderIsAnswered(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := newFakeLog("log")
		log.append(session(1, 1))
		r := newRig(t, rdb, log)
		r.caughtUp()
		space := r.serving()
		old := map[string]string{}
		for _, key := range []string{space.document(id(1)), space.checkpoint()} {
			old[key] = rdb.Get(t.Context(), key).Val()
		}
		position := log.append(session(1, 1, version(2)))
		mustRun(t, r.WaitFor(t.Context(), position, time.Minute))
		for key, value := range old {
			mustRun(t, rdb.Set(t.Context(), key, value, 0).Err())
		}
		eventually(t, "it heals", func() bool {
			got, err := r.Get(t.Context(), id(1), "")
			if err == nil && got.Version == 1 || err != nil && !errors.Is(err, domain.ErrUnavailable) {
				t.Fatalf("got version %d, %v", got.Version, err)
			}
			return err == nil
		})
	})
}

func TestWhatWasShownToAClientIsWaitedFor(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := newFakeLog("log")
		log.append(session(1, 1))
		r := newRig(t, rdb, log)
		r.caughtUp()
		r.projector.end()
		r.Observe(log.append(session(1, 1, version(2))))
		r.mustRefuse("2 may have been answered")
		r.project()
		eventually(t, "it is answered", func() bool {
			got, err := r.Get(t.Context(), id(1), "")
			if err == nil && got.Version != 2 {
				t.Fatalf("got version %d", got.Version)
			}
			return err == nil
		})
	})
}

func TestALogThatCannotBeAskedIsNoProof(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := newFakeLog("log")
		log.append(session(1, 1))
		r := newRig(t, rdb, log)
		r.caughtUp()
		log.fail(errLogDown)
		eventually(t, "all probes are too old", func() bool {
			_, err := r.Get(t.Context(), id(1), "")
			return errors.Is(err, domain.ErrUnavailable)
		})
		r.mustRefuse("the end of the log is not known")
		log.fail(nil)
		r.caughtUp()
		_, err := r.Get(t.Context(), id(1), "")
		mustRun(t, err)
	})
}

func TestAReadModelBeyondTheLogIsNotBelieved(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := newFakeLog("log")
		log.append(session(1, 1), session(1, 1, version(2)))
		first := newRig(t, rdb, log)
		first.caughtUp()
		first.projector.end()
		log.truncate(1)
		// A node that starts now has seen nothing yet, and there is no projector.
		r := &rig{ReadModel: newReadModel(t, rdb, log, ReadModelOptions{}), keys: newPartitions(1)[0], t: t}
		start(t, r.Run)
		r.mustRefuse("")
	})
}

func TestAWriteIsSeenByEveryNodeOnceItIsAnswered(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := newFakeLog("log")
		r := newRig(t, rdb, log)
		r.project()
		other := newReadModel(t, rdb, log, ReadModelOptions{}) // hears of it through Redis only
		start(t, other.Run)
		r.caughtUp()
		mustRun(t, other.CaughtUp(t.Context()))
		var writers sync.WaitGroup
		for n := range 16 {
			writers.Go(func() {
				for v := uint64(1); v <= 25; v++ {
					position := log.append(session(n, int64(n), version(v), room(fmt.Sprint("room", v))))
					mustWait(t, r.ReadModel, position)
					for _, node := range []*ReadModel{r.ReadModel, other} {
						got, err := node.Get(t.Context(), id(n), "")
						if err != nil || got.Version != v {
							t.Errorf("got version %d, %v; want %d", got.Version, err, v)
							return
						}
						q := query.Everything(50)
						q.Filters = []query.Filter{{Field: "room", Values: []string{fmt.Sprint("room", v)}}}
						page, err := node.List(t.Context(), q)
						if err != nil || !strings.Contains(fmt.Sprintf("%s", page.Documents), id(n)) {
							t.Errorf("the list lacks %s: %v", id(n), err)
							return
						}
					}
				}
			})
		}
		writers.Wait()
		sameKeys(t, dump(t, rdb), scratch(t, log))
	})
}

func TestThousandsWaitAtOnce(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := newFakeLog("log")
		r := newRig(t, rdb, log)
		r.caughtUp()
		var waiting sync.WaitGroup
		for n := range uint64(5000) {
			waiting.Go(func() { mustWait(t, r.ReadModel, n+1) })
		}
		for n := range 5000 {
			log.append(session(n%100, int64(n%100), version(uint64(n))))
		}
		waiting.Wait()
	})
}

func TestAWaitEndsWithItsContext(t *testing.T) {
	m := newReadModel(t, nil, newFakeLog("log"), ReadModelOptions{Private: true})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.WaitFor(ctx, 1, time.Minute); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if err := m.WaitFor(t.Context(), 1, time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	if n, _, _ := m.fresh.demand(); n != 0 {
		t.Fatal("it still waits")
	}
	if err := m.CaughtUp(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	mustRun(t, m.WaitFor(ctx, 0, time.Minute))
}

func TestALostNoticeIsMadeUpFor(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := newFakeLog("log")
		r := &rig{ReadModel: newReadModel(t, rdb, log, ReadModelOptions{}), keys: newPartitions(1)[0], t: t}
		start(t, r.Run)
		log.append(session(1, 1))
		done := make(chan struct{})
		go func() {
			defer close(done)
			mustWait(t, r.ReadModel, 1)
		}()
		// The checkpoint moves, and nobody says so.
		mustRun(t, rdb.Set(t.Context(), r.keys.checkpoint(), "log 1 g p0 e", 0).Err())
		<-done
	})
}

func TestNoticesReachOtherProcesses(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := newFakeLog("log")
		r := newRig(t, rdb, log)
		r.caughtUp()
		other := newReadModel(t, rdb, log, ReadModelOptions{})
		listening := start(t, func(ctx context.Context) error { other.keepListening(ctx); return nil })
		eventually(t, "a notice arrives", func() bool {
			log.append(session(1, 1, version(uint64(len(log.events)))))
			return other.fresh.highest() > 0
		})
		listening.end()
	})
}

func TestARedisThatIsGoneIsSaidAtOnceAndComesBack(t *testing.T) {
	for _, persistent := range []bool{false, true} {
		t.Run(fmt.Sprint("persistent ", persistent), func(t *testing.T) {
			server := redistest.Start(t, redistest.Config{Persistent: persistent})
			rdb := connect(t, server)
			log := newFakeLog("log")
			log.append(session(1, 1))
			r := newRig(t, rdb, log)
			r.caughtUp()
			server.Kill()
			r.mustRefuse("connection refused")
			if _, err := r.SaveQuery(t.Context(), "alice", "x"); !errors.Is(err, domain.ErrUnavailable) {
				t.Fatalf("SaveQuery: %v", err)
			}
			if _, err := r.LoadQuery(t.Context(), "alice", digestOf("x")); !errors.Is(err, domain.ErrUnavailable) {
				t.Fatalf("LoadQuery: %v", err)
			}
			log.append(session(1, 1, version(2)))
			server.Restart()
			r.caughtUp()
			got, err := r.Get(t.Context(), id(1), "")
			if err != nil || got.Version != 2 {
				t.Fatalf("got version %d, %v", got.Version, err)
			}
			sameKeys(t, dump(t, rdb), scratch(t, log))
		})
	}
}

func TestQueriesAreKept(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		m := newReadModel(t, rdb, newFakeLog("log"), ReadModelOptions{})
		text := strings.Repeat("participants[$in][]=x&", 300)
		digest, err := m.SaveQuery(t.Context(), "alice", text)
		mustRun(t, err)
		mustRun(t, rdb.Expire(t.Context(), queryKey("alice", digest), time.Minute).Err())
		got, err := m.LoadQuery(t.Context(), "alice", digest)
		if err != nil || got != text || len(digest) != digestLength {
			t.Fatalf("got %q under %q, %v", got, digest, err)
		}
		if life := rdb.TTL(t.Context(), queryKey("alice", digest)).Val(); life < queryLife-time.Hour {
			t.Fatalf("its life was not renewed: %v", life)
		}
		for _, unknown := range []string{"", "x", digestOf("other"), strings.Repeat("\n", digestLength), strings.Repeat("x", 5000)} {
			if _, err := m.LoadQuery(t.Context(), "alice", unknown); !errors.Is(err, domain.ErrNotFound) {
				t.Fatalf("%q: %v", unknown, err)
			}
		}
	})
}

func TestAnAccountKeepsItsNewestQueries(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		m := newReadModel(t, rdb, newFakeLog("log"), ReadModelOptions{})
		other, err := m.SaveQuery(t.Context(), "bob", "of bob")
		mustRun(t, err)
		var digests []string
		for i := range maxQueries + 5 {
			digest, err := m.SaveQuery(t.Context(), "alice", fmt.Sprintf("query %d", i))
			mustRun(t, err)
			// Saved in order, also within one millisecond.
			mustRun(t, rdb.ZAdd(t.Context(), queriesKey("alice"), redis.Z{Score: float64(i), Member: digest}).Err())
			digests = append(digests, digest)
		}
		kept := 0
		for _, digest := range digests {
			if _, err := m.LoadQuery(t.Context(), "alice", digest); err == nil {
				kept++
			}
		}
		if kept != maxQueries {
			t.Errorf("%d queries are kept, not %d", kept, maxQueries)
		}
		if _, err := m.LoadQuery(t.Context(), "alice", digests[len(digests)-1]); err != nil {
			t.Errorf("the newest is gone: %v", err)
		}
		if text, err := m.LoadQuery(t.Context(), "bob", other); text != "of bob" {
			t.Errorf("another account's is gone: %v", err)
		}
		if _, err := m.LoadQuery(t.Context(), "alice", other); !errors.Is(err, domain.ErrNotFound) {
			t.Errorf("another account's can be loaded: %v", err)
		}
	})
}

func TestConnectRefusesWhatCanNeverWork(t *testing.T) {
	server := redistest.Start(t, redistest.Config{Password: "secret"})
	for _, url := range []string{"http://x", "redis://:hidden@[", "redis://" + server.Addr(), "redis://:hidden@" + server.Addr()} {
		rdb, err := Connect(t.Context(), RedisOptions{URL: url})
		if err == nil {
			_ = rdb.Close()
			t.Errorf("%s: no error", url)
			continue
		}
		if strings.Contains(err.Error(), "hidden") {
			t.Errorf("the password is in the error: %v", err)
		}
	}
	rdb, err := Connect(t.Context(), RedisOptions{URL: "redis://127.0.0.1:1"})
	mustRun(t, err) // it may come yet
	mustRun(t, rdb.Close())
}

func TestTheEmbeddedRedisAsksForItsPassword(t *testing.T) {
	if _, err := StartEmbedded(""); err == nil {
		t.Fatal("no password, no error")
	}
	e, err := StartEmbedded("p@ss/word:")
	mustRun(t, err)
	t.Cleanup(func() { mustRun(t, e.Close()) })
	if rdb, err := Connect(t.Context(), RedisOptions{URL: "redis://" + e.Addr()}); err == nil {
		_ = rdb.Close()
		t.Fatal("no password is asked for")
	}
	rdb, err := Connect(t.Context(), RedisOptions{URL: e.URL()})
	mustRun(t, err)
	mustRun(t, rdb.Ping(t.Context()).Err())
	mustRun(t, rdb.Close())
	if !strings.HasPrefix(e.Addr(), "127.0.0.1:") {
		t.Fatal(e.Addr())
	}
}

// A node that has lost Redis does not know what others show: it asks the log, and waits
// as if it did not.
func TestANodeWithoutRedisShowsNothingThatOthersDoNotShowYet(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	log := newFakeLog("log")
	log.append(session(1, 1))
	r := newRig(t, connect(t, server), log)
	r.caughtUp()
	server.Kill()
	eventually(t, "it is noticed", func() bool { return r.asksEnd() })
	position := log.append(session(1, 1, version(2)))
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := r.Settle(short, position); !errors.Is(err, domain.ErrUnavailable) {
		t.Errorf("settled at once: %v", err)
	}
	mustRun(t, r.Settle(t.Context(), position))
}

func TestAPositionIsWaitedForInAllPartitions(t *testing.T) {
	m := newReadModel(t, nil, newFakeLog("log"), ReadModelOptions{Partitions: 3, Private: true})
	ended := make(chan error, 1)
	go func() { ended <- m.WaitFor(t.Context(), 5, 30*time.Second) }()
	eventually(t, "somebody waits", func() bool { n, _, _ := m.fresh.demand(); return n == 1 })
	for _, passed := range []struct {
		shard    int
		position uint64
	}{{0, 9}, {2, 5}, {1, 4}} {
		m.Projected(passed.shard, passed.position)
		if n, _, _ := m.fresh.demand(); n != 1 {
			t.Fatalf("after %+v nobody waits any more", passed)
		}
	}
	m.Projected(1, 5)
	mustRun(t, <-ended)
}
