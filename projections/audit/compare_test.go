package audit_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"strconv"
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
)

// comparedSessions is how many sessions the compared read models have: some indexes
// have them all, and are compared in several slices.
const comparedSessions = audit.CompareMembers + 144

// comparedSession returns a session as its second event left it. Some are in a small
// index.
func comparedSession(n int) domain.Session {
	s := logtest.Session(n, int64(n), logtest.Version(2))
	switch {
	case n%100 == 0:
		s.Room = "small"
	case n == 40 || n == 41:
		s.Room = "lost"
	}
	return s
}

func comparedLog() *logtest.Log {
	log := logtest.New("log")
	for n := range comparedSessions {
		log.Append(logtest.Session(n, int64(n), logtest.Version(1)))
	}
	for n := range comparedSessions {
		log.Append(comparedSession(n))
	}
	return log
}

// A damage is something that is wrong with a read model that answers.
type damage struct {
	do func(ctx context.Context, rdb redis.UniversalClient, answers layout.Keyspace) error
	// says is what a comparison has to say, by where: the number of the session and the
	// name of the index.
	says map[spot]string
}

type spot struct {
	session int
	index   string // "" for the document
}

// absent is a session that the log does not have.
const absent = 100_000

func memberOf(s domain.Session) string {
	member, err := layout.AppendMember(nil, s.CreatedAt, s.ID)
	if err != nil {
		panic(err)
	}
	return string(member)
}

// numberOf is the inverse of id.
func numberOf(id string) int {
	n, err := strconv.ParseInt(id[24:], 16, 64)
	if err != nil {
		panic(err)
	}
	return int(n)
}

// valueOf is a session's document, as an event at a position left it.
func valueOf(s domain.Session, position uint64) []byte {
	d, err := layout.NewDocument(&domain.Entry{Record: &domain.Record{Event: domain.Event{Session: s}, Position: position}})
	if err != nil {
		panic(err)
	}
	return d.Value
}

// secondEvent is the position of the newest event of a compared session.
func secondEvent(n int) uint64 { return uint64(comparedSessions + n + 1) }

func lacks(index string, n int) damage {
	return damage{
		do: func(ctx context.Context, rdb redis.UniversalClient, answers layout.Keyspace) error {
			return rdb.ZRem(ctx, answers.Index(index), memberOf(comparedSession(n))).Err()
		},
		says: map[spot]string{{n, index}: "lacks"},
	}
}

func hasToo(index string, n int) damage {
	return damage{
		do: func(ctx context.Context, rdb redis.UniversalClient, answers layout.Keyspace) error {
			return rdb.ZAdd(ctx, answers.Index(index), redis.Z{Member: memberOf(logtest.Session(n, int64(n)))}).Err()
		},
		says: map[spot]string{{n, index}: "does not belong there"},
	}
}

func showsDocument(n int, value []byte, says string) damage {
	return damage{
		do: func(ctx context.Context, rdb redis.UniversalClient, answers layout.Keyspace) error {
			return rdb.Set(ctx, answers.Document(logtest.ID(n)), value, 0).Err()
		},
		says: map[spot]string{{n, ""}: says},
	}
}

// damages are of different sessions, so that all of them can be done at once.
func damages() map[string]damage {
	small, large := layout.FieldIndex("room", "small"), layout.FieldIndex("createdBy", "alice")
	return map[string]damage{
		"a document was changed":              showsDocument(1, valueOf(logtest.Session(1, 1, logtest.Version(9)), secondEvent(1)), "the document differs"),
		"a document is older":                 showsDocument(2, valueOf(logtest.Session(2, 2), 3), "the document is of position 3"),
		"a document cannot be read":           showsDocument(3, []byte("damaged"), "cannot be read"),
		"a small index lacks a session":       lacks(small, 0),
		"a large index lacks its first one":   lacks(large, 0),
		"a large index lacks one in between":  lacks(large, audit.CompareMembers-3),
		"a large index lacks its last one":    lacks(large, comparedSessions-1),
		"the index of all lacks a session":    lacks(layout.IndexAll, 200),
		"a small index has one too many":      hasToo(small, 7),
		"an index that should not be there":   hasToo(layout.FieldIndex("room", "none"), 8),
		"a large index has one too many":      hasToo(layout.FieldIndex("state", "created"), absent+1),
		"the index of all has one too many":   hasToo(layout.IndexAll, absent+2),
		"the index of all has one in between": {hasBetween, map[spot]string{{absent + 3, layout.IndexAll}: "does not belong there"}},
		"a document is missing": {
			do: func(ctx context.Context, rdb redis.UniversalClient, answers layout.Keyspace) error {
				return rdb.Del(ctx, answers.Document(logtest.ID(4))).Err()
			},
			says: map[spot]string{{4, ""}: "the session is missing"},
		},
		"a small index is missing": {
			do: func(ctx context.Context, rdb redis.UniversalClient, answers layout.Keyspace) error {
				return rdb.Del(ctx, answers.Index(layout.FieldIndex("room", "lost"))).Err()
			},
			says: map[spot]string{{40, layout.FieldIndex("room", "lost")}: "lacks", {41, layout.FieldIndex("room", "lost")}: "lacks"},
		},
		"a session is not in the log": {
			do: func(ctx context.Context, rdb redis.UniversalClient, answers layout.Keyspace) error {
				s := logtest.Session(absent, absent)
				pipe := rdb.Pipeline()
				pipe.Set(ctx, answers.Document(s.ID), valueOf(s, 5), 0)
				for _, index := range namesOfIndexes(&s) {
					pipe.ZAdd(ctx, answers.Index(index), redis.Z{Member: memberOf(s)})
				}
				_, err := pipe.Exec(ctx)
				return err
			},
			says: map[spot]string{
				{absent, ""}: "is not in the log", {absent, layout.IndexAll}: "does not belong there",
				{absent, large}: "does not belong there", {absent, layout.FieldIndex("state", "created")}: "does not belong there",
			},
		},
	}
}

