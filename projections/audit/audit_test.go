package audit_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
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

// A testLog is a log of which all events can be had.
type testLog interface {
	audit.Log
	All() []domain.Entry
}

// verify audits a log of which every event is handed over, as it is when all others of its
// session are forgotten at once.
func verify(ctx context.Context, rdb redis.UniversalClient, log testLog, opts audit.Options) (audit.Result, error) {
	return audit.Run(ctx, rdb, log, opts, func(ctx context.Context, compare func(context.Context, []domain.Entry) error) error {
		for batch := range slices.Chunk(log.All(), 100) {
			if err := compare(ctx, batch); err != nil {
				return err
			}
		}
		return nil
	})
}

// rebuild audits a log with a rebuild that ends after the comparison.
func rebuild(ctx context.Context, rdb redis.UniversalClient, log testLog, opts audit.Options) (audit.Result, error) {
	done, err := projector.Rebuild(ctx, rdb, log, projector.RebuildOptions{
		Logger: slog.New(slog.DiscardHandler), CompareOnly: true, Partitions: opts.Partitions,
		Difference: func(d audit.Difference) { _ = opts.Difference(d) },
	})
	if err == nil && !done.Compared {
		err = errors.New("nothing was compared")
	}
	return audit.Result{Position: done.Position, Sessions: done.Sessions, Differences: done.Differences}, err
}

// audits are the two ways to audit a log.
var audits = map[string]func(context.Context, redis.UniversalClient, testLog, audit.Options) (audit.Result, error){
	"verify": verify, "rebuild": rebuild,
}

// eachAudit runs a test for both.
func eachAudit(t *testing.T, test func(t *testing.T, name string)) {
	for name := range audits {
		t.Run(name, func(t *testing.T) { test(t, name) })
	}
}

// mustReport audits a log and checks that these differences are reported once each and
// nothing else, by session and index. verify also has to report these sessions as parked.
func mustReport(t *testing.T, name string, rdb redis.UniversalClient, log testLog, partitions int, want map[spot]string, parked ...int) {
	t.Helper()
	left := maps.Clone(want)
	var reported []int
	opts := audit.Options{
		Partitions: partitions,
		Difference: func(d audit.Difference) error {
			at := spot{numberOf(d.SessionID), d.Index}
			says, expected := left[at]
			if !expected || !strings.Contains(d.Detail, says) {
				t.Errorf("%s: is not a difference, or was reported before, or is not %q: %+v", name, says, d)
			}
			delete(left, at)
			return nil
		},
		Parked: func(p layout.Parked) error {
			reported = append(reported, numberOf(p.SessionID))
			return nil
		},
	}.WithPatience(2 * time.Second)
	done, err := audits[name](t.Context(), rdb, log, opts)
	logtest.MustRun(t, err)
	for at, says := range left {
		t.Errorf("%s: was not reported: session %d, index %q: %s", name, at.session, at.index, says)
	}
	slices.Sort(reported)
	if name == "verify" && (!slices.Equal(reported, parked) || done.Parked != uint64(len(parked))) {
		t.Errorf("reported as parked are %v, want %v", reported, parked)
	}
	if done.Differences != uint64(len(want)) {
		t.Errorf("%s: the result is %+v, with %d differences", name, done, len(want))
	}
}

// parkedBut returns the sessions that are rightly parked when these differences are there.
func parkedBut(says map[spot]string) (parked []int) {
	for n := firstParked; n < firstParked+5; n++ {
		if _, damaged := says[spot{n, ""}]; !damaged {
			parked = append(parked, n)
		}
	}
	return parked
}

