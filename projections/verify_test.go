package projections

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"chatsessions/domain"
	"chatsessions/projections/redistest"
)

// verifyOptions are for a fake log.
func verifyOptions(log *fakeLog) VerifyOptions {
	return VerifyOptions{Event: log.event, Load: func(ctx context.Context, id string) (*domain.Record, error) {
		r, err := log.load(ctx, id)
		return r, unreadable(err)
	}}
}

// unreadable turns the reason why a message is no event into the log's error.
func unreadable(err error) error {
	if errors.Is(err, errNoEvent) {
		return fmt.Errorf("%w: %w", domain.ErrUnreadable, err)
	}
	return err
}

// event returns the event at a position.
func (l *fakeLog) event(_ context.Context, position uint64) (*domain.Record, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if position == 0 || position > uint64(len(l.events)) {
		return nil, domain.ErrUnavailable
	}
	return l.events[position-1].Record, unreadable(l.events[position-1].Err)
}

// verifyAll verifies a log of which every event is handed over, as it is when all others
// of its session are forgotten at once.
func verifyAll(ctx context.Context, rdb redis.UniversalClient, log *fakeLog, opts VerifyOptions) (Verified, error) {
	v, err := NewVerification(ctx, rdb, log, opts)
	if err != nil {
		return Verified{}, err
	}
	defer v.Close()
	log.mu.Lock()
	events := slices.Clone(log.events)
	log.mu.Unlock()
	for batch := range slices.Chunk(events, 100) {
		if err := v.Compare(ctx, batch); err != nil {
			return Verified{}, err
		}
	}
	return v.Finish(ctx)
}

// mustTell verifies and checks that this is said and nothing else, by session and index,
// and that these sessions are told as parked.
func mustTell(t *testing.T, rdb redis.UniversalClient, log *fakeLog, partitions int, want map[spot]string, parked ...int) {
	t.Helper()
	left := maps.Clone(want)
	opts := verifyOptions(log)
	opts.Partitions, opts.patience = partitions, 2*time.Second
	opts.Difference = func(d Difference) error {
		at := spot{index: d.Index}
		if d.SessionID != "" {
			at.session = numberOf(d.SessionID)
		}
		says, expected := left[at]
		if !expected || !strings.Contains(d.Detail, says) {
			t.Errorf("is no difference, or was told before, or is not %q: %+v", says, d)
		}
		delete(left, at)
		return nil
	}
	var told []int
	opts.Parked = func(p Parked) error {
		told = append(told, numberOf(p.SessionID))
		return nil
	}
	done, err := verifyAll(t.Context(), rdb, log, opts)
	mustRun(t, err)
	for at, says := range left {
		t.Errorf("was not told: session %d, index %q: %s", at.session, at.index, says)
	}
	slices.Sort(told)
	if !slices.Equal(told, parked) || done.Parked != uint64(len(parked)) {
		t.Errorf("told as parked are %v, want %v", told, parked)
	}
	if done.Differences != uint64(len(want)) {
		t.Errorf("the result is %+v, with %d differences", done, len(want))
	}
}

func TestVerifyTellsEveryKindOfDifferenceOnceAndChangesNothing(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := comparedLog()
		p := NewProjector(rdb, log, silent(1))
		mustRun(t, p.begins(t.Context()))
		whole := dump(t, rdb)
		mustTell(t, rdb, log, 1, nil)
		sameKeys(t, dump(t, rdb), whole)

		// Each alone: where the numbers are right otherwise, it must show all the same.
		answers := servingOf(t, rdb, p.partitions[0])
		for name, d := range damages() {
			if strings.Contains(t.Name(), "embedded") {
				break // there it takes seconds
			}
			t.Run(name, func(t *testing.T) {
				mustRun(t, d.do(t.Context(), rdb, answers))
				mustTell(t, rdb, log, 1, d.says)
				empty(t, rdb)
				p = NewProjector(rdb, log, silent(1))
				mustRun(t, p.begins(t.Context()))
				answers = servingOf(t, rdb, p.partitions[0])
			})
		}
		// And all together.
		want := damageAll(t, rdb, answers)
		damaged := dump(t, rdb)
		mustTell(t, rdb, log, 1, want)
		sameKeys(t, dump(t, rdb), damaged)
	})
}

