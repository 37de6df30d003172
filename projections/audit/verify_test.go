package audit_test

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
	"chatsessions/projections"
	"chatsessions/projections/audit"
	"chatsessions/projections/embeddedredis"
	"chatsessions/projections/layout"
	"chatsessions/projections/logtest"
	"chatsessions/projections/modeltest"
	"chatsessions/projections/projector"
	"chatsessions/projections/redisconn"
	"chatsessions/projections/redistest"
)

// verifyOptions are for a fake log.
func verifyOptions(log *logtest.Log) audit.VerifyOptions {
	return audit.VerifyOptions{Event: log.Event, Load: func(ctx context.Context, id string) (*domain.Record, error) {
		r, err := log.Load(ctx, id)
		return r, logtest.Unreadable(err)
	}}
}

// verifyAll verifies a log of which every event is handed over, as it is when all others
// of its session are forgotten at once.
func verifyAll(ctx context.Context, rdb redis.UniversalClient, log *logtest.Log, opts audit.VerifyOptions) (audit.Verified, error) {
	v, err := audit.NewVerification(ctx, rdb, log, opts)
	if err != nil {
		return audit.Verified{}, err
	}
	defer v.Close()
	for batch := range slices.Chunk(log.All(), 100) {
		if err := v.Compare(ctx, batch); err != nil {
			return audit.Verified{}, err
		}
	}
	return v.Finish(ctx)
}

// mustTell verifies and checks that this is said and nothing else, by session and index,
// and that these sessions are told as parked.
func mustTell(t *testing.T, rdb redis.UniversalClient, log *logtest.Log, partitions int, want map[spot]string, parked ...int) {
	t.Helper()
	left := maps.Clone(want)
	opts := verifyOptions(log)
	opts.Partitions = partitions
	opts = opts.WithPatience(2 * time.Second)
	opts.Difference = func(d audit.Difference) error {
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
	opts.Parked = func(p layout.Parked) error {
		told = append(told, numberOf(p.SessionID))
		return nil
	}
	done, err := verifyAll(t.Context(), rdb, log, opts)
	logtest.MustRun(t, err)
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
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := comparedLog()
		build(t, rdb, log, 1)
		whole := modeltest.Dump(t, rdb)
		mustTell(t, rdb, log, 1, nil)
		modeltest.SameKeys(t, modeltest.Dump(t, rdb), whole)

		// Each alone: where the numbers are right otherwise, it must show all the same.
		answers := modeltest.Serving(t, rdb, layout.Partitions(1)[0])
		for name, d := range damages() {
			if strings.Contains(t.Name(), "embedded") {
				break // there it takes seconds
			}
			t.Run(name, func(t *testing.T) {
				logtest.MustRun(t, d.do(t.Context(), rdb, answers))
				mustTell(t, rdb, log, 1, d.says)
				modeltest.Empty(t, rdb)
				build(t, rdb, log, 1)
				answers = modeltest.Serving(t, rdb, layout.Partitions(1)[0])
			})
		}
		// And all together.
		want := damageAll(t, rdb, answers)
		damaged := modeltest.Dump(t, rdb)
		mustTell(t, rdb, log, 1, want)
		modeltest.SameKeys(t, modeltest.Dump(t, rdb), damaged)
	})
}

// TestVerifyTellsEntriesOutOfOrder: an index with other scores than 0 is not in the order
// of its members.
func TestVerifyTellsEntriesOutOfOrder(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := comparedLog()
		build(t, rdb, log, 1)
		answers := modeltest.Serving(t, rdb, layout.Partitions(1)[0])
		small, large := layout.FieldIndex("room", "small"), layout.FieldIndex("createdBy", "alice")
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
			{layout.IndexAll, 6, 7, "with score 7, so it is out of order"},
			{layout.IndexAll, absent, -1, "does not belong there"},
			{layout.FieldIndex("room", "none"), 8, 1, "does not belong there"},
		} {
			s := logtest.Session(d.n, int64(d.n))
			if d.n < comparedSessions {
				s = comparedSession(d.n)
			}
			logtest.MustRun(t, rdb.ZAdd(t.Context(), answers.Index(d.index), redis.Z{Score: d.score, Member: memberOf(s)}).Err())
			all[spot{d.n, d.index}] = d.says
			if d.index == small || d.index == layout.IndexAll { // alone with what is there, and with another one
				mustTell(t, rdb, log, 1, all)
			}
		}
		mustTell(t, rdb, log, 1, all)
	})
}

