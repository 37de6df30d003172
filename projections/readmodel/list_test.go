package readmodel

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
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"chatsessions/domain"
	"chatsessions/domain/query"
	"chatsessions/projections/embeddedredis"
	"chatsessions/projections/layout"
	"chatsessions/projections/logtest"
	"chatsessions/projections/modeltest"
)

// reference answers a query by looking at every session.
func reference(sessions map[string]domain.Session, q query.Query) (page, all []domain.Session) {
	for s := range maps.Values(sessions) {
		if s.CreatedAt < q.MinCreatedAt || s.CreatedAt > q.MaxCreatedAt {
			continue
		}
		if q.VisibleTo != "" && !(domain.Caller{Account: q.VisibleTo, Role: domain.RoleAccount}).MaySee(&s) {
			continue
		}
		matches := true
		for _, f := range q.Filters {
			matches = matches && slices.ContainsFunc(s.FilterValues(f.Field), func(v string) bool { return slices.Contains(f.Values, v) })
		}
		if matches {
			all = append(all, s)
		}
	}
	order := func(a, b query.Place) int {
		c := strings.Compare(fmt.Sprintf("%020d%s", a.CreatedAt, a.ID), fmt.Sprintf("%020d%s", b.CreatedAt, b.ID))
		if q.Ascending {
			return c
		}
		return -c
	}
	slices.SortFunc(all, func(a, b domain.Session) int { return order(place(a), place(b)) })
	for _, s := range all {
		if q.After == nil || order(place(s), *q.After) > 0 {
			page = append(page, s)
		}
	}
	page = page[min(q.Skip, len(page)):]
	return page, all
}

func place(s domain.Session) query.Place { return query.Place{CreatedAt: s.CreatedAt, ID: s.ID} }

type lister interface {
	List(ctx context.Context, q query.Query) (query.Page, error)
}

// checkList compares a list with the reference.
func checkList(t interface{ Fatalf(string, ...any) }, m lister, sessions map[string]domain.Session, q query.Query) query.Page {
	got, err := m.List(context.Background(), q)
	if err != nil {
		t.Fatalf("%+v: %v", q, err)
	}
	want, all := reference(sessions, q)
	var next *query.Place
	if len(want) > q.Limit {
		if want = want[:q.Limit]; q.Limit > 0 {
			p := place(want[q.Limit-1])
			next = &p
		}
	}
	if len(got.Documents) != len(want) {
		t.Fatalf("%+v: %d documents, want %d", q, len(got.Documents), len(want))
	}
	for i, s := range want {
		if got.Documents[i] != logtest.JSON(s) {
			t.Fatalf("%+v: document %d is %s, want %s", q, i, got.Documents[i], logtest.JSON(s))
		}
	}
	if (got.Next == nil) != (next == nil) || next != nil && *got.Next != *next {
		t.Fatalf("%+v: next is %v, want %v", q, got.Next, next)
	}
	if q.Count && (got.Total == nil || *got.Total != int64(len(all))) {
		t.Fatalf("%+v: total is %v, want %d", q, got.Total, len(all))
	}
	if !q.Count && got.Total != nil {
		t.Fatalf("%+v: counted without being asked to", q)
	}
	return got
}

// Every query over every set of sessions is answered as by looking at all.
func TestListsAreWhatLookingAtEverySessionWouldGive(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		r := newRig(t, rdb, logtest.New("log"))
		rapid.Check(t, func(rt *rapid.T) {
			r.log.Append(logtest.Histories(rt)...)
			logtest.MustRun(t, r.WaitFor(t.Context(), uint64(len(r.log.Events)), time.Minute))
			sessions := r.log.Sessions()
			for range 10 {
				checkList(rt, r.ReadModel, sessions, drawQuery(rt, 4))
			}
		})
	})
}