func TestEveryKindOfDifferenceIsReportedOnceAndNothingIsChanged(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := comparedLog()
		build(t, rdb, log, 1)
		whole := modeltest.Dump(t, rdb)
		for name := range audits {
			mustReport(t, name, rdb, log, 1, nil, parkedBut(nil)...)
			modeltest.SameKeys(t, modeltest.Dump(t, rdb), whole)
		}
		answers := modeltest.Live(t, rdb, layout.Partitions(1)[0])
		for kind, d := range damages() { // each alone: nothing else makes it suspect
			if strings.Contains(t.Name(), "embedded") {
				break // there it takes seconds
			}
			t.Run(kind, func(t *testing.T) {
				logtest.MustRun(t, d.do(t.Context(), rdb, answers))
				for name := range audits {
					mustReport(t, name, rdb, log, 1, d.says, parkedBut(d.says)...)
				}
				modeltest.Empty(t, rdb)
				build(t, rdb, log, 1)
				answers = modeltest.Live(t, rdb, layout.Partitions(1)[0])
			})
		}
		want := damageAll(t, rdb, answers)
		damaged := modeltest.Dump(t, rdb)
		for name := range audits {
			mustReport(t, name, rdb, log, 1, want, parkedBut(want)...)
			modeltest.SameKeys(t, modeltest.Dump(t, rdb), damaged)
			modeltest.MustHaveOneGeneration(t, rdb, layout.Partitions(1))
		}
	})
}

// More differs than is collected before it is judged.
func TestAReadModelThatHasLostEverythingIsReportedEntryByEntry(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := comparedLog()
		build(t, rdb, log, 1)
		answers := modeltest.Live(t, rdb, layout.Partitions(1)[0])
		keys, err := rdb.Keys(t.Context(), answers.GenerationPattern()).Result()
		logtest.MustRun(t, err)
		logtest.MustRun(t, rdb.Del(t.Context(), keys...).Err())
		want := map[spot]string{}
		for n := range comparedSessions {
			s := comparedSession(n)
			want[spot{n, ""}] = "the session is missing"
			for _, index := range namesOfIndexes(&s) {
				want[spot{n, index}] = "lacks"
			}
		}
		for n := range 5 {
			want[spot{firstParked + n, ""}] = "is not parked"
		}
		for name := range audits {
			mustReport(t, name, rdb, log, 1, want)
		}
	})
}

// Half of the entries of a big index are gone, and as many strangers are in it: more is
// suspect than is collected before it is judged.
func TestAnIndexThatWasReplacedIsReportedEntryByEntry(t *testing.T) {
	rdb := modeltest.Connect(t, redistest.Start(t, redistest.Config{ACL: true}))
	const sessions = 3000
	log, want := logtest.New("log"), map[spot]string{}
	for n := range sessions {
		log.Append(logtest.Session(n, int64(n)))
	}
	build(t, rdb, log, 1)
	index := modeltest.Live(t, rdb, layout.Partitions(1)[0]).Index(layout.IndexAll)
	pipe := rdb.Pipeline()
	for n := 0; n < sessions; n += 2 {
		pipe.ZRem(t.Context(), index, memberOf(logtest.Session(n, int64(n))))
		pipe.ZAdd(t.Context(), index, redis.Z{Member: memberOf(logtest.Session(absent+n, int64(n)))})
		want[spot{n, layout.IndexAll}], want[spot{absent + n, layout.IndexAll}] = "lacks", "does not belong there"
	}
	_, err := pipe.Exec(t.Context())
	logtest.MustRun(t, err)
	for name := range audits {
		mustReport(t, name, rdb, log, 1, want)
	}
}

// What cannot be used any more has to be replaced all the more.
func TestAReadModelWithKeysOfTheWrongKindIsReportedAndReplaced(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := logtest.New("log")
		for n := range 10 {
			log.Append(logtest.Session(n, int64(n)))
		}
		r := newRig(t, rdb, log)
		r.caughtUp()
		for _, key := range []func(layout.Keyspace) string{
			documentOf(1), indexOf(layout.IndexAll), indexOf(layout.FieldIndex("createdBy", "alice")),
			indexOf(layout.FieldIndex("room", "nobody's")), layout.Keyspace.Parked,
		} {
			logtest.MustRun(t, wrongKind(nil, key).do(t.Context(), rdb, r.liveKeys()))
			if damaged := r.liveKeys().Parked(); key(r.liveKeys()) == damaged { // which is a hash
				logtest.MustRun(t, rdb.Set(t.Context(), damaged, "value", 0).Err())
			}
			var reported []string
			done, err := projector.Rebuild(t.Context(), rdb, log, projector.RebuildOptions{
				Logger: r.logger(), Difference: func(d audit.Difference) { reported = append(reported, d.Detail) },
			})
			if err != nil || done.Differences == 0 || !strings.Contains(fmt.Sprint(reported), "not of its kind") {
				t.Fatalf("%s: got %+v, %q, %v", key(r.liveKeys()), done, reported, err)
			}
			r.mustBeWhole()
		}
	})
}