// TestVerifyTellsEntriesOutOfOrder: an index with other scores than 0 is not in the order
// of its members.
func TestVerifyTellsEntriesOutOfOrder(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := comparedLog()
		p := NewProjector(rdb, log, silent(1))
		mustRun(t, p.begins(t.Context()))
		answers := servingOf(t, rdb, p.partitions[0])
		small, large := fieldIndex("room", "small"), fieldIndex("createdBy", "alice")
		all := map[spot]string{}
		for _, d := range []struct {
			index string
			n     int
			score float64
			says  string
		}{
			{small, 0, 1, "with score 1, so it is out of order"},
			{large, 5, -2.5, "with score -2.5, so it is out of order"},
			{large, comparedSessions - 1, math.Inf(1), "with score +Inf, so it is out of order"},
			{indexAll, 6, 7, "with score 7, so it is out of order"},
			{indexAll, absent, -1, "does not belong there"},
			{fieldIndex("room", "none"), 8, 1, "does not belong there"},
		} {
			s := session(d.n, int64(d.n))
			if d.n < comparedSessions {
				s = comparedSession(d.n)
			}
			mustRun(t, rdb.ZAdd(t.Context(), answers.index(d.index), redis.Z{Score: d.score, Member: memberOf(s)}).Err())
			all[spot{d.n, d.index}] = d.says
			if d.index == small || d.index == indexAll { // alone with what is there, and with another one
				mustTell(t, rdb, log, 1, all)
			}
		}
		mustTell(t, rdb, log, 1, all)
	})
}

func TestVerifyTellsEntryByEntryThatEverythingIsLost(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := comparedLog()
		p := NewProjector(rdb, log, silent(1))
		mustRun(t, p.begins(t.Context()))
		lost, err := rdb.Keys(t.Context(), servingOf(t, rdb, p.partitions[0]).pattern()).Result()
		mustRun(t, err)
		mustRun(t, rdb.Del(t.Context(), lost...).Err())
		want := map[spot]string{}
		for n := range comparedSessions {
			s := comparedSession(n)
			want[spot{n, ""}] = "the session is missing"
			for _, index := range indexNames(&s) {
				want[spot{n, index}] = "lacks"
			}
		}
		mustTell(t, rdb, log, 1, want)
	})
}

func TestVerifyTellsKeysOfTheWrongKind(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := newFakeLog("log")
		for n := range 3 {
			log.append(session(n, int64(n), room(fmt.Sprint("r", n))))
		}
		r := newRig(t, rdb, log)
		r.caughtUp()
		answers := r.serving()
		for _, key := range []string{answers.document(id(0)), answers.index(fieldIndex("room", "r1")), answers.index(fieldIndex("room", "nobody's"))} {
			mustRun(t, rdb.Del(t.Context(), key).Err())
			mustRun(t, rdb.HSet(t.Context(), key, "field", "value").Err())
		}
		mustTell(t, rdb, log, 1, map[spot]string{
			{0, ""}:                             "its key is not of its kind",
			{1, fieldIndex("room", "r1")}:       "lacks", // follows
			{0, fieldIndex("room", "r1")}:       "the key is not of its kind",
			{0, fieldIndex("room", "nobody's")}: "the key is not of its kind",
		})
	})
}