// The same with so many sessions that they are found slice by slice, and in one
// partition as in several.
func TestPartitionsAreListedAsOneReadModel(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		for _, partitions := range []int{1, 3} {
			t.Run(fmt.Sprint("partitions=", partitions), func(t *testing.T) {
				rapid.Check(t, func(rt *rapid.T) {
					n := rapid.SampledFrom([]int{1, 20, 300}).Draw(rt, "sessions")
					sessions := randomSessions(rapid.Uint64().Draw(rt, "seed"), n)
					l := newPartitioned(t, rdb, partitions, sessions)
					for range 20 {
						q := drawQuery(rt, n/4+1)
						page := checkList(rt, l, sessions, q)
						for q.Skip = 0; page.Next != nil && q.Limit >= n/20; { // to the last page
							q.After = page.Next
							page = checkList(rt, l, sessions, q)
						}
					}
				})
			})
		}
	})
}

// A partitioned read model is one whose partitions are there as fill wrote them.
type partitioned struct{ *ReadModel }

func newPartitioned(t testing.TB, rdb redis.UniversalClient, partitions int, sessions map[string]domain.Session) partitioned {
	t.Helper()
	modeltest.Empty(t, rdb)
	parts := make([][]domain.Session, partitions)
	for id, s := range sessions {
		partition := layout.PartitionNumber(id, partitions)
		parts[partition] = append(parts[partition], s)
	}
	for i, part := range parts {
		fill(t, rdb, layout.Partitions(partitions)[i].Keys("g"), part...)
	}
	return partitioned{newReadModel(t, rdb, logtest.New("log"), Options{Partitions: partitions})}
}

func (p partitioned) List(ctx context.Context, q query.Query) (query.Page, error) {
	plan, err := newPlan(q)
	if err != nil {
		return query.Page{}, err
	}
	var views []*view
	for _, part := range p.partitions {
		views = append(views, &view{part.Keys("g"), ticket{identity: "log", generation: "g"}})
	}
	return p.list(ctx, plan, views)
}

// fill writes sessions into a partition, as of position 1 of the log "log".
func fill(t testing.TB, rdb redis.UniversalClient, keys layout.Keyspace, sessions ...domain.Session) {
	t.Helper()
	ctx := context.Background()
	trip := rdb.Pipeline()
	trip.Set(ctx, keys.Partition.Checkpoint(), layout.Checkpoint{Identity: "log", Position: 1, Generation: keys.Generation, State: layout.Projected}.String(), 0)
	indexes := map[string][]redis.Z{}
	for _, s := range sessions {
		d, err := layout.NewDocument(&domain.Entry{Record: &domain.Record{Event: domain.Event{Session: s}, Position: 1}})
		logtest.MustRun(t, err)
		trip.Set(ctx, keys.Document(d.ID), d.Value, 0)
		for name := range d.Entries.Indexes() {
			indexes[name] = append(indexes[name], redis.Z{Member: d.Entries.Member})
		}
	}
	for name, members := range indexes {
		trip.ZAdd(ctx, keys.Index(name), members...)
	}
	_, err := trip.Exec(ctx)
	logtest.MustRun(t, err)
}

// Values that sessions and queries are made of; many of them go into the name of an
// index as a hash.
var (
	someAccounts = []string{"alice", "bob", "carol", "dave of the\nsecond line", strings.Repeat("long", 32), "~tilde", "ünïcode"}
	someRooms    = []string{"r1", "r 2", strings.Repeat("r", 200), "r3"}
	someStates   = []string{"created", "started", "finished"}
)

