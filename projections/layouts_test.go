package projections

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"chatsessions/domain"
)

// sideBySide returns two rigs over one log and one Redis, whose layouts differ, as the
// old and the new service do in a rolling upgrade.
func sideBySide(t *testing.T, rdb redis.UniversalClient, log *fakeLog) [2]*rig {
	t.Helper()
	rigs := [2]*rig{newRigOf(t, rdb, log, 1), newRigOf(t, rdb, log, 2)}
	for _, r := range rigs {
		eventually(t, "each knows of the other", func() bool { return r.sharesLog.Load() })
		r.caughtUp()
	}
	return rigs
}

// What is answered because one of the read models has it, the other one shows, too, or it
// says that it cannot.
func TestAWriteThatOneLayoutHasShownIsNotMissingInTheOther(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		t.Parallel() // it waits most of the time
		const sessions = 20
		log := newFakeLog("log")
		var answered [sessions]atomic.Uint64
		for n := range sessions {
			log.append(session(n, int64(n), version(1)))
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
					if r.WaitFor(ctx, log.append(session(n, int64(n), version(v))), time.Minute) == nil {
						answered[n].Store(v)
					}
				}
			})
			busy.Go(func() {
				for ctx.Err() == nil && !t.Failed() {
					n := rand.IntN(sessions)
					told := answered[n].Load()
					got, err := r.Get(ctx, id(n), "")
					switch {
					case err == nil && got.Version >= told:
						given.Add(1)
					case !errors.Is(err, domain.ErrUnavailable) && ctx.Err() == nil:
						t.Errorf("session %d: got version %d, %v; %d was answered", n, got.Version, err, told)
					}
				}
			})
		}
		goOn := func() {
			t.Helper()
			enough := given.Load() + 200
			eventually(t, "answers are given", func() bool { return given.Load() > enough || t.Failed() })
		}
		goOn()
		for _, r := range rigs { // one of them falls behind, and comes back
			r.projector.end()
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
				if got, err := r.Get(t.Context(), id(n), ""); err != nil || got.Version < answered[n].Load() {
					t.Errorf("session %d: got version %d, %v; %d was answered", n, got.Version, err, answered[n].Load())
				}
			}
		}
	})
}

func TestAReadModelThatFallsBehindAnotherLayoutIsNotBelieved(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		t.Parallel() // it waits most of the time
		log := newFakeLog("log")
		log.append(session(1, 1))
		rigs := sideBySide(t, rdb, log)
		for i, behind := range rigs {
			behind.projector.end()
			mustWait(t, rigs[1-i].ReadModel, log.append(session(1, 1, version(uint64(i+2)))))
			if got, err := behind.Get(t.Context(), id(1), ""); !errors.Is(err, domain.ErrUnavailable) {
				t.Errorf("got version %d, %v", got.Version, err)
			}
			behind.projector = nil
			behind.project()
			behind.caughtUp()
			if got, err := behind.Get(t.Context(), id(1), ""); err != nil || got.Version != uint64(i+2) {
				t.Errorf("got version %d, %v", got.Version, err)
			}
		}
	})
}

// asks returns how often the log is asked for its end while sessions are read.
func (r *rig) asks(reads int) int {
	r.t.Helper()
	count := func() int {
		r.log.mu.Lock()
		defer r.log.mu.Unlock()
		return r.log.ends
	}
	before := count()
	for range reads {
		if _, err := r.Get(r.t.Context(), id(1), ""); err != nil {
			r.t.Errorf("got %v", err)
		}
	}
	return count() - before
}

