package projections

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
)

// comparedSessions is how many sessions the compared read models have: some indexes
// have them all, and are compared in several slices.
const comparedSessions = CompareMembers + 144

// comparedSession returns a session as its second event left it. Some are in a small
// index.
func comparedSession(n int) domain.Session {
	s := session(n, int64(n), version(2))
	switch {
	case n%100 == 0:
		s.Room = "small"
	case n == 40 || n == 41:
		s.Room = "lost"
	}
	return s
}

func comparedLog() *fakeLog {
	log := newFakeLog("log")
	for n := range comparedSessions {
		log.append(session(n, int64(n), version(1)))
	}
	for n := range comparedSessions {
		log.append(comparedSession(n))
	}
	return log
}

// A damage is something that is wrong with a read model that answers.
type damage struct {
	do func(ctx context.Context, rdb redis.UniversalClient, answers keyspace) error
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
	member, err := appendMember(nil, s.CreatedAt, s.ID)
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
	d, err := newDocument(&domain.Entry{Record: &domain.Record{Event: domain.Event{Session: s}, Position: position}})
	if err != nil {
		panic(err)
	}
	return d.value
}

// secondEvent is the position of the newest event of a compared session.
func secondEvent(n int) uint64 { return uint64(comparedSessions + n + 1) }

func lacks(index string, n int) damage {
	return damage{
		do: func(ctx context.Context, rdb redis.UniversalClient, answers keyspace) error {
			return rdb.ZRem(ctx, answers.index(index), memberOf(comparedSession(n))).Err()
		},
		says: map[spot]string{{n, index}: "lacks"},
	}
}

func hasToo(index string, n int) damage {
	return damage{
		do: func(ctx context.Context, rdb redis.UniversalClient, answers keyspace) error {
			return rdb.ZAdd(ctx, answers.index(index), redis.Z{Member: memberOf(session(n, int64(n)))}).Err()
		},
		says: map[spot]string{{n, index}: "does not belong there"},
	}
}

func showsDocument(n int, value []byte, says string) damage {
	return damage{
		do: func(ctx context.Context, rdb redis.UniversalClient, answers keyspace) error {
			return rdb.Set(ctx, answers.document(id(n)), value, 0).Err()
		},
		says: map[spot]string{{n, ""}: says},
	}
}

// damages are of different sessions, so that all of them can be done at once.
func damages() map[string]damage {
	small, large := fieldIndex("room", "small"), fieldIndex("createdBy", "alice")
	return map[string]damage{
		"a document was changed":              showsDocument(1, valueOf(session(1, 1, version(9)), secondEvent(1)), "the document differs"),
		"a document is older":                 showsDocument(2, valueOf(session(2, 2), 3), "the document is of position 3"),
		"a document cannot be read":           showsDocument(3, []byte("damaged"), "cannot be read"),
		"a small index lacks a session":       lacks(small, 0),
		"a large index lacks its first one":   lacks(large, 0),
		"a large index lacks one in between":  lacks(large, CompareMembers-3),
		"a large index lacks its last one":    lacks(large, comparedSessions-1),
		"the index of all lacks a session":    lacks(indexAll, 200),
		"a small index has one too many":      hasToo(small, 7),
		"an index that should not be there":   hasToo(fieldIndex("room", "none"), 8),
		"a large index has one too many":      hasToo(fieldIndex("state", "created"), absent+1),
		"the index of all has one too many":   hasToo(indexAll, absent+2),
		"the index of all has one in between": {hasBetween, map[spot]string{{absent + 3, indexAll}: "does not belong there"}},
		"a document is missing": {
			do: func(ctx context.Context, rdb redis.UniversalClient, answers keyspace) error {
				return rdb.Del(ctx, answers.document(id(4))).Err()
			},
			says: map[spot]string{{4, ""}: "the session is missing"},
		},
		"a small index is missing": {
			do: func(ctx context.Context, rdb redis.UniversalClient, answers keyspace) error {
				return rdb.Del(ctx, answers.index(fieldIndex("room", "lost"))).Err()
			},
			says: map[spot]string{{40, fieldIndex("room", "lost")}: "lacks", {41, fieldIndex("room", "lost")}: "lacks"},
		},
		"a session is not in the log": {
			do: func(ctx context.Context, rdb redis.UniversalClient, answers keyspace) error {
				s := session(absent, absent)
				pipe := rdb.Pipeline()
				pipe.Set(ctx, answers.document(s.ID), valueOf(s, 5), 0)
				for _, index := range namesOfIndexes(&s) {
					pipe.ZAdd(ctx, answers.index(index), redis.Z{Member: memberOf(s)})
				}
				_, err := pipe.Exec(ctx)
				return err
			},
			says: map[spot]string{
				{absent, ""}: "is not in the log", {absent, indexAll}: "does not belong there",
				{absent, large}: "does not belong there", {absent, fieldIndex("state", "created")}: "does not belong there",
			},
		},
	}
}