// Events that are written during an audit are no differences.
func TestAnAuditOfAReadModelInUse(t *testing.T) {
	for _, partitions := range []int{1, 3} {
		t.Run(fmt.Sprint(partitions, " partitions"), func(t *testing.T) {
			eachAudit(t, func(t *testing.T, name string) {
				rdb := modeltest.Connect(t, redistest.Start(t, redistest.Config{ACL: true}))
				log := comparedLog()
				r := newRigOf(t, rdb, log, partitions)
				r.caughtUp()
				want := map[spot]string{}
				if partitions == 1 {
					want = damageAll(t, rdb, r.liveKeys())
				}
				rest := r.live()
				for range 3 {
					auditInUse(t, name, rdb, log, partitions, want)
				}
				if name == "rebuild" {
					done, err := projector.Rebuild(t.Context(), rdb, log, projector.RebuildOptions{Logger: r.logger(), Partitions: partitions})
					if err != nil || done.Differences != uint64(len(want)) {
						t.Errorf("got %+v, %v; %d differences were known", done, err, len(want))
					}
					want = nil
					auditInUse(t, name, rdb, log, partitions, want)
				}
				rest()
				r.caughtUp()
				mustReport(t, name, rdb, log, partitions, want, parkedBut(want)...)
			})
		})
	}
}

// live writes sessions until rest is called: not those that were damaged. Some are new, and
// some are parked for a while.
func (r *rig) live() (rest func()) {
	ctx, stop := context.WithCancel(r.t.Context())
	var writing sync.WaitGroup
	for writer := range 2 {
		writing.Go(func() {
			for v := uint64(3); ctx.Err() == nil; v++ {
				n := 300 + 2*rand.IntN(comparedSessions/2) + writer
				if n == comparedSessions-1 {
					continue
				}
				position := r.log.Append(logtest.Session(n, int64(n), logtest.Version(v), logtest.Room(fmt.Sprint("room ", rand.IntN(3))), logtest.With(fmt.Sprint("guest ", rand.IntN(50)))))
				if rand.IntN(10) == 0 {
					r.log.RecordUnreadable(n)
					position = r.log.Append(logtest.Session(n, int64(n), logtest.Version(v)))
				}
				if r.WaitFor(ctx, position, time.Minute) != nil {
					return
				}
			}
		})
	}
	return func() {
		stop()
		writing.Wait()
	}
}

// auditInUse is mustReport for a log in which other sessions are parked for a while.
func auditInUse(t *testing.T, name string, rdb redis.UniversalClient, log testLog, partitions int, want map[spot]string) {
	t.Helper()
	done, err := audits[name](t.Context(), rdb, log, audit.Options{
		Partitions: partitions,
		Difference: func(d audit.Difference) error {
			if says, known := want[spot{numberOf(d.SessionID), d.Index}]; !known || !strings.Contains(d.Detail, says) {
				t.Errorf("is not a difference: %+v", d)
			}
			return nil
		},
	})
	logtest.MustRun(t, err)
	if done.Differences != uint64(len(want)) {
		t.Errorf("the result is %+v, with %d differences", done, len(want))
	}
}

// A growingLog grows when an audit begins to read it.
type growingLog struct {
	*logtest.Log
	grow func()
}

func (l *growingLog) All() []domain.Entry {
	l.grow()
	return l.Log.All()
}

func (l *growingLog) Newest(ctx context.Context, limit int, handle func([]domain.Entry) error) (uint64, error) {
	l.grow()
	return l.Log.Newest(ctx, limit, handle)
}

