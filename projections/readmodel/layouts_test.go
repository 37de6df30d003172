package readmodel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"chatsessions/domain"
	"chatsessions/projections"
	"chatsessions/projections/layout"
	"chatsessions/projections/logtest"
	"chatsessions/projections/modeltest"
	"chatsessions/projections/projector"
)

// sideBySide returns two rigs over one log and one Redis, whose layouts differ, as the
// old and the new service do in a rolling upgrade.
func sideBySide(t *testing.T, rdb redis.UniversalClient, log *logtest.Log) [2]*rig {
	t.Helper()
	rigs := [2]*rig{newRigOf(t, rdb, log, 1), newRigOf(t, rdb, log, 2)}
	for _, r := range rigs {
		logtest.Eventually(t, "each knows of the other", func() bool { return r.others.shareLog() })
		r.caughtUp()
	}
	return rigs
}

// What is answered because one of the read models has it, the other one shows, too, or it
// says that it cannot.
func TestAWriteThatOneLayoutHasShownIsNotMissingInTheOther(t *testing.T) {
	t.Parallel()
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		t.Parallel() // it waits most of the time
		const sessions = 20
		log := logtest.New("log")
		var answered [sessions]atomic.Uint64
		for n := range sessions {
			log.Append(logtest.Session(n, int64(n), logtest.Version(1)))
			answered[n].Store(1)
		}
		rigs := sideBySide(t, rdb, log)
		ctx, stop := context.WithCancel(t.Context())
		var busy sync.WaitGroup
		var given atomic.Int64
		for i, r := range rigs {
			busy.Go(func() { // half of the sessions are written through each
				for v := uint64(2); ctx.Err() == nil; v++ {
					n := 2*rand.IntN(sessions/2) + i
					if r.WaitFor(ctx, log.Append(logtest.Session(n, int64(n), logtest.Version(v))), time.Minute) == nil {
						answered[n].Store(v)
					}
				}
			})
			busy.Go(func() {
				for ctx.Err() == nil && !t.Failed() {
					n := rand.IntN(sessions)
					answeredVersion := answered[n].Load()
					got, err := r.Get(ctx, logtest.ID(n), "")
					switch {
					case err == nil && got.Version >= answeredVersion:
						given.Add(1)
					case !errors.Is(err, domain.ErrUnavailable) && ctx.Err() == nil:
						t.Errorf("session %d: got version %d, %v; %d was answered", n, got.Version, err, answeredVersion)
					}
				}
			})
		}
		goOn := func() {
			t.Helper()
			enough := given.Load() + 200
			logtest.Eventually(t, "answers are given", func() bool { return given.Load() > enough || t.Failed() })
		}
		goOn()
		for _, r := range rigs { // one of them falls behind, and comes back
			r.projector.End()
			goOn()
			r.projector = nil
			r.project()
			goOn()
		}
		stop()
		busy.Wait()
		for _, r := range rigs {
			r.caughtUp()
			for n := range sessions {
				if got, err := r.Get(t.Context(), logtest.ID(n), ""); err != nil || got.Version < answered[n].Load() {
					t.Errorf("session %d: got version %d, %v; %d was answered", n, got.Version, err, answered[n].Load())
				}
			}
		}
	})
}

func TestAReadModelThatFallsBehindAnotherLayoutIsNotBelieved(t *testing.T) {
	t.Parallel()
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		t.Parallel() // it waits most of the time
		log := logtest.New("log")
		log.Append(logtest.Session(1, 1))
		rigs := sideBySide(t, rdb, log)
		for i, behind := range rigs {
			behind.projector.End()
			mustWait(t, rigs[1-i].ReadModel, log.Append(logtest.Session(1, 1, logtest.Version(uint64(i+2)))))
			if got, err := behind.Get(t.Context(), logtest.ID(1), ""); !errors.Is(err, domain.ErrUnavailable) {
				t.Errorf("got version %d, %v", got.Version, err)
			}
			behind.projector = nil
			behind.project()
			behind.caughtUp()
			if got, err := behind.Get(t.Context(), logtest.ID(1), ""); err != nil || got.Version != uint64(i+2) {
				t.Errorf("got version %d, %v", got.Version, err)
			}
		}
	})
}

