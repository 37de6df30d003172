package readmodel

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
	"chatsessions/projections/embeddedredis"
	"chatsessions/projections/layout"
	"chatsessions/projections/logtest"
	"chatsessions/projections/modeltest"
	"chatsessions/projections/redisconn"
	"chatsessions/projections/redistest"
)

// mustRefuse checks that neither a session nor a list is answered.
func (r *rig) mustRefuse(why string) {
	r.t.Helper()
	var asked sync.WaitGroup
	for name, ask := range map[string]func() error{
		"Get of a session": func() error { _, err := r.Get(r.t.Context(), logtest.ID(1), ""); return err },
		"Get of none":      func() error { _, err := r.Get(r.t.Context(), logtest.ID(999), ""); return err },
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
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := logtest.New("log")
		log.Append(logtest.Session(1, 1))
		r := newRig(t, rdb, log)
		r.caughtUp()
		r.projector.End()
		log.Append(logtest.Session(1, 1, logtest.Version(2)))
		// A write is answered without the projector only after Bound; by then no
		// probe from before it counts.
		logtest.Eventually(t, "the read model is too old", func() bool {
			_, err := r.Get(t.Context(), logtest.ID(1), "")
			return errors.Is(err, domain.ErrUnavailable)
		})
		r.mustRefuse("at position 1, and 2 may have been answered")
		r.project()
		r.caughtUp()
		got, err := r.Get(t.Context(), logtest.ID(1), "")
		if err != nil || got.Version != 2 {
			t.Fatalf("got version %d, %v", got.Version, err)
		}
	})
}

func TestAFlushedRedisIsNotBelievedAndHeals(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := logtest.New("log")
		for n := range 1000 {
			log.Append(logtest.Session(n, int64(n)))
		}
		r := newRig(t, rdb, log)
		r.caughtUp()
		r.projector.End()
		modeltest.Empty(t, rdb)
		r.mustRefuse("it is empty")
		logtest.MustRun(t, rdb.Set(t.Context(), r.keys.Checkpoint(), "log 0 g f1 e", 0).Err())
		r.mustRefuse("at position 0")
		logtest.MustRun(t, rdb.Set(t.Context(), r.keys.Checkpoint(), "other 1000 g p0 e", 0).Err())
		r.mustRefuse("of another log")
		modeltest.Empty(t, rdb)
		r.project()
		r.caughtUp()
		modeltest.SameKeys(t, modeltest.Dump(t, rdb), scratch(t, log))

		// Under an idle projector: nobody writes, and it heals all the same. What is
		// answered meanwhile is right.
		modeltest.Empty(t, rdb)
		logtest.Eventually(t, "it heals", func() bool {
			got, err := r.Get(t.Context(), logtest.ID(1), "")
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
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := logtest.New("log")
		log.Append(logtest.Session(1, 1))
		r := newRig(t, rdb, log)
		r.caughtUp()
		space := r.liveKeys()
		old := map[string]string{}
		for _, key := range []string{space.Document(logtest.ID(1)), space.Partition.Checkpoint()} {
			old[key] = rdb.Get(t.Context(), key).Val()
		}
		position := log.Append(logtest.Session(1, 1, logtest.Version(2)))
		logtest.MustRun(t, r.WaitFor(t.Context(), position, time.Minute))
		for key, value := range old {
			logtest.MustRun(t, rdb.Set(t.Context(), key, value, 0).Err())
		}
		logtest.Eventually(t, "it heals", func() bool {
			got, err := r.Get(t.Context(), logtest.ID(1), "")
			if err == nil && got.Version == 1 || err != nil && !errors.Is(err, domain.ErrUnavailable) {
				t.Fatalf("got version %d, %v", got.Version, err)
			}
			return err == nil
		})
	})
}

func TestWhatWasShownToAClientIsWaitedFor(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := logtest.New("log")
		log.Append(logtest.Session(1, 1))
		r := newRig(t, rdb, log)
		r.caughtUp()
		r.projector.End()
		r.Observe(log.Append(logtest.Session(1, 1, logtest.Version(2))))
		r.mustRefuse("2 may have been answered")
		r.project()
		logtest.Eventually(t, "it is answered", func() bool {
			got, err := r.Get(t.Context(), logtest.ID(1), "")
			if err == nil && got.Version != 2 {
				t.Fatalf("got version %d", got.Version)
			}
			return err == nil
		})
	})
}

func TestALogThatCannotBeAskedIsNoProof(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := logtest.New("log")
		log.Append(logtest.Session(1, 1))
		r := newRig(t, rdb, log)
		r.caughtUp()
		log.Fail(logtest.ErrDown)
		logtest.Eventually(t, "all probes are too old", func() bool {
			_, err := r.Get(t.Context(), logtest.ID(1), "")
			return errors.Is(err, domain.ErrUnavailable)
		})
		r.mustRefuse("the end of the log is not known")
		log.Fail(nil)
		r.caughtUp()
		_, err := r.Get(t.Context(), logtest.ID(1), "")
		logtest.MustRun(t, err)
	})
}