// What the read model has not reached yet is no difference: the audit waits for it.
func TestAnAuditWaitsForAReadModelThatLags(t *testing.T) {
	const n = 1
	for what, happens := range map[string]func(log *logtest.Log){
		"a session is new": func(log *logtest.Log) { log.Append(logtest.Session(99, 99, logtest.Room("r2"))) },
		"one has changed": func(log *logtest.Log) {
			log.Append(logtest.Session(n, 1, logtest.Version(2), logtest.Room("r2")))
		},
		"one is parked": func(log *logtest.Log) { log.RecordUnreadable(n) },
		"one comes back": func(log *logtest.Log) {
			log.Append(logtest.Session(2, 2, logtest.Version(2), logtest.Room("r2")))
		},
	} {
		t.Run(what, func(t *testing.T) {
			eachAudit(t, func(t *testing.T, name string) {
				e, err := embeddedredis.Start("secret")
				logtest.MustRun(t, err)
				t.Cleanup(func() { logtest.MustRun(t, e.Close()) })
				log := logtest.New("log")
				log.Append(logtest.Session(n, 1, logtest.Room("r1")), logtest.Session(2, 2))
				log.RecordUnreadable(2)
				r := newRig(t, e.Client(), log)
				r.caughtUp()
				var mu sync.Mutex
				grown, waited, rdb := false, 0, modeltest.Another(t, e.Client())
				grows := &growingLog{log, func() {
					mu.Lock()
					defer mu.Unlock()
					grown = true
					log.Hold(4) // from the projector
					happens(log)
				}}
				rdb.AddHook(modeltest.BeforeEach(func(cmd redis.Cmder) error {
					mu.Lock()
					defer mu.Unlock()
					if grown && cmd.Name() == "get" && cmd.Args()[1] == r.keys.Checkpoint() {
						if waited++; waited == 3 {
							log.Hold(0)
						}
					}
					return nil
				}))
				_, err = audits[name](t.Context(), rdb, grows, audit.Options{
					Difference: func(d audit.Difference) error {
						t.Errorf("is not a difference: %+v", d)
						return nil
					},
				})
				logtest.MustRun(t, err)
				if waited < 3 {
					t.Error("it did not wait: nothing was tested")
				}
			})
		})
	}
}

// A rebuild removes the suspects, so nothing of them is left to differ. That must not pass
// for a read model without differences.
func TestAnAuditOfAReadModelThatIsReplacedFails(t *testing.T) {
	rdb := modeltest.Connect(t, redistest.Start(t, redistest.Config{ACL: true}))
	log := comparedLog()
	r := newRig(t, rdb, log)
	r.caughtUp()
	logtest.MustRun(t, hasToo(layout.FieldIndex("room", "none"), 1).do(t.Context(), rdb, r.liveKeys()))
	checks, once := false, sync.Once{}
	done, err := verify(t.Context(), rdb, log, audit.Options{
		Progress: func(stage audit.Stage, _, _ uint64) {
			if stage != audit.Checking {
				return
			}
			checks = true
			once.Do(func() {
				_, err := projector.Rebuild(t.Context(), rdb, log, projector.RebuildOptions{Logger: r.logger()})
				logtest.MustRun(t, err)
			})
		},
	})
	if !checks || err == nil || !strings.Contains(err.Error(), "run this again") {
		t.Errorf("%+v, %v", done, err)
	}
}