// randomSessions are n sessions, about four of them at a time.
func randomSessions(seed uint64, n int) map[string]domain.Session {
	r := rand.New(rand.NewPCG(seed, 0))
	one := func(of []string) string { return of[r.IntN(len(of))] }
	sessions := map[string]domain.Session{}
	for _, i := range r.Perm(n) {
		s := logtest.Session(i, r.Int64N(int64(n/4+1)), logtest.By(one(someAccounts)), logtest.Room(one(someRooms)), logtest.In(domain.State(one(someStates))))
		if r.IntN(2) == 0 {
			s.Type = domain.TypeTelemed
		}
		for _, at := range r.Perm(len(someAccounts))[:r.IntN(4)] {
			s.Participants = append(s.Participants, someAccounts[at])
		}
		for _, transition := range domain.Transitions() {
			if r.IntN(2) == 0 {
				s.Stamps[transition] = &domain.Stamp{At: 9, By: one(someAccounts)}
			}
		}
		sessions[s.ID] = s
	}
	return sessions
}

// drawQuery draws a query for sessions that were created before a time.
func drawQuery(rt *rapid.T, before int) query.Query {
	account := rapid.SampledFrom(append([]string{"nobody"}, someAccounts...))
	values := map[string]*rapid.Generator[string]{
		"state": rapid.SampledFrom(append([]string{"no such"}, someStates...)),
		"room":  rapid.SampledFrom(append([]string{"no such"}, someRooms...)),
		"type":  rapid.Just(domain.TypeTelemed),
	}
	at := rapid.Int64Range(0, int64(before))
	q := query.Query{
		MinCreatedAt: rapid.OneOf(rapid.Just(int64(0)), rapid.Just(int64(-1)), at).Draw(rt, "min"),
		MaxCreatedAt: rapid.OneOf(rapid.Just(int64(math.MaxInt64)), at).Draw(rt, "max"),
		Ascending:    rapid.Bool().Draw(rt, "ascending"),
		Skip:         rapid.SampledFrom([]int{0, 0, 0, 1, 3, 20, 100}).Draw(rt, "skip"),
		Limit:        rapid.SampledFrom([]int{0, 1, 2, 15, 50, 200}).Draw(rt, "limit"),
		Count:        rapid.Bool().Draw(rt, "count"),
	}
	if rapid.Bool().Draw(rt, "as account") {
		q.VisibleTo = account.Draw(rt, "visible to")
	}
	for _, field := range rapid.SliceOfNDistinct(rapid.SampledFrom(domain.FilterFields()), 0, 3, rapid.ID).Draw(rt, "fields") {
		of, ok := values[field]
		if !ok {
			of = account
		}
		q.Filters = append(q.Filters, query.Filter{Field: field, Values: rapid.SliceOfN(of, 0, 4).Draw(rt, field)})
	}
	if rapid.IntRange(0, 2).Draw(rt, "from a place") == 0 {
		q.After = &query.Place{CreatedAt: at.Draw(rt, "after"), ID: logtest.ID(rapid.IntRange(0, 4*before).Draw(rt, "after id"))}
	}
	return q
}

func TestEveryFieldFilters(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		r := newRig(t, rdb, logtest.New("log"))
		for n := range 300 {
			s := logtest.Session(n, int64(n/7), logtest.By(fmt.Sprint("creator", n%3)), logtest.Room(fmt.Sprint("room", n%5)),
				logtest.With(fmt.Sprint("one", n%4), fmt.Sprint("two", n%6)),
				logtest.In([]domain.State{domain.StateCreated, domain.StateRejected, domain.StateAccepted}[n%3]))
			if n%2 == 0 {
				s.Type = domain.TypeTelemed
			}
			for i, transition := range domain.Transitions() {
				if n%(i+2) == 0 {
					s.Stamps[transition] = &domain.Stamp{At: 9, By: fmt.Sprint("by", n%3)}
				}
			}
			r.log.Append(s)
		}
		r.caughtUp()
		sessions := r.log.Sessions()
		for _, field := range domain.FilterFields() {
			values := []string{"absent"}
			for s := range maps.Values(sessions) {
				values = append(values, s.FilterValues(field)...)
			}
			slices.Sort(values)
			values = slices.Compact(values)
			if len(values) < 2 {
				t.Fatalf("no session has a %s", field)
			}
			queries := [][]string{values, values[:2], nil}
			for _, v := range values {
				queries = append(queries, []string{v})
			}
			for _, values := range queries {
				q := query.Everything(1000)
				q.Count = true
				q.Filters = []query.Filter{{Field: field, Values: values}}
				checkList(t, r.ReadModel, sessions, q)
				q.Limit, q.Ascending, q.VisibleTo = 20, true, "one1"
				checkList(t, r.ReadModel, sessions, q)
			}
		}
	})
}