func TestAReadModelBeyondTheLogIsNotBelieved(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := logtest.New("log")
		log.Append(logtest.Session(1, 1), logtest.Session(1, 1, logtest.Version(2)))
		first := newRig(t, rdb, log)
		first.caughtUp()
		first.projector.End()
		log.Truncate(1)
		// A node that starts now has seen nothing yet, and there is no projector.
		r := &rig{ReadModel: newReadModel(t, rdb, log, Options{}), keys: layout.Partitions(1)[0], t: t}
		logtest.Start(t, r.Run)
		r.mustRefuse("")
	})
}

func TestAWriteIsSeenByEveryNodeOnceItIsAnswered(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := logtest.New("log")
		r := newRig(t, rdb, log)
		r.project()
		other := newReadModel(t, rdb, log, Options{}) // hears of it through Redis only
		logtest.Start(t, other.Run)
		r.caughtUp()
		logtest.MustRun(t, other.CaughtUp(t.Context()))
		var writers sync.WaitGroup
		for n := range 16 {
			writers.Go(func() {
				for v := uint64(1); v <= 25; v++ {
					position := log.Append(logtest.Session(n, int64(n), logtest.Version(v), logtest.Room(fmt.Sprint("room", v))))
					mustWait(t, r.ReadModel, position)
					for _, node := range []*ReadModel{r.ReadModel, other} {
						got, err := node.Get(t.Context(), logtest.ID(n), "")
						if err != nil || got.Version != v {
							t.Errorf("got version %d, %v; want %d", got.Version, err, v)
							return
						}
						q := query.Everything(50)
						q.Filters = []query.Filter{{Field: "room", Values: []string{fmt.Sprint("room", v)}}}
						page, err := node.List(t.Context(), q)
						if err != nil || !strings.Contains(fmt.Sprintf("%s", page.Documents), logtest.ID(n)) {
							t.Errorf("the list lacks %s: %v", logtest.ID(n), err)
							return
						}
					}
				}
			})
		}
		writers.Wait()
		modeltest.SameKeys(t, modeltest.Dump(t, rdb), scratch(t, log))
	})
}

func TestThousandsWaitAtOnce(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := logtest.New("log")
		r := newRig(t, rdb, log)
		r.caughtUp()
		var waiting sync.WaitGroup
		for n := range uint64(5000) {
			waiting.Go(func() { mustWait(t, r.ReadModel, n+1) })
		}
		for n := range 5000 {
			log.Append(logtest.Session(n%100, int64(n%100), logtest.Version(uint64(n))))
		}
		waiting.Wait()
	})
}

func TestAWaitEndsWithItsContext(t *testing.T) {
	m := newReadModel(t, nil, logtest.New("log"), Options{Private: true})
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
	logtest.MustRun(t, m.WaitFor(ctx, 0, time.Minute))
}

func TestALostNoticeIsMadeUpFor(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := logtest.New("log")
		r := &rig{ReadModel: newReadModel(t, rdb, log, Options{}), keys: layout.Partitions(1)[0], t: t}
		logtest.Start(t, r.Run)
		log.Append(logtest.Session(1, 1))
		done := make(chan struct{})
		go func() {
			defer close(done)
			mustWait(t, r.ReadModel, 1)
		}()
		// The checkpoint moves, and nobody says so.
		logtest.MustRun(t, rdb.Set(t.Context(), r.keys.Checkpoint(), "log 1 g p0 e", 0).Err())
		<-done
	})
}

func TestNoticesReachOtherProcesses(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := logtest.New("log")
		r := newRig(t, rdb, log)
		r.caughtUp()
		other := newReadModel(t, rdb, log, Options{})
		listening := logtest.Start(t, func(ctx context.Context) error { other.keepListening(ctx); return nil })
		logtest.Eventually(t, "a notice arrives", func() bool {
			log.Append(logtest.Session(1, 1, logtest.Version(uint64(len(log.Events)))))
			return other.fresh.highest() > 0
		})
		listening.End()
	})
}

func TestARedisThatIsGoneIsSaidAtOnceAndComesBack(t *testing.T) {
	for name, args := range map[string][]string{"persistent false": nil, "persistent true": {"--appendonly", "yes", "--appendfsync", "always"}} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t, redistest.Config{Args: args})
			rdb := modeltest.Connect(t, server)
			log := logtest.New("log")
			log.Append(logtest.Session(1, 1))
			r := newRig(t, rdb, log)
			r.caughtUp()
			server.Kill()
			r.mustRefuse("connection refused")
			if _, err := r.SaveQuery(t.Context(), "alice", "x"); !errors.Is(err, domain.ErrUnavailable) {
				t.Fatalf("SaveQuery: %v", err)
			}
			if _, err := r.LoadQuery(t.Context(), "alice", layout.Digest("x")); !errors.Is(err, domain.ErrUnavailable) {
				t.Fatalf("LoadQuery: %v", err)
			}
			log.Append(logtest.Session(1, 1, logtest.Version(2)))
			server.Restart()
			r.caughtUp()
			got, err := r.Get(t.Context(), logtest.ID(1), "")
			if err != nil || got.Version != 2 {
				t.Fatalf("got version %d, %v", got.Version, err)
			}
			modeltest.SameKeys(t, modeltest.Dump(t, rdb), scratch(t, log))
		})
	}
}

