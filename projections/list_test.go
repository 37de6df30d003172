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
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"chatsessions/domain"
)

// reference answers a query by looking at every session.
func reference(sessions map[string]domain.Session, q domain.Query) (page, all []domain.Session) {
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
	order := func(a, b domain.Place) int {
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

func place(s domain.Session) domain.Place { return domain.Place{CreatedAt: s.CreatedAt, ID: s.ID} }

// checkList compares a list with the reference.
func checkList(t interface{ Fatalf(string, ...any) }, m *ReadModel, sessions map[string]domain.Session, q domain.Query) domain.Page {
	got, err := m.List(context.Background(), q)
	if err != nil {
		t.Fatalf("%+v: %v", q, err)
	}
	want, all := reference(sessions, q)
	var next *domain.Place
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
		if string(got.Documents[i]) != jsonOf(s) {
			t.Fatalf("%+v: document %d is %s, want %s", q, i, got.Documents[i], jsonOf(s))
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
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		r := newRig(t, rdb, newFakeLog("log"))
		rapid.Check(t, func(rt *rapid.T) {
			r.log.append(histories(rt)...)
			mustRun(t, r.WaitFor(t.Context(), uint64(len(r.log.events)), time.Minute))
			sessions := r.log.newest()
			for range 10 {
				checkList(rt, r.ReadModel, sessions, query(rt))
			}
		})
	})
}

func query(rt *rapid.T) domain.Query {
	account := rapid.SampledFrom([]string{"alice", "bob", "carol", "dave of the\nsecond line", strings.Repeat("long", 32), "~tilde", "nobody"})
	values := map[string]*rapid.Generator[string]{
		"state": rapid.SampledFrom([]string{"created", "started", "finished", "no such"}),
		"room":  rapid.SampledFrom([]string{"r1", "r 2", "r3"}),
		"type":  rapid.Just(domain.TypeTelemed),
	}
	q := domain.Query{
		MinCreatedAt: rapid.SampledFrom([]int64{0, 0, 0, 1, 2, -1}).Draw(rt, "min"),
		MaxCreatedAt: rapid.SampledFrom([]int64{math.MaxInt64, math.MaxInt64, 3, 2, 0}).Draw(rt, "max"),
		Ascending:    rapid.Bool().Draw(rt, "ascending"),
		Skip:         rapid.SampledFrom([]int{0, 0, 0, 1, 3, 100}).Draw(rt, "skip"),
		Limit:        rapid.SampledFrom([]int{0, 1, 2, 50}).Draw(rt, "limit"),
		Count:        rapid.Bool().Draw(rt, "count"),
	}
	if rapid.Bool().Draw(rt, "as account") {
		q.VisibleTo = account.Draw(rt, "visible to")
	}
	for _, field := range rapid.SliceOfNDistinct(rapid.SampledFrom(domain.FilterFields()), 0, 2, rapid.ID).Draw(rt, "fields") {
		of, ok := values[field]
		if !ok {
			of = account
		}
		q.Filters = append(q.Filters, domain.Filter{Field: field, Values: rapid.SliceOfN(of, 0, 3).Draw(rt, field)})
	}
	if rapid.IntRange(0, 2).Draw(rt, "from a place") == 0 {
		q.After = &domain.Place{CreatedAt: rapid.Int64Range(0, 4).Draw(rt, "after"), ID: id(rapid.IntRange(0, 6).Draw(rt, "after id"))}
	}
	return q
}

func TestEveryFieldFilters(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		r := newRig(t, rdb, newFakeLog("log"))
		for n := range 300 {
			s := session(n, int64(n/7), by(fmt.Sprint("creator", n%3)), room(fmt.Sprint("room", n%5)),
				with(fmt.Sprint("one", n%4), fmt.Sprint("two", n%6)),
				in([]domain.State{domain.StateCreated, domain.StateRejected, domain.StateAccepted}[n%3]))
			if n%2 == 0 {
				s.Type = domain.TypeTelemed
			}
			for i, transition := range domain.Transitions() {
				if n%(i+2) == 0 {
					s.Stamps[transition] = &domain.Stamp{At: 9, By: fmt.Sprint("by", n%3)}
				}
			}
			r.log.append(s)
		}
		r.caughtUp()
		sessions := r.log.newest()
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
				q := domain.Everything(1000)
				q.Count = true
				q.Filters = []domain.Filter{{Field: field, Values: values}}
				checkList(t, r.ReadModel, sessions, q)
				q.Limit, q.Ascending, q.VisibleTo = 20, true, "one1"
				checkList(t, r.ReadModel, sessions, q)
			}
		}
	})
}

