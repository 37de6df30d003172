package contract

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"chatsessions/cmd/systemtest/rig"
)

var nextLink = regexp.MustCompile(`^<([^>]*)>; rel="next"$`)

// next returns the path of the next page; "" after the last one.
func next(t *testing.T, a rig.Answer) string {
	t.Helper()
	link := a.Header.Get("Link")
	if link == "" {
		return ""
	}
	target := nextLink.FindStringSubmatch(link)
	if target == nil {
		t.Fatalf("Link is %q, want <…>; rel=\"next\"", link)
	}
	if len(link) > 512 {
		t.Errorf("a Link of %d bytes is not short: %s", len(link), link)
	}
	u, err := url.Parse(target[1])
	if err != nil {
		t.Fatalf("Link %q: %v", link, err)
	}
	return u.RequestURI() // it may be relative or not (RFC 8288, section 3.1)
}

// TestPagingShowsEveryUnchangedSessionOnce, in both directions, while others
// come, change, move and go.
func TestPagingShowsEveryUnchangedSessionOnce(t *testing.T) {
	rig.OnAllSetups(t, func(t *testing.T, s *rig.Service) {
		crm := s.As("service-crm")
		for _, tt := range []struct{ name, query, reader string }{
			{"newest first", "?$limit=3", "account-%s"},
			{"oldest first", "?$limit=3&$sort[createdAt]=1", "account-%s"},
			{"a filter", "?$limit=3&state=created", "account-%s"},
			{"several filters, oldest first", "?$limit=2&createdBy=%[1]s&state[$in][]=created&state[$in][]=started&$sort[createdAt]=1", "service-crm"},
			{"a skip at the beginning", "?$limit=3&$skip=0&participants=p-%[1]s", "auditor-eve"},
			{"a range", "?$limit=4&createdBy=%[1]s&createdAt[$gte]=0&createdAt[$lt]=5000", "admin-root"},
		} {
			t.Run(tt.name, func(t *testing.T) {
				crm := crm.In(t)
				owner := "owner-" + strings.ReplaceAll(tt.name, " ", "-")
				create := func(at int) string {
					return idOf(crm.Create(fmt.Sprintf(`{"createdBy":%q,"createdAt":%d,"participants":["p-%s"]}`, owner, at, owner)))
				}
				var still, moving []string
				for i := range 24 {
					id := create(1000 + i/5) // ties
					if i%2 == 0 {
						still = append(still, id)
					} else {
						moving = append(moving, id)
					}
				}
				query := tt.query
				if strings.Contains(query, "%[1]s") {
					query = fmt.Sprintf(query, owner)
				}
				reader := strings.ReplaceAll(tt.reader, "%s", owner)
				seen := map[string]int{}
				page := "/chat-sessions" + query
				for n := 0; page != ""; n++ {
					if n > 60 {
						t.Fatalf("%s does not end", query)
					}
					a := s.As(reader).In(t).Expect(200, "GET", page, "")
					for _, id := range ids(a.List(t)) {
						seen[id]++
					}
					page = next(t, a)
					if n < len(moving) { // something happens between two pages
						disturb(crm, n, "/chat-sessions/"+moving[n])
						create(1000 + n%5)
					}
				}
				for _, id := range still {
					if seen[id] != 1 {
						t.Errorf("%s: %s, which did not change, was shown %d times", query, id, seen[id])
					}
				}
			})
		}
	})
}

// disturb changes a session so that it moves, leaves a filter, or is only new.
func disturb(c *rig.Client, n int, path string) {
	c.T.Helper()
	c.Patch(path, []string{`{"createdAt":1}`, `{"createdAt":4000}`, `{"start":true,"accept":true,"finish":true}`, `{"participants":null}`, `{"room":"x"}`}[n%5])
}

// TestALinkComesOnlyWhereThereIsMore.
func TestALinkComesOnlyWhereThereIsMore(t *testing.T) {
	s := rig.Start(t, "--dev")
	alice := s.As("account-alice")
	made := createAt(alice, 5, 4, 3, 2, 1)
	for query, want := range map[string]bool{
		"": false, "?$limit=5": false, "?$limit=4": true, "?$limit=6": false, "?$skip=3&$limit=2": false, "?$skip=2&$limit=2": true, "?$skip=5": false,
	} {
		if got := next(t, alice.Expect(200, "GET", "/chat-sessions"+query, "")) != ""; got != want {
			t.Errorf("%s: a next page: %v, want %v", query, got, want)
		}
	}
	// A skip is done once, not on every page; a selection goes on.
	first := alice.Expect(200, "GET", "/chat-sessions?$skip=1&$limit=2&$select[]=room", "")
	second := alice.Expect(200, "GET", next(t, first), "")
	same(t, "second page", ids(second.List(t)), made[3:5])
	has(t, second.List(t)[0], members{"state": nil, "id": made[3]})
	// The link is no secret key: it shows what its user may see.
	same(t, "another's link", s.As("account-bob").Expect(200, "GET", next(t, first), "").List(t), nil)
}