func TestAFilterOnAnUnknownFieldIsADefect(t *testing.T) {
	m := newReadModel(t, nil, logtest.New("log"), Options{})
	q := query.Everything(1)
	q.Filters = []query.Filter{{Field: "rooom", Values: []string{"x"}}}
	if _, err := m.List(t.Context(), q); err == nil || errors.Is(err, domain.ErrUnavailable) || !strings.Contains(err.Error(), "rooom") {
		t.Fatalf("got %v", err)
	}
	q = query.Everything(1)
	q.After = &query.Place{ID: "x"}
	if _, err := m.List(t.Context(), q); err == nil || errors.Is(err, domain.ErrUnavailable) {
		t.Fatalf("got %v", err)
	}
}

// Thousands of sessions of one millisecond, read page by page while others
// change: every session that does not change is returned exactly once.
func TestPagingReturnsWhatDoesNotChangeExactlyOnce(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		const all, changing = 2500, 250
		r := newRig(t, rdb, logtest.New("log"))
		var events []domain.Session
		for n := range all {
			events = append(events, logtest.Session(n, 1000+int64(n/2000), logtest.With(fmt.Sprint("p", n%3), fmt.Sprint("q", n%2))))
		}
		r.log.Append(events...)
		r.caughtUp()
		queries := map[string]query.Query{
			"all":    query.Everything(100),
			"reader": {MaxCreatedAt: math.MaxInt64, VisibleTo: "alice", Limit: 250},
			"merged": {MaxCreatedAt: math.MaxInt64, Limit: 170, Filters: []query.Filter{{Field: "participants", Values: []string{"p0", "p1", "p2", "q0"}}}},
			"both":   {MaxCreatedAt: math.MaxInt64, Limit: 170, VisibleTo: "p1", Filters: []query.Filter{{Field: "participants", Values: []string{"q0", "q1"}}}},
		}
		version := uint64(1)
		for name, q := range queries {
			for _, q.Ascending = range []bool{false, true} {
				seen := map[string]int{}
				for {
					page, err := r.List(t.Context(), q)
					logtest.MustRun(t, err)
					for _, d := range page.Documents {
						var s domain.Session
						logtest.MustRun(t, s.UnmarshalJSON([]byte(d)))
						seen[s.ID]++
					}
					version++
					for range 20 { // some move, some vanish from the list, some return
						n := rand.IntN(changing)
						s := logtest.Session(n, 1000+rand.Int64N(2), func(s *domain.Session) { s.Version = version })
						if rand.IntN(2) == 0 {
							s.Participants, s.CreatedBy = []string{"p1", "q1"}, "alice"
						} else {
							s.CreatedBy = "eve"
						}
						r.log.Append(s)
					}
					if page.Next == nil {
						break
					}
					q.After = page.Next
				}
				sessions := r.log.Sessions()
				q.After = nil
				want, _ := reference(sessions, q)
				for _, s := range want {
					if s.ID >= logtest.ID(changing) && seen[s.ID] != 1 {
						t.Fatalf("%s: %s was returned %d times", name, s.ID, seen[s.ID])
					}
				}
			}
		}
		r.caughtUp()
		modeltest.SameKeys(t, modeltest.Dump(t, rdb), scratch(t, r.log))
	})
}