func TestVerifyTellsEntryByEntryThatEverythingIsLost(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := comparedLog()
		build(t, rdb, log, 1)
		lost, err := rdb.Keys(t.Context(), modeltest.Serving(t, rdb, layout.Partitions(1)[0]).GenerationPattern()).Result()
		logtest.MustRun(t, err)
		logtest.MustRun(t, rdb.Del(t.Context(), lost...).Err())
		want := map[spot]string{}
		for n := range comparedSessions {
			s := comparedSession(n)
			want[spot{n, ""}] = "the session is missing"
			for _, index := range namesOfIndexes(&s) {
				want[spot{n, index}] = "lacks"
			}
		}
		mustTell(t, rdb, log, 1, want)
	})
}

func TestVerifyTellsKeysOfTheWrongKind(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := logtest.New("log")
		for n := range 3 {
			log.Append(logtest.Session(n, int64(n), logtest.Room(fmt.Sprint("r", n))))
		}
		r := newRig(t, rdb, log)
		r.caughtUp()
		answers := r.serving()
		for _, key := range []string{answers.Document(logtest.ID(0)), answers.Index(layout.FieldIndex("room", "r1")), answers.Index(layout.FieldIndex("room", "nobody's"))} {
			logtest.MustRun(t, rdb.Del(t.Context(), key).Err())
			logtest.MustRun(t, rdb.HSet(t.Context(), key, "field", "value").Err())
		}
		mustTell(t, rdb, log, 1, map[spot]string{
			{0, ""}:                                    "its key is not of its kind",
			{1, layout.FieldIndex("room", "r1")}:       "lacks", // follows
			{0, layout.FieldIndex("room", "r1")}:       "the key is not of its kind",
			{0, layout.FieldIndex("room", "nobody's")}: "the key is not of its kind",
		})
	})
}