// TestALongQueryHasAShortLink that is followed like any other.
func TestALongQueryHasAShortLink(t *testing.T) {
	rig.OnAllSetups(t, func(t *testing.T, s *rig.Service) {
		alice := s.As("account-alice")
		var want []string
		query := "/chat-sessions?$limit=2"
		for i := 0; len(query) < 7900; i++ {
			room := fmt.Sprintf("%s-%d", strings.Repeat("r", 150), i)
			query += "&room[$in][]=" + room
			if i%7 == 0 {
				want = append([]string{idOf(alice.Create(fmt.Sprintf(`{"room":%q,"createdAt":%d}`, room, i)))}, want...)
			}
		}
		alice.Create(`{"room":"another"}`)
		query += "&state=created"
		query += strings.Repeat("&", 8000-len(query))
		if len(query) != 8000 {
			t.Fatalf("the query has %d bytes", len(query))
		}
		var got []string
		for page := query; page != ""; {
			a := alice.Expect(200, "GET", page, "")
			got = append(got, ids(a.List(t))...)
			page = next(t, a)
		}
		same(t, "all pages", got, want)
	})
}

// TestATotalIsCountedOnlyWhenAskedFor, and only what the caller may see.
func TestATotalIsCountedOnlyWhenAskedFor(t *testing.T) {
	rig.OnAllSetups(t, func(t *testing.T, s *rig.Service) {
		crm := s.As("service-crm")
		for i := range 7 {
			crm.Create(fmt.Sprintf(`{"createdBy":"alice","createdAt":%d,"room":"r%d"}`, i, i%2))
		}
		crm.Create(`{"createdBy":"bob","participants":["alice"],"room":"r1"}`)
		crm.Create(`{"createdBy":"bob","room":"r1"}`)
		for _, tt := range []struct {
			who, query string
			want       int
		}{
			{"account-alice", "", 8}, {"account-bob", "", 2}, {"account-eve", "", 0}, {"service-crm", "", 9}, {"auditor-eve", "", 9}, {"admin-root", "", 9},
			{"account-alice", "?room=r1", 4}, {"account-bob", "?room=r1", 2}, {"account-eve", "?room=r1", 0}, {"service-crm", "?room=r1", 5},
			{"account-alice", "?$limit=2", 8}, {"account-alice", "?$limit=0", 8}, {"account-alice", "?$skip=5", 8}, {"account-alice", "?$skip=500&$limit=1", 8},
			{"account-alice", "?createdAt[$lt]=3", 3}, {"account-eve", "?createdBy=alice", 0}, {"account-bob", "?createdBy=alice", 0}, {"account-alice", "?createdBy=bob", 1},
		} {
			c := s.As(tt.who)
			for _, prefer := range []string{"count=exact", `count="exact"`, "respond-async, Count=exact", "count=exact, count=none"} {
				a := c.Expect(200, "GET", "/chat-sessions"+tt.query, "", "Prefer: "+prefer)
				if got := a.Header.Get("X-Total-Count"); got != strconv.Itoa(tt.want) {
					t.Errorf("%s %s, Prefer: %s: X-Total-Count is %q, want %d", tt.who, tt.query, prefer, got, tt.want)
				}
			}
			for _, headers := range [][]string{nil, {"Prefer: count=none"}, {"Prefer: handling=strict"}, {"Prefer: count=none, count=exact"}} {
				a := c.Expect(200, "GET", "/chat-sessions"+tt.query, "", headers...)
				if _, counted := a.Header[http.CanonicalHeaderKey("X-Total-Count")]; counted {
					t.Errorf("%s %s, %v: counted without being asked", tt.who, tt.query, headers)
				}
			}
		}
		// The count stays that of the whole result on every page.
		a := s.As("account-alice").Expect(200, "GET", "/chat-sessions?$limit=3", "", "Prefer: count=exact")
		a = s.As("account-alice").Expect(200, "GET", next(t, a), "", "Prefer: count=exact")
		if got := a.Header.Get("X-Total-Count"); got != "8" {
			t.Errorf("on the second page X-Total-Count is %q, want 8", got)
		}
	})
}