// hasBetween adds a session that sorts between others.
func hasBetween(ctx context.Context, rdb redis.UniversalClient, answers keyspace) error {
	return rdb.ZAdd(ctx, answers.index(indexAll), redis.Z{Member: memberOf(session(absent+3, 5))}).Err()
}

// mustReport runs a comparison and checks that it says this and nothing else.
func mustReport(t *testing.T, rdb redis.UniversalClient, log Log, want map[spot]string) {
	t.Helper()
	left := maps.Clone(want)
	done, err := Rebuild(t.Context(), rdb, log, RebuildOptions{
		Logger: slog.New(slog.DiscardHandler), CompareOnly: true,
		Difference: func(d Difference) {
			at := spot{numberOf(d.SessionID), d.Index}
			says, expected := left[at]
			if !expected || !strings.Contains(d.Detail, says) {
				t.Errorf("is no difference, or was reported before, or is not %q: %+v", says, d)
			}
			delete(left, at)
		},
	})
	mustRun(t, err)
	for at, says := range left {
		t.Errorf("was not reported: session %d, index %q: %s", at.session, at.index, says)
	}
	if !done.Compared || done.Differences != uint64(len(want)) {
		t.Errorf("the result is %+v, with %d differences", done, len(want))
	}
}

func TestEveryKindOfDifferenceIsReportedOnceAndNothingElse(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := comparedLog()
		build(t, rdb, log, 1)
		whole := dump(t, rdb)
		mustReport(t, rdb, log, nil)
		sameKeys(t, dump(t, rdb), whole)

		want := damageAll(t, rdb, servingOf(t, rdb, newPartitions(1)[0]))
		damaged := dump(t, rdb)
		mustReport(t, rdb, log, want)
		sameKeys(t, dump(t, rdb), damaged)
		mustHaveOneGeneration(t, rdb, newPartitions(1))
	})
}

// More differs than is kept in mind at once.
func TestAReadModelThatHasLostEverythingIsReportedEntryByEntry(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := comparedLog()
		build(t, rdb, log, 1)
		answers := servingOf(t, rdb, newPartitions(1)[0])
		lost, err := rdb.Keys(t.Context(), answers.allKeys()).Result()
		mustRun(t, err)
		mustRun(t, rdb.Del(t.Context(), lost...).Err())
		want := map[spot]string{}
		for n := range comparedSessions {
			s := comparedSession(n)
			want[spot{n, ""}] = "the session is missing"
			for _, index := range namesOfIndexes(&s) {
				want[spot{n, index}] = "lacks"
			}
		}
		if len(want) <= MaxDoubts {
			t.Fatalf("these are only %d", len(want))
		}
		mustReport(t, rdb, log, want)
	})
}

