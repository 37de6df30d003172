package readmodel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"chatsessions/domain"
	"chatsessions/domain/query"
	"chatsessions/projections/layout"
	"chatsessions/projections/logtest"
	"chatsessions/projections/modeltest"
	"chatsessions/projections/projector"
	"chatsessions/projections/redistest"
)

const benchEpoch = 1_700_000_000_000 // the first session's createdAt

// selective is how many sessions of the benchmarks share a room.
const selective = 1000

// benchSession is the n-th of many sessions: of two types, in rooms of a thousand.
func benchSession(n, all int) domain.Session {
	s := logtest.Session(n, benchEpoch+int64(n)*10, logtest.In(domain.StateFinished), logtest.Version(4),
		logtest.By(fmt.Sprint("creator-", n%997)), logtest.Room(fmt.Sprint("room-", n%max(1, all/selective))),
		logtest.With(fmt.Sprint("patient-", n%9973), fmt.Sprint("doctor-", n%499)))
	if n/2%2 == 0 {
		s.Type = domain.TypeTelemed
	}
	if n%2 == 0 {
		s.State = domain.StateRejected
	}
	for _, t := range domain.Transitions()[:2] {
		s.Stamps[t] = &domain.Stamp{At: s.CreatedAt + 5, By: "desk"}
	}
	s.Stamps[n%2] = nil // each of the two is in every other session, and no session has both
	return s
}

// benchModel returns a read model over a redis-server that holds so many sessions.
func benchModel(b *testing.B, sessions int) (*ReadModel, redis.UniversalClient) {
	b.Helper()
	rdb := modeltest.Connect(b, redistest.Start(b, redistest.Config{}))
	log := logtest.New("log")
	log.Append(logtest.Session(0, 0))
	fillMany(b, rdb, sessions)
	m := newReadModel(b, rdb, log, Options{})
	logtest.Start(b, m.Run)
	logtest.MustRun(b, m.CaughtUp(b.Context()))
	return m, rdb
}

func fillMany(b *testing.B, rdb redis.UniversalClient, sessions int) {
	b.Helper()
	const some = 2000
	for n := 0; n < sessions; n += some {
		var part []domain.Session
		for i := range some {
			part = append(part, benchSession(n+i, sessions))
		}
		fill(b, rdb, layout.Partitions(1)[0].Keys("g"), part...)
	}
}

// A benchList is a kind of list; a dear one has to look at much.
type benchList struct {
	name string
	q    query.Query
	dear bool
}

// benchLists are lists over so many of the benchmarks' sessions.
func benchLists(sessions int) []benchList {
	by := func(limit int, filters ...query.Filter) query.Query {
		q := query.Everything(limit)
		q.Filters = filters
		return q
	}
	is := func(field string, values ...string) query.Filter { return query.Filter{Field: field, Values: values} }
	counted := func(q query.Query) query.Query { q.Count = true; return q }
	skipped := func(n int, q query.Query) query.Query { q.Skip = n; return q }
	seen := func(q query.Query) query.Query { q.VisibleTo = "doctor-7"; return q }
	page := func(n int, q query.Query) query.Query { // the n-th, by cursor
		at := sessions - (n-1)*q.Limit
		q.After = &query.Place{CreatedAt: benchEpoch + int64(at)*10, ID: logtest.ID(at)}
		return q
	}
	half, other := is("state", "rejected"), is("type", "telemed")
	return []benchList{
		{"newest 50", by(50), false},
		{"newest 50, page 2", page(2, by(50)), false},
		{"newest 50, last page but one", page(sessions/50-1, by(50)), false},
		{"newest 50, $skip of nine tenths", skipped(sessions*9/10, by(50)), true},
		{"newest 1000", by(1000), true},
		{"newest 50 of two states", by(50, is("state", "finished", "rejected")), false},
		{"one room", by(50, is("room", "room-4")), false},
		{"one room, by state", by(50, half, is("room", "room-4")), false},
		{"one room, by state, counted", counted(by(50, half, is("room", "room-4"))), false},
		{"one room, by another state: none", by(50, half, is("room", "room-5")), false},
		{"an account's", seen(by(50)), false},
		{"an account's, by state", seen(by(50, half)), false},
		{"an account's few", func() query.Query { q := by(50, is("room", "room-4")); q.VisibleTo = "patient-4"; return q }(), false},
		{"two unselective filters", by(50, half, other), false},
		{"two unselective filters, $skip=5000", skipped(5000, by(50, half, other)), true},
		{"two unselective filters, counted", counted(by(50, half, other)), true},
		{"two unselective filters: none", by(50, is("startedBy", "desk"), is("acceptedBy", "desk")), true},
	}
}