func TestDeepSkipsAreExact(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		r := newRig(t, rdb, logtest.New("log"))
		for n := range 600 {
			r.log.Append(logtest.Session(n, int64(n/3)))
		}
		r.caughtUp()
		sessions := r.log.Sessions()
		for _, skip := range []int{1, 299, 590, 600, math.MaxInt} {
			for _, ascending := range []bool{false, true} {
				q := query.Query{MaxCreatedAt: math.MaxInt64, Skip: skip, Limit: 20, Ascending: ascending, Count: true}
				checkList(t, r.ReadModel, sessions, q)
				q.MinCreatedAt, q.MaxCreatedAt = 40, 160
				checkList(t, r.ReadModel, sessions, q)
				q.After = &query.Place{CreatedAt: 100, ID: logtest.ID(301)}
				checkList(t, r.ReadModel, sessions, q)
				q.Filters = []query.Filter{{Field: "state", Values: []string{"created", "started"}}}
				checkList(t, r.ReadModel, sessions, q)
			}
		}
	})
}

func TestALongPageIsReadInSlices(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		r := newRig(t, rdb, logtest.New("log"))
		for n := range 1200 {
			s := logtest.Session(n, 7, logtest.Room(strings.Repeat("r", 200)))
			for i := range 10 {
				s.Participants = append(s.Participants, strings.Repeat(fmt.Sprint(i), 128)) // beyond the bytes of one slice
			}
			r.log.Append(s)
		}
		r.caughtUp()
		q := query.Everything(1000)
		checkList(t, r.ReadModel, r.log.Sessions(), q)
		q.Filters = []query.Filter{{Field: "room", Values: []string{strings.Repeat("r", 200)}}}
		checkList(t, r.ReadModel, r.log.Sessions(), q)
	})
}

func TestAQueryThatLooksAtTooMuchIsRefused(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		const budget = 1000
		r := newRig(t, rdb, logtest.New("log"))
		r.budget = budget
		var events []domain.Session
		for n := range 2*budget + 500 {
			s := logtest.Session(n, int64(n), logtest.In(domain.StateFinished))
			if n%2 == 0 {
				s.Room = "even"
			} else {
				s.State = domain.StateCreated
			}
			events = append(events, s)
		}
		r.log.Append(events...)
		r.caughtUp()
		both := []query.Filter{{Field: "state", Values: []string{"created", "finished"}}, {Field: "createdBy", Values: []string{"alice", "bob"}}}
		q := query.Everything(1)
		q.Filters, q.Skip = both, budget+400
		if _, err := r.List(t.Context(), q); !errors.Is(err, domain.ErrTooExpensive) {
			t.Fatalf("got %v", err)
		}
		q.Skip, q.Count = 0, true // the page is cheap, only counting is not
		page, err := r.List(t.Context(), q)
		if err != nil || page.Total != nil || len(page.Documents) != 1 {
			t.Fatalf("got %v, %v", page.Total, err)
		}
		// No session is both, and each is half of all.
		q.Count, q.Filters = false, []query.Filter{{Field: "state", Values: []string{"created"}}, {Field: "room", Values: []string{"even"}}}
		if _, err := r.List(t.Context(), q); !errors.Is(err, domain.ErrTooExpensive) {
			t.Fatalf("got %v", err)
		}
		// With one that few sessions match, the rest is cheap.
		r.log.Append(logtest.Session(9999, 1, logtest.Room("rare"), logtest.In(domain.StateFinished)))
		r.caughtUp()
		q.Filters = append(both, query.Filter{Field: "room", Values: []string{"rare"}})
		checkList(t, r.ReadModel, r.log.Sessions(), q)
		q.Filters = both
		ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
		defer cancel()
		if _, err := r.List(ctx, q); !errors.Is(err, domain.ErrUnavailable) && !errors.Is(err, domain.ErrBusy) {
			t.Fatalf("got %v", err)
		}
	})
}