// What is damaged like this cannot be compared. All the more it has to be replaced.
func TestAReadModelWithKeysOfTheWrongKindIsReportedAndReplaced(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		log := newFakeLog("log")
		for n := range 10 {
			log.append(session(n, int64(n)))
		}
		w := newRig(t, rdb, log)
		w.caughtUp()
		for _, key := range []func(keyspace) string{
			func(k keyspace) string { return k.document(id(1)) },
			func(k keyspace) string { return k.index(indexAll) },
			func(k keyspace) string { return k.index(fieldIndex("createdBy", "alice")) },
			func(k keyspace) string { return k.index(fieldIndex("room", "nobody's")) },
		} {
			damaged := key(w.serving())
			mustRun(t, rdb.Del(t.Context(), damaged).Err())
			mustRun(t, rdb.HSet(t.Context(), damaged, "field", "value").Err())
			opts, told := RebuildOptions{Logger: w.logger()}, ""
			opts.Difference = func(d Difference) { told += d.Detail }
			done, err := Rebuild(t.Context(), rdb, w.log, opts)
			if err != nil || done.Differences == 0 || !strings.Contains(told, "WRONGTYPE") {
				t.Fatalf("%s: got %+v, %q, %v", damaged, done, told, err)
			}
			w.mustBeWhole()
		}
	})
}

// damageAll does all damages, and returns what a comparison has to say then.
func damageAll(t *testing.T, rdb redis.UniversalClient, answers keyspace) map[spot]string {
	t.Helper()
	want := map[spot]string{}
	for name, d := range damages() {
		mustRun(t, d.do(t.Context(), rdb, answers))
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
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
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
				position := log.append(session(n, int64(n), version(v), room(fmt.Sprint("room ", rand.IntN(3))), with(fmt.Sprint("guest ", rand.IntN(50)))))
				if rand.IntN(10) == 0 {
					position = log.recordUnreadable(n)
				}
				if r.WaitFor(ctx, position, time.Minute) != nil {
					return
				}
			}
		})
		for range 2 {
			mustReport(t, rdb, log, want)
		}
		done, err := Rebuild(t.Context(), rdb, log, RebuildOptions{Logger: r.logger()})
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
	for name, happens := range map[string]func(log *fakeLog) uint64{
		"a session is new": func(log *fakeLog) uint64 { return log.append(session(99, 99, room("r2"))) },
		"one has changed":  func(log *fakeLog) uint64 { return log.append(session(n, 1, version(2), room("r2"))) },
		"one is parked":    func(log *fakeLog) uint64 { return log.recordUnreadable(n) },
		"one comes back":   func(log *fakeLog) uint64 { return log.append(session(2, 2, version(2), room("r2"))) },
	} {
		for _, behind := range []string{"what answers", "what was built"} {
			t.Run(name+", "+behind+" is behind", func(t *testing.T) {
				e, err := StartEmbedded("secret")
				mustRun(t, err)
				t.Cleanup(func() { mustRun(t, e.Close()) })
				log := newFakeLog("log")
				log.append(session(n, 1, room("r1")), session(2, 2))
				log.recordUnreadable(2)
				r := newRig(t, e.Client(), log)
				r.caughtUp()
				built, rdb := newHeldLog(log), another(t, e.Client())
				compares, judged := false, 0
				rdb.AddHook(beforeEach(func(cmd redis.Cmder) error {
					switch {
					case cmd.Name() == "scan" && !compares:
						compares = true
						if behind == "what answers" {
							log.hold(4)
							reached(t, e.Client(), r.keys.next(), happens(log))
						} else {
							built.from.Store(4)
							reached(t, e.Client(), r.keys.checkpoint(), happens(log))
						}
					case isRun(cmd, CompareSession):
						if judged++; judged == 3 { // it has waited
							close(built.letGo)
							log.hold(0)
						}
					}
					return nil
				}))
				_, err = Rebuild(t.Context(), rdb, built, RebuildOptions{
					Logger: r.logger(), CompareOnly: true,
					Difference: func(d Difference) { t.Errorf("is no difference: %+v", d) },
				})
				mustRun(t, err)
				if judged < 3 {
					t.Errorf("the generations were the same: nothing was tested")
				}
			})
		}
	}
}

// namesOfIndexes lists the indexes that a session belongs in.
func namesOfIndexes(s *domain.Session) []string {
	names := []string{indexAll}
	for _, field := range domain.FilterFields() {
		for _, value := range s.FilterValues(field) {
			names = append(names, fieldIndex(field, value))
		}
	}
	return names
}