// The log is asked before each answer only for as long as somebody else uses it.
func TestTheLogIsAskedBeforeEachAnswerWhileAnotherLayoutIsInUse(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		const reads = 1000
		log := newFakeLog("log")
		log.append(session(1, 1))
		alone := newRigOf(t, rdb, log, 1)
		alone.caughtUp()
		if n := alone.asks(reads); n >= reads {
			t.Errorf("alone, it asks %d times for %d reads", n, reads)
		}
		other := newReadModel(t, rdb, log, ReadModelOptions{Logger: alone.logger(), Partitions: 2})
		using := start(t, other.Run)
		eventually(t, "it knows of the other one", func() bool { return alone.sharesLog.Load() })
		if n := alone.asks(reads); n < reads {
			t.Errorf("beside another one, it asks %d times for %d reads", n, reads)
		}
		using.end()
		// As if it had been gone for so long.
		score := float64(time.Now().Add(-layoutLife).UnixMilli())
		mustRun(t, rdb.ZAdd(t.Context(), layoutsKey, redis.Z{Score: score, Member: layoutOf(2)}).Err())
		eventually(t, "it knows that the other one is gone", func() bool { return !alone.sharesLog.Load() })
		if n := alone.asks(reads); n >= reads {
			t.Errorf("alone again, it asks %d times for %d reads", n, reads)
		}
	})
}

// Until every other node has had the time to look, one that is new does not serve.
func TestANewLayoutServesWhenAllOthersKnowOfIt(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		t.Parallel() // it waits most of the time
		log := newFakeLog("log")
		log.append(session(1, 1))
		r := newRigOf(t, rdb, log, 1)
		r.caughtUp()
		newcomer := newRigOf(t, rdb, log, 2)
		newcomer.caughtUp()
		if since := time.Since(*newcomer.registered.Load()); since <= Bound {
			t.Errorf("it is ready %v after it has said that it is there", since)
		}
		if !r.sharesLog.Load() {
			t.Error("the other one does not know of it")
		}
	})
}

func TestWhetherOthersKnowOfANodeMattersOnlyBesideThem(t *testing.T) {
	long := time.Now().Add(-Bound - time.Second)
	for _, c := range []struct {
		private, others bool
		registered      *time.Time
		known           bool
	}{
		{known: true},
		{registered: new(time.Now()), known: true},
		{others: true},
		{others: true, registered: new(time.Now())},
		{others: true, registered: &long, known: true},
		{others: true, private: true, known: true},
	} {
		m := newReadModel(t, nil, newFakeLog("log"), ReadModelOptions{Private: c.private})
		m.sharesLog.Store(c.others)
		m.registered.Store(c.registered)
		if m.isKnown() != c.known {
			t.Errorf("%+v: %v", c, m.isKnown())
		}
	}
}

// Whoever cannot find out who else is there takes it that somebody is.
func TestANodeThatCannotAskForOthersAsksTheLog(t *testing.T) {
	m := newReadModel(t, nil, newFakeLog("log"), ReadModelOptions{})
	if m.asksEnd() {
		t.Error("it asks before it has looked")
	}
	if err := m.probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !m.asksEnd() || m.isKnown() {
		t.Errorf("asks the log: %v; is known to others: %v", m.asksEnd(), m.isKnown())
	}
}

// Layouts do not touch one another's keys, whatever happens to one of them.
func TestARebuildOfOneLayoutLeavesTheOtherOneAlone(t *testing.T) {
	t.Parallel()
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		t.Parallel() // it waits most of the time
		log := newFakeLog("log")
		for n := range 20 {
			log.append(session(n, int64(n)))
		}
		rigs := [2]*rig{newRigOf(t, rdb, log, 1), newRigOf(t, rdb, log, 2)}
		for i, r := range rigs {
			for _, other := range rigs {
				other.caughtUp()
			}
			before := checkpoints(t, rdb, 2-i)
			opts := quietly()
			opts.Partitions = i + 1
			_, err := Rebuild(t.Context(), rdb, log, opts)
			mustRun(t, err)
			if after := checkpoints(t, rdb, 2-i); fmt.Sprint(after) != fmt.Sprint(before) {
				t.Errorf("the other one was %q, and is %q", before, after)
			}
			for _, r := range rigs {
				mustHaveOneGeneration(t, rdb, r.partitions)
			}
			for n := range 20 {
				if _, err := r.Get(t.Context(), id(n), ""); err != nil {
					t.Errorf("session %d: %v", n, err)
				}
			}
		}
	})
}