func TestAFilterOnAnUnknownFieldIsADefect(t *testing.T) {
	m := newReadModel(t, nil, newFakeLog("log"), ReadModelOptions{})
	q := domain.Everything(1)
	q.Filters = []domain.Filter{{Field: "rooom", Values: []string{"x"}}}
	if _, err := m.List(t.Context(), q); err == nil || errors.Is(err, domain.ErrUnavailable) || !strings.Contains(err.Error(), "rooom") {
		t.Fatalf("got %v", err)
	}
	q = domain.Everything(1)
	q.After = &domain.Place{ID: "x"}
	if _, err := m.List(t.Context(), q); err == nil || errors.Is(err, domain.ErrUnavailable) {
		t.Fatalf("got %v", err)
	}
}

// Thousands of sessions of one millisecond, read page by page while others
// change: every session that does not change is returned exactly once.
func TestPagingReturnsWhatDoesNotChangeExactlyOnce(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		const all, changing = 2500, 250
		r := newRig(t, rdb, newFakeLog("log"))
		var events []domain.Session
		for n := range all {
			events = append(events, session(n, 1000+int64(n/2000), with(fmt.Sprint("p", n%3), fmt.Sprint("q", n%2))))
		}
		r.log.append(events...)
		r.caughtUp()
		queries := map[string]domain.Query{
			"all":    domain.Everything(100),
			"reader": {MaxCreatedAt: math.MaxInt64, VisibleTo: "alice", Limit: 250},
			"merged": {MaxCreatedAt: math.MaxInt64, Limit: 170, Filters: []domain.Filter{{Field: "participants", Values: []string{"p0", "p1", "p2", "q0"}}}},
			"both":   {MaxCreatedAt: math.MaxInt64, Limit: 170, VisibleTo: "p1", Filters: []domain.Filter{{Field: "participants", Values: []string{"q0", "q1"}}}},
		}
		version := uint64(1)
		for name, q := range queries {
			for _, q.Ascending = range []bool{false, true} {
				seen := map[string]int{}
				for {
					page, err := r.List(t.Context(), q)
					mustRun(t, err)
					for _, d := range page.Documents {
						var s domain.Session
						mustRun(t, s.UnmarshalJSON(d))
						seen[s.ID]++
					}
					version++
					for range 20 { // some move, some vanish from the list, some return
						n := rand.IntN(changing)
						s := session(n, 1000+rand.Int64N(2), func(s *domain.Session) { s.Version = version })
						if rand.IntN(2) == 0 {
							s.Participants, s.CreatedBy = []string{"p1", "q1"}, "alice"
						} else {
							s.CreatedBy = "eve"
						}
						r.log.append(s)
					}
					if page.Next == nil {
						break
					}
					q.After = page.Next
				}
				sessions := r.log.newest()
				q.After = nil
				want, _ := reference(sessions, q)
				for _, s := range want {
					if s.ID >= id(changing) && seen[s.ID] != 1 {
						t.Fatalf("%s: %s was returned %d times", name, s.ID, seen[s.ID])
					}
				}
			}
		}
		r.caughtUp()
		sameKeys(t, dump(t, rdb), scratch(t, r.log))
	})
}

func TestDeepSkipsAreExact(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		r := newRig(t, rdb, newFakeLog("log"))
		for n := range 600 {
			r.log.append(session(n, int64(n/3)))
		}
		r.caughtUp()
		sessions := r.log.newest()
		for _, skip := range []int{1, 299, 590, 600, math.MaxInt} {
			for _, ascending := range []bool{false, true} {
				q := domain.Query{MaxCreatedAt: math.MaxInt64, Skip: skip, Limit: 20, Ascending: ascending, Count: true}
				checkList(t, r.ReadModel, sessions, q)
				q.MinCreatedAt, q.MaxCreatedAt = 40, 160
				checkList(t, r.ReadModel, sessions, q)
				q.After = &domain.Place{CreatedAt: 100, ID: id(301)}
				checkList(t, r.ReadModel, sessions, q)
				q.Filters = []domain.Filter{{Field: "state", Values: []string{"created", "started"}}}
				checkList(t, r.ReadModel, sessions, q)
			}
		}
	})
}