// asks returns how often the log is asked for its end while sessions are read.
func (r *rig) asks(reads int) int {
	r.t.Helper()
	before := r.log.Asked()
	for range reads {
		if _, err := r.Get(r.t.Context(), logtest.ID(1), ""); err != nil {
			r.t.Errorf("got %v", err)
		}
	}
	return r.log.Asked() - before
}

// The log is asked before each answer only for as long as somebody else uses it.
func TestTheLogIsAskedBeforeEachAnswerWhileAnotherLayoutIsInUse(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		const reads = 1000
		log := logtest.New("log")
		log.Append(logtest.Session(1, 1))
		alone := newRigOf(t, rdb, log, 1)
		alone.caughtUp()
		if n := alone.asks(reads); n >= reads {
			t.Errorf("alone, it asks %d times for %d reads", n, reads)
		}
		other := newReadModel(t, rdb, log, Options{Logger: alone.logger(), Partitions: 2})
		using := logtest.Start(t, other.Run)
		logtest.Eventually(t, "it knows of the other one", func() bool { return alone.others.shareLog() })
		if n := alone.asks(reads); n < reads {
			t.Errorf("beside another one, it asks %d times for %d reads", n, reads)
		}
		using.End()
		// As if it had been gone for so long.
		score := float64(time.Now().Add(-layoutLife).UnixMilli())
		logtest.MustRun(t, rdb.ZAdd(t.Context(), layout.LayoutsKey, redis.Z{Score: score, Member: layout.Name(2)}).Err())
		earlier(alone.ReadModel, layoutMemory)
		logtest.Eventually(t, "it knows that the other one is gone", func() bool { return !alone.others.shareLog() })
		if n := alone.asks(reads); n >= reads {
			t.Errorf("alone again, it asks %d times for %d reads", n, reads)
		}
	})
}

// Until every other node has had the time to look, one that is new does not serve.
func TestANewLayoutServesWhenAllOthersKnowOfIt(t *testing.T) {
	t.Parallel()
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		t.Parallel() // it waits most of the time
		log := logtest.New("log")
		log.Append(logtest.Session(1, 1))
		r := newRigOf(t, rdb, log, 1)
		r.caughtUp()
		newcomer := newRigOf(t, rdb, log, 2)
		newcomer.caughtUp()
		if since := time.Since(newcomer.others.since); since <= projections.Bound {
			t.Errorf("it is ready %v after it has said that it is there", since)
		}
		if !r.others.shareLog() {
			t.Error("the other one does not know of it")
		}
	})
}

func TestWhetherOthersKnowOfANodeMattersOnlyBesideThem(t *testing.T) {
	now := time.Now()
	long := now.Add(-projections.Bound - time.Second)
	for _, c := range []struct {
		private, other, guest bool
		noted, since          time.Time
		known                 bool
	}{
		{known: false},
		{noted: now, since: now, known: true},
		{noted: now, since: now, other: true, known: true}, // who came later
		{noted: now, since: now, other: true, guest: true, known: false},
		{noted: now, since: long, other: true, guest: true, known: true},
		{noted: now.Add(-layoutTrust - time.Second), since: long, known: false},
		{private: true, known: true},
	} {
		m := newReadModel(t, nil, logtest.New("log"), Options{Private: c.private})
		l := &m.others
		l.registered, l.since, l.present, l.late = c.noted, c.since, c.other, c.guest
		if m.isKnown(now) != c.known {
			t.Errorf("%+v: %v", c, m.isKnown(now))
		}
	}
}