// hasBetween adds a session that sorts between others.
func hasBetween(ctx context.Context, rdb redis.UniversalClient, answers layout.Keyspace) error {
	return rdb.ZAdd(ctx, answers.Index(layout.IndexAll), redis.Z{Member: memberOf(logtest.Session(absent+3, 5))}).Err()
}

// mustReport runs a comparison and checks that it says this and nothing else.
func mustReport(t *testing.T, rdb redis.UniversalClient, log projections.Log, want map[spot]string) {
	t.Helper()
	left := maps.Clone(want)
	done, err := projector.Rebuild(t.Context(), rdb, log, projector.RebuildOptions{
		Logger: slog.New(slog.DiscardHandler), CompareOnly: true,
		Difference: func(d audit.Difference) {
			at := spot{numberOf(d.SessionID), d.Index}
			says, expected := left[at]
			if !expected || !strings.Contains(d.Detail, says) {
				t.Errorf("is no difference, or was reported before, or is not %q: %+v", says, d)
			}
			delete(left, at)
		},
	})
	logtest.MustRun(t, err)
	for at, says := range left {
		t.Errorf("was not reported: session %d, index %q: %s", at.session, at.index, says)
	}
	if !done.Compared || done.Differences != uint64(len(want)) {
		t.Errorf("the result is %+v, with %d differences", done, len(want))
	}
}

func TestEveryKindOfDifferenceIsReportedOnceAndNothingElse(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := comparedLog()
		build(t, rdb, log, 1)
		whole := modeltest.Dump(t, rdb)
		mustReport(t, rdb, log, nil)
		modeltest.SameKeys(t, modeltest.Dump(t, rdb), whole)

		want := damageAll(t, rdb, modeltest.Serving(t, rdb, layout.Partitions(1)[0]))
		damaged := modeltest.Dump(t, rdb)
		mustReport(t, rdb, log, want)
		modeltest.SameKeys(t, modeltest.Dump(t, rdb), damaged)
		modeltest.MustHaveOneGeneration(t, rdb, layout.Partitions(1))
	})
}

// More differs than is kept in mind at once.
func TestAReadModelThatHasLostEverythingIsReportedEntryByEntry(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := comparedLog()
		build(t, rdb, log, 1)
		answers := modeltest.Serving(t, rdb, layout.Partitions(1)[0])
		lost, err := rdb.Keys(t.Context(), answers.GenerationPattern()).Result()
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
		if len(want) <= audit.MaxDoubts {
			t.Fatalf("these are only %d", len(want))
		}
		mustReport(t, rdb, log, want)
	})
}

// What is damaged like this cannot be compared. All the more it has to be replaced.
func TestAReadModelWithKeysOfTheWrongKindIsReportedAndReplaced(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := logtest.New("log")
		for n := range 10 {
			log.Append(logtest.Session(n, int64(n)))
		}
		w := newRig(t, rdb, log)
		w.caughtUp()
		for _, key := range []func(layout.Keyspace) string{
			func(k layout.Keyspace) string { return k.Document(logtest.ID(1)) },
			func(k layout.Keyspace) string { return k.Index(layout.IndexAll) },
			func(k layout.Keyspace) string { return k.Index(layout.FieldIndex("createdBy", "alice")) },
			func(k layout.Keyspace) string { return k.Index(layout.FieldIndex("room", "nobody's")) },
		} {
			damaged := key(w.serving())
			logtest.MustRun(t, rdb.Del(t.Context(), damaged).Err())
			logtest.MustRun(t, rdb.HSet(t.Context(), damaged, "field", "value").Err())
			opts, told := projector.RebuildOptions{Logger: w.logger()}, ""
			opts.Difference = func(d audit.Difference) { told += d.Detail }
			done, err := projector.Rebuild(t.Context(), rdb, w.log, opts)
			if err != nil || done.Differences == 0 || !strings.Contains(told, "WRONGTYPE") {
				t.Fatalf("%s: got %+v, %q, %v", damaged, done, told, err)
			}
			w.mustBeWhole()
		}
	})
}

