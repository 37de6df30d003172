package readmodel

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"chatsessions/domain"
	"chatsessions/projections/logtest"
	"chatsessions/projections/modeltest"
	"chatsessions/projections/redisconn"
	"chatsessions/projections/redistest"
)

// Behind a new connection there may be a server with an older copy. What was known of the
// log before says nothing about that one.
func TestAfterANewConnectionTheLogIsAskedBeforeAnythingIsAnswered(t *testing.T) {
	t.Parallel()
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		t.Parallel() // it waits most of the time
		log := logtest.New("log")
		log.Append(logtest.Session(1, 1))
		var connections atomic.Uint64
		r := newRig(t, rdb, log)
		m := newReadModel(t, rdb, log, Options{Logger: r.logger(), Connections: connections.Load})
		logtest.Start(t, m.Run)
		logtest.MustRun(t, m.CaughtUp(t.Context()))
		for range 2 {
			log.Fail(logtest.ErrDown)
			connections.Add(1)
			_, err := m.Get(t.Context(), logtest.ID(1), "")
			if !errors.Is(err, domain.ErrUnavailable) || !strings.Contains(err.Error(), "the end of the log is not known") {
				t.Errorf("got %v", err)
			}
			log.Fail(nil)
			logtest.MustRun(t, m.CaughtUp(t.Context()))
			if _, err := m.Get(t.Context(), logtest.ID(1), ""); err != nil {
				t.Errorf("got %v", err)
			}
		}
		r.caughtUp()
	})
}

// A connection that is made while a question is on its way may be the one over which it is
// answered.
func TestAnAnswerThatMayHaveComeOverANewConnectionIsNotBelieved(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := logtest.New("log")
		log.Append(logtest.Session(1, 1))
		newRig(t, rdb, log)
		var connections, asked atomic.Uint64
		client := modeltest.Another(t, rdb)
		m := newReadModel(t, client, log, Options{Connections: connections.Load})
		logtest.Start(t, m.Run)
		logtest.MustRun(t, m.CaughtUp(t.Context()))
		client.AddHook(modeltest.BeforeEach(func(cmd redis.Cmder) error {
			if cmd.Name() == "mget" && asked.Add(1) == 1 {
				connections.Add(1)
			}
			return nil
		}))
		if got, err := m.Get(t.Context(), logtest.ID(1), ""); err != nil || got.Version != 1 {
			t.Errorf("got version %d, %v", got.Version, err)
		}
		if n := asked.Load(); n != 2 {
			t.Errorf("Redis was asked %d times, not again", n)
		}
	})
}

// Connections that break are counted as they are made anew, and answers go on.
func TestConnectionsThatBreakAreCountedAndMadeUpFor(t *testing.T) {
	server := redistest.Start(t, redistest.Config{})
	log := logtest.New("log")
	log.Append(logtest.Session(1, 1))
	direct := newRig(t, modeltest.Connect(t, server), log)
	direct.caughtUp()
	var connections atomic.Uint64
	rdb, err := redisconn.Connect(t.Context(), redisconn.Options{URL: server.URL(), OnConnect: func() { connections.Add(1) }})
	logtest.MustRun(t, err)
	t.Cleanup(func() { logtest.MustRun(t, rdb.Close()) })
	m := newReadModel(t, rdb, log, Options{Connections: connections.Load})
	logtest.Start(t, m.Run)
	logtest.MustRun(t, m.CaughtUp(t.Context()))
	for v := range uint64(5) {
		mustWait(t, direct.ReadModel, log.Append(logtest.Session(1, 1, logtest.Version(v+2))))
		before := connections.Load()
		logtest.MustRun(t, direct.rdb.Do(t.Context(), "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes").Err())
		logtest.Eventually(t, "it is answered", func() bool {
			got, err := m.Get(t.Context(), logtest.ID(1), "")
			if err == nil && got.Version != v+2 || err != nil && !errors.Is(err, domain.ErrUnavailable) {
				t.Fatalf("got version %d, %v; %d was answered", got.Version, err, v+2)
			}
			return err == nil
		})
		if connections.Load() == before {
			t.Error("a new connection was not counted")
		}
	}
}