func TestQueriesAreKept(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		m := newReadModel(t, rdb, logtest.New("log"), Options{})
		text := strings.Repeat("participants[$in][]=x&", 300)
		digest, err := m.SaveQuery(t.Context(), "alice", text)
		logtest.MustRun(t, err)
		logtest.MustRun(t, rdb.Expire(t.Context(), layout.QueryKey("alice", digest), time.Minute).Err())
		got, err := m.LoadQuery(t.Context(), "alice", digest)
		if err != nil || got != text || len(digest) != layout.DigestLength {
			t.Fatalf("got %q under %q, %v", got, digest, err)
		}
		if life := rdb.TTL(t.Context(), layout.QueryKey("alice", digest)).Val(); life < queryLife-time.Hour {
			t.Fatalf("its life was not renewed: %v", life)
		}
		for _, unknown := range []string{"", "x", layout.Digest("other"), strings.Repeat("\n", layout.DigestLength), strings.Repeat("x", 5000)} {
			if _, err := m.LoadQuery(t.Context(), "alice", unknown); !errors.Is(err, domain.ErrNotFound) {
				t.Fatalf("%q: %v", unknown, err)
			}
		}
	})
}

func TestAnAccountKeepsItsNewestQueries(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		m := newReadModel(t, rdb, logtest.New("log"), Options{})
		other, err := m.SaveQuery(t.Context(), "bob", "of bob")
		logtest.MustRun(t, err)
		var digests []string
		for i := range maxQueries + 5 {
			digest, err := m.SaveQuery(t.Context(), "alice", fmt.Sprintf("query %d", i))
			logtest.MustRun(t, err)
			// Saved in order, also within one millisecond.
			logtest.MustRun(t, rdb.ZAdd(t.Context(), layout.QueriesKey("alice"), redis.Z{Score: float64(i), Member: digest}).Err())
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
		rdb, err := redisconn.Connect(t.Context(), redisconn.Options{URL: url})
		if err == nil {
			_ = rdb.Close()
			t.Errorf("%s: no error", url)
			continue
		}
		if strings.Contains(err.Error(), "hidden") {
			t.Errorf("the password is in the error: %v", err)
		}
	}
	rdb, err := redisconn.Connect(t.Context(), redisconn.Options{URL: "redis://127.0.0.1:1"})
	logtest.MustRun(t, err) // it may come yet
	logtest.MustRun(t, rdb.Close())
}

func TestTheEmbeddedRedisAsksForItsPassword(t *testing.T) {
	if _, err := embeddedredis.Start(""); err == nil {
		t.Fatal("no password, no error")
	}
	e, err := embeddedredis.Start("p@ss/word:")
	logtest.MustRun(t, err)
	t.Cleanup(func() { logtest.MustRun(t, e.Close()) })
	if rdb, err := redisconn.Connect(t.Context(), redisconn.Options{URL: "redis://" + e.Addr()}); err == nil {
		_ = rdb.Close()
		t.Fatal("no password is asked for")
	}
	rdb, err := redisconn.Connect(t.Context(), redisconn.Options{URL: e.URL()})
	logtest.MustRun(t, err)
	logtest.MustRun(t, rdb.Ping(t.Context()).Err())
	logtest.MustRun(t, rdb.Close())
	if !strings.HasPrefix(e.Addr(), "127.0.0.1:") {
		t.Fatal(e.Addr())
	}
}

// A node that has lost Redis does not know what others show: it asks the log, and waits
// as if it did not.
func TestANodeWithoutRedisShowsNothingThatOthersDoNotShowYet(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	log := logtest.New("log")
	log.Append(logtest.Session(1, 1))
	r := newRig(t, modeltest.Connect(t, server), log)
	r.caughtUp()
	server.Kill()
	logtest.Eventually(t, "it is noticed", func() bool { return r.asksEnd() })
	position := log.Append(logtest.Session(1, 1, logtest.Version(2)))
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := r.AwaitEverywhere(short, position); !errors.Is(err, domain.ErrUnavailable) {
		t.Errorf("settled at once: %v", err)
	}
	logtest.MustRun(t, r.AwaitEverywhere(t.Context(), position))
}

func TestAPositionIsWaitedForInAllPartitions(t *testing.T) {
	m := newReadModel(t, nil, logtest.New("log"), Options{Partitions: 3, Private: true})
	ended := make(chan error, 1)
	go func() { ended <- m.WaitFor(t.Context(), 5, 30*time.Second) }()
	logtest.Eventually(t, "somebody waits", func() bool { n, _, _ := m.fresh.demand(); return n == 1 })
	for _, passed := range []struct {
		partition int
		position  uint64
	}{{0, 9}, {2, 5}, {1, 4}} {
		m.Projected(passed.partition, passed.position)
		if n, _, _ := m.fresh.demand(); n != 1 {
			t.Fatalf("after %+v nobody waits any more", passed)
		}
	}
	m.Projected(1, 5)
	logtest.MustRun(t, <-ended)
}