// damageAll does all damages, and returns what a comparison has to say then.
func damageAll(t *testing.T, rdb redis.UniversalClient, answers layout.Keyspace) map[spot]string {
	t.Helper()
	want := map[spot]string{}
	for name, d := range damages() {
		logtest.MustRun(t, d.do(t.Context(), rdb, answers))
		for at, says := range d.says {
			if _, known := want[at]; known {
				t.Fatalf("%s: session %d is damaged in %q already", name, at.session, at.index)
			}
			want[at] = says
		}
	}
	return want
}

// While events arrive, each of the two generations is now and then ahead.
func TestEventsThatArriveDuringAComparisonAreNoDifferences(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := comparedLog()
		r := newRig(t, rdb, log)
		r.caughtUp()
		want := damageAll(t, rdb, r.serving())
		ctx, stop := context.WithCancel(t.Context())
		var writing sync.WaitGroup
		defer writing.Wait()
		defer stop()
		writing.Go(func() {
			for v := uint64(3); ctx.Err() == nil; v++ {
				// Not those that were damaged; some are new, and some are parked for a while.
				n := 300 + rand.IntN(comparedSessions)
				if n == comparedSessions-1 {
					continue
				}
				position := log.Append(logtest.Session(n, int64(n), logtest.Version(v), logtest.Room(fmt.Sprint("room ", rand.IntN(3))), logtest.With(fmt.Sprint("guest ", rand.IntN(50)))))
				if rand.IntN(10) == 0 {
					position = log.RecordUnreadable(n)
				}
				if r.WaitFor(ctx, position, time.Minute) != nil {
					return
				}
			}
		})
		for range 2 {
			mustReport(t, rdb, log, want)
		}
		done, err := projector.Rebuild(t.Context(), rdb, log, projector.RebuildOptions{Logger: r.logger()})
		if err != nil || done.Differences != uint64(len(want)) {
			t.Fatalf("got %+v, %v; %d differences were known", done, err, len(want))
		}
		for range 2 {
			mustReport(t, rdb, log, nil)
		}
	})
}

// What only one of the generations has heard of yet is no difference: the comparison
// waits for the other one.
func TestWhatOneGenerationHasNotHeardOfYetIsNoDifference(t *testing.T) {
	const n = 1
	for name, happens := range map[string]func(log *logtest.Log) uint64{
		"a session is new": func(log *logtest.Log) uint64 { return log.Append(logtest.Session(99, 99, logtest.Room("r2"))) },
		"one has changed": func(log *logtest.Log) uint64 {
			return log.Append(logtest.Session(n, 1, logtest.Version(2), logtest.Room("r2")))
		},
		"one is parked": func(log *logtest.Log) uint64 { return log.RecordUnreadable(n) },
		"one comes back": func(log *logtest.Log) uint64 {
			return log.Append(logtest.Session(2, 2, logtest.Version(2), logtest.Room("r2")))
		},
	} {
		for _, behind := range []string{"what answers", "what was built"} {
			t.Run(name+", "+behind+" is behind", func(t *testing.T) {
				e, err := embeddedredis.Start("secret")
				logtest.MustRun(t, err)
				t.Cleanup(func() { logtest.MustRun(t, e.Close()) })
				log := logtest.New("log")
				log.Append(logtest.Session(n, 1, logtest.Room("r1")), logtest.Session(2, 2))
				log.RecordUnreadable(2)
				r := newRig(t, e.Client(), log)
				r.caughtUp()
				built, rdb := logtest.Hold(log), modeltest.Another(t, e.Client())
				compares, judged := false, 0
				rdb.AddHook(modeltest.BeforeEach(func(cmd redis.Cmder) error {
					switch {
					case cmd.Name() == "scan" && !compares:
						compares = true
						if behind == "what answers" {
							log.Hold(4)
							modeltest.Reached(t, e.Client(), r.keys.Next(), happens(log))
						} else {
							built.From.Store(4)
							modeltest.Reached(t, e.Client(), r.keys.Checkpoint(), happens(log))
						}
					case modeltest.IsRun(cmd, audit.CompareSession):
						if judged++; judged == 3 { // it has waited
							close(built.LetGo)
							log.Hold(0)
						}
					}
					return nil
				}))
				_, err = projector.Rebuild(t.Context(), rdb, built, projector.RebuildOptions{
					Logger: r.logger(), CompareOnly: true,
					Difference: func(d audit.Difference) { t.Errorf("is no difference: %+v", d) },
				})
				logtest.MustRun(t, err)
				if judged < 3 {
					t.Errorf("the generations were the same: nothing was tested")
				}
			})
		}
	}
}

// namesOfIndexes lists the indexes that a session belongs in.
func namesOfIndexes(s *domain.Session) []string {
	names := []string{layout.IndexAll}
	for _, field := range domain.FilterFields() {
		for _, value := range s.FilterValues(field) {
			names = append(names, layout.FieldIndex(field, value))
		}
	}
	return names
}