// TestVerifyTellsWhatIsParked, and what is parked without a reason, or should be.
func TestVerifyTellsWhatIsParked(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := newFakeLog("log")
		for n := range 5 {
			log.append(session(n, int64(n)))
		}
		log.recordUnreadable(1)
		log.recordUnreadable(9)
		log.append(session(7, -1)) // cannot be projected
		r := newRig(t, rdb, log)
		r.caughtUp()
		mustTell(t, rdb, log, 1, nil, 1, 7, 9)

		answers := r.serving()
		note := func(n int, position uint64) {
			d := document{id: id(n), position: position, parked: "a reason"}
			mustRun(t, rdb.HSet(t.Context(), answers.parked(), d.id, d.parking()).Err())
		}
		note(2, 3)      // it is shown
		note(absent, 3) // it does not exist
		note(3, 4)      // it could be shown, and is not
		gone := session(3, 3)
		mustRun(t, rdb.Del(t.Context(), answers.document(gone.ID)).Err())
		mustRun(t, rdb.HDel(t.Context(), answers.parked(), id(1)).Err())
		other := document{id: id(4), position: 5, parked: "a reason"}
		mustRun(t, rdb.HSet(t.Context(), answers.parked(), id(7), other.parking()).Err())
		copied, copyOf := id(absent+1), session(4, 4)
		mustRun(t, rdb.Set(t.Context(), answers.document(copied), valueOf(copyOf, 5), 0).Err())
		mustRun(t, rdb.Set(t.Context(), answers.document(id(9)), valueOf(session(9, 9), 7), 0).Err())
		mustTell(t, rdb, log, 1, map[spot]string{
			{1, ""}:          "is not parked, and its newest event cannot be projected",
			{2, ""}:          "is shown, and noted as parked",
			{3, ""}:          "is parked, and could be shown",
			{9, ""}:          "is shown, and its newest event cannot be projected",
			{7, ""}:          "is of another one",
			{absent, ""}:     "noted as parked, and not in the log",
			{absent + 1, ""}: "the session is not in the log",
		})
	})
}

// TestVerifyOfAReadModelInUse: what comes in meanwhile is no difference.
func TestVerifyOfAReadModelInUse(t *testing.T) {
	for _, partitions := range []int{1, 3} {
		t.Run(fmt.Sprint(partitions, " partitions"), func(t *testing.T) {
			rdb := connect(t, redistest.Start(t, redistest.Config{ACL: true}))
			log := comparedLog()
			r := newRigOf(t, rdb, log, partitions)
			r.caughtUp()
			want := map[spot]string{}
			if partitions == 1 {
				want = damageAll(t, rdb, r.serving())
			}
			ctx, stop := context.WithCancel(t.Context())
			var writing sync.WaitGroup
			defer writing.Wait()
			defer stop()
			for writer := range 2 {
				writing.Go(func() {
					for v := uint64(3); ctx.Err() == nil; v++ {
						// Not those that were damaged; some are new, and some are parked for a while.
						n := 300 + 2*rand.IntN(comparedSessions/2) + writer
						if n == comparedSessions-1 {
							continue
						}
						position := log.append(session(n, int64(n), version(v), room(fmt.Sprint("room ", rand.IntN(3))), with(fmt.Sprint("guest ", rand.IntN(50)))))
						if rand.IntN(10) == 0 {
							log.recordUnreadable(n)
							position = log.append(session(n, int64(n), version(v)))
						}
						if r.WaitFor(ctx, position, time.Minute) != nil {
							return
						}
					}
				})
			}
			for range 3 {
				verifyInUse(t, rdb, log, partitions, want)
			}
			stop()
			writing.Wait()
			r.caughtUp()
			mustTell(t, rdb, log, partitions, want)
		})
	}
}

// verifyInUse is mustTell for a log in which sessions are parked for a while.
func verifyInUse(t *testing.T, rdb redis.UniversalClient, log *fakeLog, partitions int, want map[spot]string) {
	t.Helper()
	opts := verifyOptions(log)
	opts.Partitions = partitions
	opts.Difference = func(d Difference) error {
		if says, known := want[spot{numberOf(d.SessionID), d.Index}]; !known || !strings.Contains(d.Detail, says) {
			t.Errorf("is no difference: %+v", d)
		}
		return nil
	}
	done, err := verifyAll(t.Context(), rdb, log, opts)
	mustRun(t, err)
	if done.Differences != uint64(len(want)) {
		t.Errorf("the result is %+v, with %d differences", done, len(want))
	}
}