// TestVerifyTellsWhatIsParked, and what is parked without a reason, or should be.
func TestVerifyTellsWhatIsParked(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := logtest.New("log")
		for n := range 5 {
			log.Append(logtest.Session(n, int64(n)))
		}
		log.RecordUnreadable(1)
		log.RecordUnreadable(9)
		log.Append(logtest.Session(7, -1)) // cannot be projected
		r := newRig(t, rdb, log)
		r.caughtUp()
		mustTell(t, rdb, log, 1, nil, 1, 7, 9)

		answers := r.serving()
		note := func(n int, position uint64) {
			d := layout.Document{ID: logtest.ID(n), Position: position, Reason: "a reason"}
			logtest.MustRun(t, rdb.HSet(t.Context(), answers.Parked(), d.ID, layout.NewParked(&d).String()).Err())
		}
		note(2, 3)      // it is shown
		note(absent, 3) // it does not exist
		note(3, 4)      // it could be shown, and is not
		gone := logtest.Session(3, 3)
		logtest.MustRun(t, rdb.Del(t.Context(), answers.Document(gone.ID)).Err())
		logtest.MustRun(t, rdb.HDel(t.Context(), answers.Parked(), logtest.ID(1)).Err())
		other := layout.Document{ID: logtest.ID(4), Position: 5, Reason: "a reason"}
		logtest.MustRun(t, rdb.HSet(t.Context(), answers.Parked(), logtest.ID(7), layout.NewParked(&other).String()).Err())
		copied, copyOf := logtest.ID(absent+1), logtest.Session(4, 4)
		logtest.MustRun(t, rdb.Set(t.Context(), answers.Document(copied), valueOf(copyOf, 5), 0).Err())
		logtest.MustRun(t, rdb.Set(t.Context(), answers.Document(logtest.ID(9)), valueOf(logtest.Session(9, 9), 7), 0).Err())
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
			rdb := modeltest.Connect(t, redistest.Start(t, redistest.Config{ACL: true}))
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
						position := log.Append(logtest.Session(n, int64(n), logtest.Version(v), logtest.Room(fmt.Sprint("room ", rand.IntN(3))), logtest.With(fmt.Sprint("guest ", rand.IntN(50)))))
						if rand.IntN(10) == 0 {
							log.RecordUnreadable(n)
							position = log.Append(logtest.Session(n, int64(n), logtest.Version(v)))
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
func verifyInUse(t *testing.T, rdb redis.UniversalClient, log *logtest.Log, partitions int, want map[spot]string) {
	t.Helper()
	opts := verifyOptions(log)
	opts.Partitions = partitions
	opts.Difference = func(d audit.Difference) error {
		if says, known := want[spot{numberOf(d.SessionID), d.Index}]; !known || !strings.Contains(d.Detail, says) {
			t.Errorf("is no difference: %+v", d)
		}
		return nil
	}
	done, err := verifyAll(t.Context(), rdb, log, opts)
	logtest.MustRun(t, err)
	if done.Differences != uint64(len(want)) {
		t.Errorf("the result is %+v, with %d differences", done, len(want))
	}
}

// TestVerifyOfAReadModelThatIsReplaced: a rebuild removes what was in doubt, so there is
// nothing left to look at more closely, and that is not to pass for no difference.
func TestVerifyOfAReadModelThatIsReplaced(t *testing.T) {
	rdb := modeltest.Connect(t, redistest.Start(t, redistest.Config{ACL: true}))
	log := comparedLog()
	r := newRig(t, rdb, log)
	r.caughtUp()
	stranger := redis.Z{Member: memberOf(comparedSession(1))}
	logtest.MustRun(t, rdb.ZAdd(t.Context(), r.serving().Index(layout.FieldIndex("room", "none")), stranger).Err())
	v, err := audit.NewVerification(t.Context(), rdb, log, verifyOptions(log))
	logtest.MustRun(t, err)
	defer v.Close()
	logtest.MustRun(t, v.Compare(t.Context(), log.All()))
	logtest.MustRun(t, v.Compare(t.Context(), nil)) // returns when the other is being compared
	logtest.Eventually(t, "all are compared", v.Idle)
	_, err = projector.Rebuild(t.Context(), rdb, log, projector.RebuildOptions{})
	logtest.MustRun(t, err)
	if done, err := v.Finish(t.Context()); err == nil || !strings.Contains(err.Error(), "verify it again") {
		t.Errorf("%+v, %v", done, err)
	}
}

func TestVerifyOnARedisCluster(t *testing.T) {
	rdb, err := redisconn.Connect(t.Context(), redisconn.Options{URL: redistest.StartCluster(t, redistest.Config{ACL: true}).URL()})
	logtest.MustRun(t, err)
	t.Cleanup(func() { logtest.MustRun(t, rdb.Close()) })
	log := comparedLog()
	r := newRigOf(t, rdb, log, 4)
	r.caughtUp()
	mustTell(t, rdb, log, 4, nil)
	lost := comparedSession(5)
	space := modeltest.Serving(t, rdb, r.parts[layout.PartitionNumber(lost.ID, 4)])
	logtest.MustRun(t, rdb.ZRem(t.Context(), space.Index(layout.IndexAll), memberOf(lost)).Err())
	other := logtest.Session(absent, absent)
	space = modeltest.Serving(t, rdb, r.parts[layout.PartitionNumber(other.ID, 4)])
	logtest.MustRun(t, rdb.Set(t.Context(), space.Document(other.ID), valueOf(other, 5), 0).Err())
	mustTell(t, rdb, log, 4, map[spot]string{{5, layout.IndexAll}: "lacks", {absent, ""}: "is not in the log"})
}

func TestVerifySaysWhyThereIsNothingToVerify(t *testing.T) {
	e, err := embeddedredis.Start("secret")
	logtest.MustRun(t, err)
	t.Cleanup(func() { logtest.MustRun(t, e.Close()) })
	rdb, log := e.Client(), logtest.New("log")
	log.Append(logtest.Session(1, 1))
	says := func(log *logtest.Log, partitions int, want string) error {
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
	var parts *projections.PartitionsError
	if err := says(log, 2, "2 partitions"); !errors.As(err, &parts) {
		t.Errorf("got %v", err)
	}
	if err := says(logtest.New("other"), 1, "other"); !errors.Is(err, projections.ErrOtherLog) {
		t.Errorf("got %v", err)
	}
	// Without a projector, what comes now is not shown; that is one difference.
	r.projector.End()
	log.Append(logtest.Session(1, 1, logtest.Version(2)), logtest.Session(2, 2))
	mustTell(t, rdb, log, 1, map[spot]string{{}: "the read model is at position 1, and the log at 3"})
	// A log that was restored from an older copy.
	log.Truncate(0)
	log.Append(logtest.Session(3, 3))
	mustTell(t, rdb, log, 1, map[spot]string{
		{}: "restored from an older copy", {1, ""}: "the session is not in the log", {3, ""}: "the session is missing",
		{1, layout.IndexAll}: "", {1, "createdBy:alice"}: "", {1, "state:created"}: "",
		{3, layout.IndexAll}: "", {3, "createdBy:alice"}: "", {3, "state:created"}: "",
	})
}