// Two values whose index has the same name: what is found there is verified.
func TestAHashedNameProvesNothing(t *testing.T) {
	e, err := embeddedredis.Start("secret")
	logtest.MustRun(t, err)
	t.Cleanup(func() { logtest.MustRun(t, e.Close()) })
	r := newRig(t, e.Client(), logtest.New("log"))
	stranger := strings.Repeat("s", 100)
	r.log.Append(logtest.Session(1, 1, logtest.By(stranger)))
	r.caughtUp()

	victim := strings.Repeat("v", 100)
	p, err := newPlan(query.Query{MaxCreatedAt: math.MaxInt64, VisibleTo: victim, Limit: 1})
	logtest.MustRun(t, err)
	p.tests[0].indexes = layout.ViewerIndexes(stranger) // as if the hashes were the same
	s := logtest.Session(1, 1, logtest.By(stranger))
	written, err := layout.NewDocument(&domain.Entry{Record: &domain.Record{Event: domain.Event{Session: s}}})
	logtest.MustRun(t, err)
	d, err := layout.DecodeDocument(string(written.Value))
	logtest.MustRun(t, err)
	if ok, err := p.matches(d); ok || err != nil {
		t.Fatalf("the session of a stranger is shown: %v", err)
	}
	q := query.Query{MaxCreatedAt: math.MaxInt64, VisibleTo: stranger, Limit: 1}
	checkList(t, r.ReadModel, r.log.Sessions(), q)
}

func TestAnIndexEntryWithoutDocumentIsLeftOut(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		r := newRig(t, rdb, logtest.New("log"))
		r.log.Append(logtest.Session(1, 1), logtest.Session(2, 2), logtest.Session(3, 3))
		r.caughtUp()
		logtest.MustRun(t, rdb.Del(t.Context(), r.liveKeys().Document(logtest.ID(2))).Err())
		page, err := r.List(t.Context(), query.Everything(10))
		if err != nil || len(page.Documents) != 2 || page.Next != nil {
			t.Fatalf("got %v, %v", page, err)
		}
		if !strings.Contains(r.output.String(), logtest.ID(2)) {
			t.Fatalf("it was not said:\n%s", r.output.String())
		}
	})
}

// What one index names and another does not is left out before documents are read,
// and what a page shows takes two trips, or one.
func TestOnlyTheDocumentsOfThePageAreRead(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		r := newRig(t, rdb, logtest.New("log"))
		for n := range 1000 {
			s := logtest.Session(n, int64(n), logtest.Room(fmt.Sprint("room", n%2)), logtest.With(fmt.Sprint("third", n%3), fmt.Sprint("ninth", n%9)))
			if n%100 == 0 {
				s.Type = domain.TypeTelemed
			}
			r.log.Append(s)
		}
		r.caughtUp()
		sessions := r.log.Sessions()
		trips := new(tripCounter)
		rdb.AddHook(trips)
		is := func(field string, values ...string) query.Filter { return query.Filter{Field: field, Values: values} }
		for name, c := range map[string]struct {
			filters          []query.Filter
			trips, documents int64
		}{
			"all":                        {nil, 2, 20},
			"one filter":                 {[]query.Filter{is("room", "room0")}, 2, 20},
			"two filters":                {[]query.Filter{is("room", "room0"), is("participants", "third0")}, 2, 20},
			"two filters of some values": {[]query.Filter{is("room", "room0", "room1"), is("participants", "third0", "third1")}, 2, 20},
			"few sessions":               {[]query.Filter{is("room", "room0"), is("type", "telemed"), is("participants", "third0")}, 1, 0}, // 4 came with their members
			"no session":                 {[]query.Filter{is("room", "room1"), is("type", "telemed")}, 1, 0},
		} {
			q := query.Everything(20)
			q.Filters = c.filters
			// On a machine that is very busy, a look at the log comes late, and a list
			// begins anew.
			logtest.Eventually(t, fmt.Sprintf("%s takes %d trips, and %d documents with MGET", name, c.trips, c.documents), func() bool {
				trips.reset()
				checkList(t, r.ReadModel, sessions, q)
				return trips.trips.Load() == c.trips && trips.documents.Load() == c.documents
			})
		}
	})
}