// TestVerifyOfAReadModelThatIsReplaced: a rebuild removes what was in doubt, so there is
// nothing left to look at more closely, and that is not to pass for no difference.
func TestVerifyOfAReadModelThatIsReplaced(t *testing.T) {
	rdb := connect(t, redistest.Start(t, redistest.Config{ACL: true}))
	log := comparedLog()
	r := newRig(t, rdb, log)
	r.caughtUp()
	stranger := redis.Z{Member: memberOf(comparedSession(1))}
	mustRun(t, rdb.ZAdd(t.Context(), r.serving().index(fieldIndex("room", "none")), stranger).Err())
	v, err := NewVerification(t.Context(), rdb, log, verifyOptions(log))
	mustRun(t, err)
	defer v.Close()
	mustRun(t, v.Compare(t.Context(), log.events))
	mustRun(t, v.Compare(t.Context(), nil)) // returns when the other is being compared
	<-v.count.ended
	eventually(t, "all are compared", func() bool { return len(v.batches) == 0 })
	_, err = Rebuild(t.Context(), rdb, log, RebuildOptions{})
	mustRun(t, err)
	if done, err := v.Finish(t.Context()); err == nil || !strings.Contains(err.Error(), "verify it again") {
		t.Errorf("%+v, %v", done, err)
	}
}

func TestVerifyOnARedisCluster(t *testing.T) {
	rdb, err := Connect(t.Context(), RedisOptions{URL: redistest.StartCluster(t, redistest.Config{ACL: true}).URL()})
	mustRun(t, err)
	t.Cleanup(func() { mustRun(t, rdb.Close()) })
	log := comparedLog()
	r := newRigOf(t, rdb, log, 4)
	r.caughtUp()
	mustTell(t, rdb, log, 4, nil)
	lost := comparedSession(5)
	space := servingOf(t, rdb, r.partitions[shardOf(lost.ID, 4)])
	mustRun(t, rdb.ZRem(t.Context(), space.index(indexAll), memberOf(lost)).Err())
	other := session(absent, absent)
	space = servingOf(t, rdb, r.partitions[shardOf(other.ID, 4)])
	mustRun(t, rdb.Set(t.Context(), space.document(other.ID), valueOf(other, 5), 0).Err())
	mustTell(t, rdb, log, 4, map[spot]string{{5, indexAll}: "lacks", {absent, ""}: "is not in the log"})
}

func TestVerifySaysWhyThereIsNothingToVerify(t *testing.T) {
	e, err := StartEmbedded("secret")
	mustRun(t, err)
	t.Cleanup(func() { mustRun(t, e.Close()) })
	rdb, log := e.Client(), newFakeLog("log")
	log.append(session(1, 1))
	says := func(log *fakeLog, partitions int, want string) error {
		t.Helper()
		opts := verifyOptions(log)
		opts.Partitions = partitions
		_, err := verifyAll(t.Context(), rdb, log, opts)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
		return err
	}
	_ = says(log, 1, "there is no read model")
	r := newRig(t, rdb, log)
	r.caughtUp()
	var parts *PartitionsError
	if err := says(log, 2, "2 partitions"); !errors.As(err, &parts) {
		t.Errorf("got %v", err)
	}
	if err := says(newFakeLog("other"), 1, "other"); !errors.Is(err, ErrOtherLog) {
		t.Errorf("got %v", err)
	}
	// Without a projector, what comes now is not shown; that is one difference.
	r.projector.end()
	log.append(session(1, 1, version(2)), session(2, 2))
	mustTell(t, rdb, log, 1, map[spot]string{{}: "the read model is at position 1, and the log at 3"})
	// A log that was restored from an older copy.
	log.truncate(0)
	log.append(session(3, 3))
	mustTell(t, rdb, log, 1, map[spot]string{
		{}: "restored from an older copy", {1, ""}: "the session is not in the log", {3, ""}: "the session is missing",
		{1, indexAll}: "", {1, "createdBy:alice"}: "", {1, "state:created"}: "",
		{3, indexAll}: "", {3, "createdBy:alice"}: "", {3, "state:created"}: "",
	})
}