// BenchmarkList reports for each kind of list what it costs: trips to Redis,
// processor time of Redis, keys that it looks up, and kilobytes that it sends.
func BenchmarkList(b *testing.B) {
	const sessions = 100_000
	m, rdb := benchModel(b, sessions)
	trips := new(tripCounter)
	rdb.AddHook(trips)
	for _, c := range benchLists(sessions) {
		b.Run(c.name, func(b *testing.B) {
			before, tripsBefore, refused := statistics(b, rdb), trips.trips.Load(), 0
			b.ResetTimer()
			for b.Loop() {
				_, err := m.List(b.Context(), c.q)
				if errors.Is(err, domain.ErrTooExpensive) {
					refused++
				} else if err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			n := float64(b.N)
			b.ReportMetric(float64(trips.trips.Load()-tripsBefore)/n, "trips/op")
			after := statistics(b, rdb)
			b.ReportMetric((after.work-before.work)/n, "redis-µs/op")
			b.ReportMetric((after.bytes-before.bytes)/1000/n, "KB/op")
			b.ReportMetric((after.keys-before.keys)/n, "keys/op")
			if refused > 0 {
				b.ReportMetric(float64(refused)/n, "refused/op")
			}
		})
	}
}

// BenchmarkListBySize is one list with a selective filter over few and over many
// sessions.
func BenchmarkListBySize(b *testing.B) {
	for _, sessions := range []int{10_000, 1_000_000} {
		b.Run(strconv.Itoa(sessions), func(b *testing.B) {
			m, _ := benchModel(b, sessions)
			for name, rooms := range map[string]int{"half of them": 0, "none of them": 1} {
				b.Run(name, func(b *testing.B) {
					n := 0
					for b.Loop() {
						n++
						q := query.Query{MaxCreatedAt: math.MaxInt64, Limit: 50, Filters: []query.Filter{
							{Field: "state", Values: []string{"rejected"}},
							{Field: "room", Values: []string{fmt.Sprint("room-", (2*n+rooms)%(sessions/selective))}},
						}}
						if _, err := m.List(b.Context(), q); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		})
	}
}

type usage struct{ work, bytes, keys float64 }

// statistics returns what a server has done so far: microseconds of processor time,
// bytes sent, and keys looked up.
func statistics(b *testing.B, rdb redis.UniversalClient) (u usage) {
	b.Helper()
	text, err := rdb.Info(b.Context(), "everything").Result()
	logtest.MustRun(b, err)
	number := func(after string) float64 {
		_, rest, ok := strings.Cut(text, after)
		if !ok {
			return 0
		}
		rest = rest[:strings.IndexAny(rest, ",\r\n")]
		f, err := strconv.ParseFloat(rest, 64)
		logtest.MustRun(b, err)
		return f
	}
	u.work = 1e6 * (number("used_cpu_sys:") + number("used_cpu_user:"))
	u.bytes, u.keys = number("total_net_output_bytes:"), number("keyspace_hits:")
	return u
}

// BenchmarkWritesBesideLists reports how many writes are answered while two clients
// run lists all the time, as a share of how many are without; and how many lists are.
// 64 writers wait for their writes to be projected, as those who answer a PATCH do.
func BenchmarkWritesBesideLists(b *testing.B) {
	const sessions, writers, clients = 100_000, 64, 2
	const rounds, round = 4, 500 * time.Millisecond
	var flying atomic.Int64
	rdb := modeltest.Connect(b, redistest.Start(b, redistest.Config{}))
	log := logtest.New("log")
	log.Append(benchSession(0, sessions))
	fillMany(b, rdb, sessions)
	m := newReadModel(b, rdb, log, Options{Writes: func() int { return int(flying.Load()) }})
	logtest.Start(b, m.Run)
	p := projector.New(rdb, log, projector.Options{Logger: slog.New(slog.DiscardHandler), Notify: m.Projected})
	logtest.Start(b, p.Run)
	logtest.MustRun(b, m.CaughtUp(b.Context()))

	writes := func(during time.Duration) float64 {
		var n atomic.Int64
		var running sync.WaitGroup
		began := time.Now()
		for range writers {
			running.Go(func() {
				for time.Since(began) < during {
					flying.Add(1)
					s := benchSession(rand.IntN(sessions), sessions)
					s.Version += 2
					s.UpdatedAt = time.Now().UnixMilli()
					mustWait(b, m, log.Append(s))
					flying.Add(-1)
					n.Add(1)
				}
			})
		}
		running.Wait()
		return float64(n.Load()) / time.Since(began).Seconds()
	}
	for _, c := range benchLists(sessions) {
		if !c.dear {
			continue
		}
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				var alone, beside float64
				var answered, refused atomic.Int64
				for range rounds {
					alone += writes(round)
					ctx, stop := context.WithCancel(b.Context())
					var running sync.WaitGroup
					for range clients {
						running.Go(func() {
							for ctx.Err() == nil {
								switch _, err := m.List(ctx, c.q); {
								case err == nil:
									answered.Add(1)
								case errors.Is(err, domain.ErrTooExpensive):
									refused.Add(1)
								case ctx.Err() == nil:
									b.Error(err)
								}
							}
						})
					}
					beside += writes(round)
					stop()
					running.Wait()
				}
				seconds := rounds * round.Seconds()
				b.ReportMetric(beside/alone, "writes-ratio")
				b.ReportMetric(alone/rounds, "writes/s")
				b.ReportMetric(float64(answered.Load())/seconds, "lists/s")
				b.ReportMetric(float64(refused.Load())/seconds, "refused/s")
			}
		})
	}
}