func TestALongPageIsReadInSlices(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		r := newRig(t, rdb, newFakeLog("log"))
		for n := range 1200 {
			s := session(n, 7, room(strings.Repeat("r", 200)))
			for i := range 10 {
				s.Participants = append(s.Participants, strings.Repeat(fmt.Sprint(i), 128)) // beyond the bytes of one slice
			}
			r.log.append(s)
		}
		r.caughtUp()
		q := domain.Everything(1000)
		checkList(t, r.ReadModel, r.log.newest(), q)
		q.Filters = []domain.Filter{{Field: "room", Values: []string{strings.Repeat("r", 200)}}}
		checkList(t, r.ReadModel, r.log.newest(), q)
	})
}

func TestAQueryThatLooksAtTooMuchIsRefused(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		const budget = 1000
		r := newRig(t, rdb, newFakeLog("log"))
		r.budget = budget
		var events []domain.Session
		for n := range 2*budget + 500 {
			s := session(n, int64(n), in(domain.StateFinished))
			if n%2 == 0 {
				s.Room = "even"
			} else {
				s.State = domain.StateCreated
			}
			events = append(events, s)
		}
		r.log.append(events...)
		r.caughtUp()
		both := []domain.Filter{{Field: "state", Values: []string{"created", "finished"}}, {Field: "createdBy", Values: []string{"alice", "bob"}}}
		q := domain.Everything(1)
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
		q.Count, q.Filters = false, []domain.Filter{{Field: "state", Values: []string{"created"}}, {Field: "room", Values: []string{"even"}}}
		if _, err := r.List(t.Context(), q); !errors.Is(err, domain.ErrTooExpensive) {
			t.Fatalf("got %v", err)
		}
		// With one that few sessions match, the rest is cheap.
		r.log.append(session(9999, 1, room("rare"), in(domain.StateFinished)))
		r.caughtUp()
		q.Filters = append(both, domain.Filter{Field: "room", Values: []string{"rare"}})
		checkList(t, r.ReadModel, r.log.newest(), q)
		q.Filters = both
		ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
		defer cancel()
		if _, err := r.List(ctx, q); !errors.Is(err, domain.ErrUnavailable) && !errors.Is(err, domain.ErrTooExpensive) {
			t.Fatalf("got %v", err)
		}
	})
}

// Two values whose index has the same name: what is found there is verified.
func TestAHashedNameProvesNothing(t *testing.T) {
	e, err := StartEmbedded("secret")
	mustRun(t, err)
	t.Cleanup(func() { mustRun(t, e.Close()) })
	r := newRig(t, e.Client(), newFakeLog("log"))
	stranger := strings.Repeat("s", 100)
	r.log.append(session(1, 1, by(stranger)))
	r.caughtUp()

	victim := strings.Repeat("v", 100)
	p, err := newPlan(domain.Query{MaxCreatedAt: math.MaxInt64, VisibleTo: victim, Limit: 1})
	mustRun(t, err)
	p.tests[0].indexes = readerIndexes(stranger) // as if the hashes were the same
	s := session(1, 1, by(stranger))
	written, err := newDocument(&domain.Recorded{Session: s})
	mustRun(t, err)
	d, err := decodeDocument(string(written.value))
	mustRun(t, err)
	if ok, err := p.matches(d); ok || err != nil {
		t.Fatalf("the session of a stranger is shown: %v", err)
	}
	q := domain.Query{MaxCreatedAt: math.MaxInt64, VisibleTo: stranger, Limit: 1}
	checkList(t, r.ReadModel, r.log.newest(), q)
}

func TestAnIndexEntryWithoutDocumentIsLeftOut(t *testing.T) {
	onEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		r := newRig(t, rdb, newFakeLog("log"))
		r.log.append(session(1, 1), session(2, 2), session(3, 3))
		r.caughtUp()
		mustRun(t, rdb.Del(t.Context(), r.serving().document(id(2))).Err())
		page, err := r.List(t.Context(), domain.Everything(10))
		if err != nil || len(page.Documents) != 2 || page.Next != nil {
			t.Fatalf("got %v, %v", page, err)
		}
		if !strings.Contains(r.output.String(), id(2)) {
			t.Fatalf("it was not said:\n%s", r.output.String())
		}
	})
}
