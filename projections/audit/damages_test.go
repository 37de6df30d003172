package audit_test

import (
	"context"
	"errors"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"chatsessions/domain"
	"chatsessions/projections/layout"
	"chatsessions/projections/logtest"
)

const (
	// comparedSessions is how many sessions the compared read models show. Some indexes
	// have them all, and are not read in one piece.
	comparedSessions = 400
	// firstParked is the first of five sessions that are parked.
	firstParked = 2000
)

// comparedSession returns a session as its second event left it. Some are in a small
// index.
func comparedSession(n int) domain.Session {
	s := logtest.Session(n, int64(n), logtest.Version(2))
	switch {
	case n%100 == 0:
		s.Room = "small"
	case n == 40 || n == 41:
		s.Room = "lost"
	case n == 50:
		s.Room = "odd"
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
	for n := range 5 {
		log.RecordUnreadable(firstParked + n)
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

// stranger is the number of an id that no session can have.
const stranger = -1

// numberOf is the inverse of logtest.ID, and 0 for a difference without a session.
func numberOf(id string) int {
	if id == "" {
		return 0
	}
	n, err := strconv.ParseInt(id[max(0, len(id)-12):], 16, 64)
	if err != nil {
		return stranger
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

// at is what a damage that changes nothing else has to be reported as.
func at(n int, index, says string) map[spot]string { return map[spot]string{{n, index}: says} }

func lacks(index string, n int) damage {
	return damage{func(ctx context.Context, rdb redis.UniversalClient, answers layout.Keyspace) error {
		return rdb.ZRem(ctx, answers.Index(index), memberOf(comparedSession(n))).Err()
	}, at(n, index, "lacks")}
}

func hasToo(index string, n int) damage {
	return scored(index, logtest.Session(n, int64(n)), 0, "does not belong there")
}

// scored gives an index entry a score.
func scored(index string, s domain.Session, score float64, says string) damage {
	return damage{func(ctx context.Context, rdb redis.UniversalClient, answers layout.Keyspace) error {
		return rdb.ZAdd(ctx, answers.Index(index), redis.Z{Score: score, Member: memberOf(s)}).Err()
	}, at(numberOf(s.ID), index, says)}
}

func showsDocument(n int, value []byte, says string) damage {
	return damage{func(ctx context.Context, rdb redis.UniversalClient, answers layout.Keyspace) error {
		return rdb.Set(ctx, answers.Document(logtest.ID(n)), value, 0).Err()
	}, at(n, "", says)}
}

// lost removes a key, or all that are given.
func lost(says map[spot]string, keys ...func(layout.Keyspace) string) damage {
	return damage{func(ctx context.Context, rdb redis.UniversalClient, answers layout.Keyspace) error {
		pipe := rdb.Pipeline()
		for _, key := range keys {
			pipe.Del(ctx, key(answers))
		}
		_, err := pipe.Exec(ctx)
		return err
	}, says}
}

// wrongKind puts a hash in the place of a key.
func wrongKind(says map[spot]string, key func(layout.Keyspace) string) damage {
	return damage{func(ctx context.Context, rdb redis.UniversalClient, answers layout.Keyspace) error {
		pipe := rdb.Pipeline()
		pipe.Del(ctx, key(answers))
		pipe.HSet(ctx, key(answers), "field", "value")
		_, err := pipe.Exec(ctx)
		return err
	}, says}
}

// noted has a session noted as parked, as a text says.
func noted(n int, text, says string) damage {
	return damage{func(ctx context.Context, rdb redis.UniversalClient, answers layout.Keyspace) error {
		return rdb.HSet(ctx, answers.Parked(), logtest.ID(n), text).Err()
	}, at(n, "", says)}
}

// note is a note that a session is parked.
func note(n int) string {
	return layout.NewParked(&layout.Document{ID: logtest.ID(n), Position: 3, Reason: "a reason"}).String()
}

// both does two damages.
func both(one, other damage, says map[spot]string) damage {
	return damage{func(ctx context.Context, rdb redis.UniversalClient, answers layout.Keyspace) error {
		return errors.Join(one.do(ctx, rdb, answers), other.do(ctx, rdb, answers))
	}, says}
}

func documentOf(n int) func(layout.Keyspace) string {
	return func(k layout.Keyspace) string { return k.Document(logtest.ID(n)) }
}

func indexOf(name string) func(layout.Keyspace) string {
	return func(k layout.Keyspace) string { return k.Index(name) }
}

// damages are of different sessions, so that all of them can be done at once.
func damages() map[string]damage {
	room := func(name string) string { return layout.FieldIndex("room", name) }
	all, small, large := layout.IndexAll, room("small"), layout.FieldIndex("createdBy", "alice")
	created := layout.FieldIndex("state", "created")
	return map[string]damage{
		"a document was changed":               showsDocument(1, valueOf(logtest.Session(1, 1, logtest.Version(9)), secondEvent(1)), "the document differs"),
		"a document is older":                  showsDocument(2, valueOf(logtest.Session(2, 2), 3), "the document is of position 3"),
		"a document is of a later position":    showsDocument(12, valueOf(comparedSession(12), 99_999), "the document is of position 99999"),
		"a document cannot be read":            showsDocument(3, []byte("damaged"), "cannot be read"),
		"a document is missing":                lost(at(4, "", "the session is missing"), documentOf(4)),
		"a document is of the wrong kind":      wrongKind(at(11, "", "its key is not of its kind"), documentOf(11)),
		"a document is a copy of another one":  showsDocument(absent+6, valueOf(comparedSession(62), secondEvent(62)), "the session is not in the log"),
		"a document has the id of no session":  {showsStranger, at(stranger, "", "is not in the log")},
		"a small index lacks a session":        lacks(small, 0),
		"a large index lacks its first one":    lacks(large, 0),
		"a large index lacks one in between":   lacks(large, 253),
		"a large index lacks its last one":     lacks(large, comparedSessions-1),
		"the index of all lacks a session":     lacks(all, 200),
		"a small index is missing":             lost(map[spot]string{{40, room("lost")}: "lacks", {41, room("lost")}: "lacks"}, indexOf(room("lost"))),
		"a small index has one too many":       hasToo(small, 7),
		"an index that should not be there":    hasToo(room("none"), 8),
		"an index of a field that is unknown":  hasToo("color:red", 13),
		"a large index has one too many":       hasToo(created, absent+1),
		"the index of all has one too many":    hasToo(all, absent+2),
		"the index of all has one in between":  scored(all, logtest.Session(absent+3, 5), 0, "does not belong there"),
		"an index has an entry that is older":  scored(all, logtest.Session(14, 2), 0, "does not belong there"),
		"an index has a strange member":        {hasStranger, at(0, created, "is not in the layout")},
		"an index is of the wrong kind":        wrongKind(map[spot]string{{50, room("odd")}: "lacks", {0, room("odd")}: "not of its kind"}, indexOf(room("odd"))),
		"a strange index is of the wrong kind": wrongKind(at(0, room("strange"), "not of its kind"), indexOf(room("strange"))),
		"a small index is out of order":        scored(small, comparedSession(100), 1, "with score 1, so it is out of order"),
		"a large index is out of order":        scored(large, comparedSession(5), -2.5, "with score -2.5, so it is out of order"),
		"a large index is far out of order":    scored(large, comparedSession(10), math.Inf(1), "with score +Inf, so it is out of order"),
		"the index of all is out of order":     scored(all, comparedSession(6), 7, "with score 7, so it is out of order"),
		"an entry too many is out of order":    scored(all, logtest.Session(absent+4, 1), -1, "does not belong there"),
		"a session is shown, and parked":       noted(60, note(60), "is shown, and noted as parked"),
		"a session could be shown":             both(noted(61, note(61), ""), lost(nil, documentOf(61)), at(61, "", "is parked, and could be shown")),
		"a session is parked without a log":    noted(absent+5, note(absent+5), "noted as parked, and not in the log"),
		"a session should be parked":           {unpark, at(firstParked+1, "", "is not parked, and its newest event cannot be projected")},
		"a session should not be shown":        showsDocument(firstParked+2, valueOf(logtest.Session(firstParked+2, 9), 7), "is shown, and its newest event cannot be projected"),
		"a note is of another session":         noted(firstParked+3, note(4), "is of another one"),
		"a note cannot be read":                noted(firstParked+4, "damaged", "cannot be read"),
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
				{absent, ""}: "is not in the log", {absent, all}: "does not belong there",
				{absent, large}: "does not belong there", {absent, created}: "does not belong there",
			},
		},
	}
}

func showsStranger(ctx context.Context, rdb redis.UniversalClient, answers layout.Keyspace) error {
	return rdb.Set(ctx, answers.Document("no session"), "damaged", 0).Err()
}

func hasStranger(ctx context.Context, rdb redis.UniversalClient, answers layout.Keyspace) error {
	return rdb.ZAdd(ctx, answers.Index(layout.FieldIndex("state", "created")), redis.Z{Member: strings.Repeat("m", layout.MemberLength+1)}).Err()
}

func unpark(ctx context.Context, rdb redis.UniversalClient, answers layout.Keyspace) error {
	return rdb.HDel(ctx, answers.Parked(), logtest.ID(firstParked+1)).Err()
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