// A node that cannot read the other layouts assumes that there are some.
func TestANodeThatCannotAskForOthersAsksTheLog(t *testing.T) {
	m := newReadModel(t, nil, logtest.New("log"), Options{})
	if m.asksEnd() {
		t.Error("it asks before its first probe")
	}
	_ = m.probe(t.Context()) // there is no Redis
	if known := m.isKnown(time.Now()); !m.asksEnd() || known {
		t.Errorf("asks the log: %v; is known to others: %v", m.asksEnd(), known)
	}
}

// Layouts do not touch one another's keys, whatever happens to one of them.
func TestARebuildOfOneLayoutLeavesTheOtherOneAlone(t *testing.T) {
	t.Parallel()
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		t.Parallel() // it waits most of the time
		log := logtest.New("log")
		for n := range 20 {
			log.Append(logtest.Session(n, int64(n)))
		}
		rigs := [2]*rig{newRigOf(t, rdb, log, 1), newRigOf(t, rdb, log, 2)}
		for i, r := range rigs {
			for _, other := range rigs {
				other.caughtUp()
			}
			before := modeltest.Checkpoints(t, rdb, 2-i)
			opts := projector.RebuildOptions{Logger: slog.New(slog.DiscardHandler)}
			opts.Partitions = i + 1
			_, err := projector.Rebuild(t.Context(), rdb, log, opts)
			logtest.MustRun(t, err)
			if after := modeltest.Checkpoints(t, rdb, 2-i); fmt.Sprint(after) != fmt.Sprint(before) {
				t.Errorf("the other one was %q, and is %q", before, after)
			}
			for _, r := range rigs {
				modeltest.MustHaveOneGeneration(t, rdb, r.partitions)
			}
			for n := range 20 {
				if _, err := r.Get(t.Context(), logtest.ID(n), ""); err != nil {
					t.Errorf("session %d: %v", n, err)
				}
			}
		}
	})
}

func TestANodeIsKnownWhenTheOthersHaveHadTimeToLook(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		node := func(partitions int) *ReadModel {
			m := newReadModel(t, rdb, logtest.New("log"), Options{Partitions: partitions})
			m.register(t.Context())
			return m
		}
		check := func(when string, m *ReadModel, known, asks bool) {
			t.Helper()
			now := time.Now()
			if m.others.isKnown(now) != known || m.others.shareLog() != asks {
				t.Errorf("%s: known is %v, asks is %v, want %v, %v", when, m.others.isKnown(now), m.others.shareLog(), known, asks)
			}
		}
		first := node(1)
		check("the first of all", first, true, false)
		guest := node(4)
		check("one that comes later", guest, false, true)
		check("the first, before it has looked again", first, true, false)
		first.register(t.Context())
		check("the first, which needs no time to be known", first, true, true)
		if err := guest.WaitFor(t.Context(), 0, time.Millisecond); err == nil {
			t.Error("a node that is not known answers a write that others may not have")
		}
		if _, err := guest.views(guest.allPartitions); err == nil {
			t.Error("a node that is not known shows what others may not have")
		}
		guest.others.since = guest.others.since.Add(-projections.Bound) // and it has said so again since
		check("when the others have looked", guest, true, true)
		logtest.MustRun(t, guest.WaitFor(t.Context(), 0, time.Millisecond))

		earlier(guest, layoutTrust)
		check("when it has stood still", guest, false, true)
		guest.register(t.Context())
		check("when it is back", guest, false, true)

		// Redis forgets them both.
		earlier(guest, projections.Bound)
		logtest.MustRun(t, rdb.Del(t.Context(), layout.LayoutsKey).Err())
		first.register(t.Context())
		check("the first, which was not notified", first, true, true)
		earlier(first, layoutMemory)
		first.register(t.Context())
		check("the first, when the other one has not come back", first, true, false)
	})
}

// earlier has all that a node knows of the layouts happen earlier.
func earlier(m *ReadModel, by time.Duration) {
	l := &m.others
	l.mu.Lock()
	defer l.mu.Unlock()
	l.registered, l.since = l.registered.Add(-by), l.since.Add(-by)
	if !l.lastSeen.IsZero() {
		l.lastSeen = l.lastSeen.Add(-by)
	}
}