func TestAnAuditOnARedisCluster(t *testing.T) {
	rdb, err := redisconn.Connect(t.Context(), redisconn.Options{URL: redistest.StartCluster(t, redistest.Config{ACL: true}).URL()})
	logtest.MustRun(t, err)
	t.Cleanup(func() { logtest.MustRun(t, rdb.Close()) })
	log := comparedLog()
	r := newRigOf(t, rdb, log, 4)
	r.caughtUp()
	space := func(n, shift int) layout.Keyspace {
		number := (layout.PartitionNumber(logtest.ID(n), 4) + shift) % 4
		return modeltest.Live(t, rdb, r.parts[number])
	}
	want := map[spot]string{}
	for _, c := range []struct {
		damage
		answers layout.Keyspace
	}{
		{lacks(layout.IndexAll, 5), space(5, 0)},
		{showsDocument(absent, valueOf(logtest.Session(absent, absent), 5), "is not in the log"), space(absent, 0)},
		{showsDocument(6, valueOf(comparedSession(6), secondEvent(6)), "is not in the log"), space(6, 1)}, // of that partition
		{hasToo(layout.IndexAll, 7), space(7, 1)},
	} {
		for name := range audits {
			mustReport(t, name, rdb, log, 4, want, parkedBut(want)...)
		}
		logtest.MustRun(t, c.do(t.Context(), rdb, c.answers))
		maps.Copy(want, c.says)
	}
	for name := range audits {
		mustReport(t, name, rdb, log, 4, want, parkedBut(want)...)
	}
}

func TestAnAuditSaysWhyThereIsNothingToCompare(t *testing.T) {
	e, err := embeddedredis.Start("secret")
	logtest.MustRun(t, err)
	t.Cleanup(func() { logtest.MustRun(t, e.Close()) })
	rdb, log := e.Client(), logtest.New("log")
	log.Append(logtest.Session(1, 1))
	says := func(log *logtest.Log, partitions int, want string) error {
		t.Helper()
		_, err := verify(t.Context(), rdb, log, audit.Options{Partitions: partitions})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
		return err
	}
	_ = says(log, 1, "there is no usable read model")
	r := newRig(t, rdb, log)
	r.caughtUp()
	var parts *projections.PartitionsError
	if err := says(log, 2, "2 partitions"); !errors.As(err, &parts) {
		t.Errorf("got %v", err)
	}
	if err := says(logtest.New("other"), 1, "other"); !errors.Is(err, projections.ErrOtherLog) {
		t.Errorf("got %v", err)
	}
	// Without a projector, new events are not shown, which is one difference.
	r.projector.End()
	log.Append(logtest.Session(1, 1, logtest.Version(2)), logtest.Session(2, 2))
	mustReport(t, "verify", rdb, log, 1, map[spot]string{{}: "the read model is at position 1, and the log at 3"})
	// A log that was restored from an older copy.
	log.Truncate(0)
	log.Append(logtest.Session(3, 3))
	mustReport(t, "verify", rdb, log, 1, map[spot]string{
		{}: "restored from an older copy", {1, ""}: "the session is not in the log", {3, ""}: "the session is missing",
		{1, layout.IndexAll}: "", {1, "createdBy:alice"}: "", {1, "state:created"}: "",
		{3, layout.IndexAll}: "", {3, "createdBy:alice"}: "", {3, "state:created"}: "",
	})
}

// Whoever reads the log decides whether the audit goes on, and so does each callback.
func TestAnAuditEndsWithTheFirstError(t *testing.T) {
	e, err := embeddedredis.Start("secret")
	logtest.MustRun(t, err)
	t.Cleanup(func() { logtest.MustRun(t, e.Close()) })
	log := comparedLog()
	build(t, e.Client(), log, 1)
	failed := errors.New("failed")
	_, err = audit.Run(t.Context(), e.Client(), log, audit.Options{}, func(context.Context, func(context.Context, []domain.Entry) error) error {
		return failed
	})
	if !errors.Is(err, failed) {
		t.Errorf("reading failed, and the audit ended with %v", err)
	}
	damageAll(t, e.Client(), modeltest.Live(t, e.Client(), layout.Partitions(1)[0]))
	for name, opts := range map[string]audit.Options{
		"Difference": {Difference: func(audit.Difference) error { return failed }},
		"Parked":     {Parked: func(layout.Parked) error { return failed }},
		"Pace":       {Pace: func(context.Context, int) error { return failed }},
	} {
		if _, err := verify(t.Context(), e.Client(), log, opts); !errors.Is(err, failed) {
			t.Errorf("%s failed, and the audit ended with %v", name, err)
		}
	}
}