// A URL has room for some hundred values.
func TestAFilterCanHaveHundredsOfValues(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		r := newRig(t, rdb, logtest.New("log"))
		var rooms, accounts []string
		for n := range 500 {
			rooms, accounts = append(rooms, fmt.Sprint("room", n)), append(accounts, fmt.Sprint("account", n))
		}
		for n := range 1000 {
			r.log.Append(logtest.Session(n, int64(n/100), logtest.Room(rooms[n*n%500]), logtest.With(accounts[n%250*2], accounts[n*7%250*2+1])))
		}
		r.caughtUp()
		for _, ascending := range []bool{false, true} {
			q := query.Query{MaxCreatedAt: math.MaxInt64, Limit: 20, Ascending: ascending,
				Filters: []query.Filter{{Field: "participants", Values: accounts[:300]}}}
			checkList(t, r.ReadModel, r.log.Sessions(), q)
			q.Filters = append(q.Filters, query.Filter{Field: "room", Values: rooms[:300]})
			checkList(t, r.ReadModel, r.log.Sessions(), q)
		}
	})
}

func TestALongListWaitsForItsTurnAndAShortOneDoesNot(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		r := newRig(t, rdb, logtest.New("log"))
		for n := range 3 * maxDocuments {
			r.log.Append(logtest.Session(n, int64(n), logtest.Room(fmt.Sprint("room", n%3))))
		}
		r.caughtUp()
		leave, err := acquire(t.Context(), r.pacer.turn)
		logtest.MustRun(t, err)
		in := func(limit int, rooms ...string) query.Query {
			q := query.Everything(limit)
			q.Filters = []query.Filter{{Field: "room", Values: rooms}, {Field: "state", Values: []string{"created"}}}
			return q
		}
		skipping := query.Everything(1)
		skipping.Skip = freeSkip + 1
		var asked sync.WaitGroup
		for name, c := range map[string]struct {
			q    query.Query
			free bool
		}{
			"a page":                    {query.Everything(maxDocuments), true},
			"of what is filtered":       {in(50, "room1"), true},
			"a long page with little":   {in(1000, "room1"), true},
			"a long page":               {query.Everything(1000), false},
			"what is filtered and long": {in(1000, "room1", "room2"), false},
			"a long way to skip":        {skipping, false},
		} {
			asked.Go(func() { // who waits for the turn in vain is refused after maxListTime
				_, err := r.List(t.Context(), c.q)
				if c.free && err != nil || !c.free && !errors.Is(err, domain.ErrTooExpensive) {
					t.Errorf("%s: got %v", name, err)
				}
			})
		}
		asked.Wait()
		counting := in(50, "room1")
		counting.Count = true
		page, err := r.List(t.Context(), counting)
		if err != nil || len(page.Documents) != 50 || page.Total != nil {
			t.Errorf("with a count: %d documents, %v, %v", len(page.Documents), page.Total, err)
		}
		leave()
		checkList(t, r.ReadModel, r.log.Sessions(), counting)
		checkList(t, r.ReadModel, r.log.Sessions(), query.Everything(1000))
	})
}

// A tripCounter counts what a client asks of Redis.
type tripCounter struct{ trips, documents atomic.Int64 } // documents are those of MGET

func (c *tripCounter) reset() { c.trips.Store(0); c.documents.Store(0) }

func (c *tripCounter) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c *tripCounter) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		switch cmd.Name() {
		case "mget":
			c.documents.Add(int64(len(cmd.Args()) - 2)) // without the name and the checkpoint
			c.trips.Add(1)
		case "evalsha":
			c.trips.Add(1)
		}
		return next(ctx, cmd)
	}
}

func (c *tripCounter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
