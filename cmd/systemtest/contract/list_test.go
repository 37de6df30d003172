package contract

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"chatsessions/cmd/systemtest/rig"
)

// createAt opens sessions of the client's own at these times, and returns their
// ids in the same order.
func createAt(c *rig.Client, times ...int64) []string {
	c.T.Helper()
	var made []string
	for _, at := range times {
		made = append(made, idOf(c.Create(fmt.Sprintf(`{"createdAt":%d}`, at))))
	}
	return made
}

// TestAListIsOrderedByCreationAndId, newest first unless asked otherwise.
func TestAListIsOrderedByCreationAndId(t *testing.T) {
	rig.OnAllSetups(t, func(t *testing.T, s *rig.Service) {
		alice := s.As("account-alice")
		same(t, "an empty list", alice.List(""), nil)
		if body := alice.Expect(200, "GET", "/chat-sessions", "").Body; string(body) != "[]" {
			t.Errorf("an empty list is %s, want []", body)
		}
		made := createAt(alice, 5000, 3000, 9, 3000, 10, 3000, 8_000, 0)
		ties := []string{made[1], made[3], made[5]}
		slices.Sort(ties)
		ascending := slices.Concat([]string{made[7], made[2], made[4]}, ties, []string{made[0], made[6]})
		descending := slices.Clone(ascending)
		slices.Reverse(descending)
		for _, tt := range []struct {
			query string
			want  []string
		}{
			{"", descending},
			{"?$sort[createdAt]=-1", descending},
			{"?$sort[createdAt]=1", ascending},
			{"?$sort%5BcreatedAt%5D=%23-1", descending},
			{"?%24sort%5BcreatedAt%5D=%231", ascending},
			{"?$limit=3", descending[:3]},
			{"?$limit=%233", descending[:3]},
			{"?$skip=2", descending[2:]},
			{"?$skip=%232&$limit=%233", descending[2:5]},
			{"?$skip=2&$limit=3&$sort[createdAt]=1", ascending[2:5]},
			{"?$limit=0", nil},
			{"?$limit=%230", nil},
			{"?$skip=100", nil},
			{"?$limit=1000000", descending},
			{"?createdAt[$gt]=3000", descending[:2]},
			{"?createdAt[$gte]=3000", descending[:5]},
			{"?createdAt[$lt]=3000", descending[5:]},
			{"?createdAt[$lte]=3000", descending[2:]},
			{"?createdAt[$gt]=%239&createdAt[$lte]=%235000", descending[1:6]},
			{"?createdAt[$gte]=9&createdAt[$lt]=10&$sort[createdAt]=1", []string{made[2]}},
			{"?createdAt[$gt]=3000&createdAt[$lt]=3000", nil},
			{"?createdAt[$gt]=8640000000000000", nil},
			{"?createdAt[$lt]=0", nil},
			{"?createdAt[$lte]=0", []string{made[7]}},
			{"?&$limit=3&", descending[:3]},
		} {
			same(t, tt.query, ids(alice.List(tt.query)), tt.want)
		}
	})
}

// TestALimitDefaultsTo50AndIsCutAt1000.
func TestALimitDefaultsTo50AndIsCutAt1000(t *testing.T) {
	s := rig.Start(t, "--dev")
	const total = 1010
	alice := s.As("account-alice")
	manySessions(t, alice, total)
	for query, want := range map[string]int{
		"": 50, "?$limit=51": 51, "?$limit=999": 999, "?$limit=1000": 1000, "?$limit=1001": 1000, "?$limit=8640000000000000": 1000,
		"?$limit=1000&$skip=1000": 10, "?$skip=1009": 1, "?$skip=1010": 0, "?$limit=0": 0,
	} {
		a := alice.Expect(200, "GET", "/chat-sessions"+query, "", "Prefer: count=exact")
		if n := len(a.List(t)); n != want {
			t.Errorf("%s: %d sessions, want %d", query, n, want)
		}
		if counted := a.Header.Get("X-Total-Count"); counted != strconv.Itoa(total) {
			t.Errorf("%s: X-Total-Count is %q, want %d", query, counted, total)
		}
	}
	seen := map[string]int{}
	for page := "/chat-sessions?$limit=5000"; page != ""; {
		a := alice.Expect(200, "GET", page, "")
		for _, id := range ids(a.List(t)) {
			seen[id]++
		}
		page = next(t, a)
	}
	if len(seen) != total {
		t.Errorf("following the links shows %d sessions, want %d", len(seen), total)
	}
}

// manySessions opens n sessions, several at a time.
func manySessions(t *testing.T, c *rig.Client, n int) {
	t.Helper()
	const writers = 8
	failed := make(chan string, writers)
	for w := range writers {
		go func() {
			for i := w; i < n; i += writers {
				if a, err := c.Do("POST", "/chat-sessions", fmt.Sprintf(`{"createdAt":%d}`, i/3)); err != nil || a.Status != 200 {
					failed <- fmt.Sprintf("%d %s %v", a.Status, a.Body, err)
					return
				}
			}
			failed <- ""
		}()
	}
	for range writers {
		if problem := <-failed; problem != "" {
			t.Fatal(problem)
		}
	}
}

// TestEveryFilter by equality and by $in, alone and together.
func TestEveryFilter(t *testing.T) {
	rig.OnAllSetups(t, func(t *testing.T, s *rig.Service) {
		crm := s.As("service-crm")
		create := func(body string) string { return idOf(crm.Create(body)) }
		plain := create(`{"createdAt":1}`)
		other := create(`{"createdAt":2,"createdBy":"pat","room":"#10","participants":["ann","bob"]}`)
		started := create(`{"createdAt":3,"createdBy":"pat","type":"telemed","room":"r 1","startedBy":"ann"}`)
		accepted := create(`{"createdAt":4,"room":"r 1","startedBy":"ann","acceptedBy":"bob","participants":["bob"]}`)
		rejected := create(`{"createdAt":5,"room":"a,b","startedBy":"bob","rejectedBy":"ann"}`)
		finished := create(`{"createdAt":6,"type":"telemed","startedBy":"cyd","acceptedBy":"cyd","finishedBy":"ann","participants":["ann"]}`)
		all := []string{finished, rejected, accepted, started, other, plain}
		for _, tt := range []struct {
			query string
			want  []string
		}{
			{"state=created", []string{other, plain}},
			{"state=finished", []string{finished}},
			{"state[$in][]=started&state[$in][]=rejected", []string{rejected, started}},
			{"state[$in][0]=started&state[$in][1]=accepted", []string{accepted, started}},
			{"state[$in]=started&state[$in]=accepted", []string{accepted, started}},
			{"state=nonsense", nil},
			{"type=telemed", []string{finished, started}},
			{"type[$in][]=telemed&type[$in][]=other", []string{finished, started}},
			{"room=%2310", []string{other}}, // a string stays what it is
			{"room=10", nil},
			{"room=r+1", []string{accepted, started}},
			{"room=r%201", []string{accepted, started}},
			{"room=a,b", []string{rejected}},
			{"room[$in][]=a,b&room[$in][]=%2310", []string{rejected, other}},
			{"room[$in][]=a", nil},
			{"room=", nil},
			{"participants=ann", []string{finished, other}},
			{"participants=bob", []string{accepted, other}},
			{"participants[$in][]=ann&participants[$in][]=bob", []string{finished, accepted, other}},
			{"participants[$in][]=ann&participants[$in][]=ann", []string{finished, other}},
			{"createdBy=pat", []string{started, other}},
			{"createdBy[$in][]=pat&createdBy[$in][]=crm", all},
			{"startedBy=ann", []string{accepted, started}},
			{"startedBy[$in][]=bob&startedBy[$in][]=cyd", []string{finished, rejected}},
			{"acceptedBy=bob", []string{accepted}},
			{"acceptedBy[$in][]=bob&acceptedBy[$in][]=cyd", []string{finished, accepted}},
			{"rejectedBy=ann", []string{rejected}},
			{"rejectedBy[$in][]=ann", []string{rejected}},
			{"finishedBy=ann", []string{finished}},
			{"finishedBy[$in][]=x&finishedBy[$in][]=ann", []string{finished}},
			{"state=created&createdBy=pat", []string{other}},
			{"state=created&createdBy=pat&participants=ann&room=%2310", []string{other}},
			{"type=telemed&createdAt[$gt]=3", []string{finished}},
			{"type=telemed&createdAt[$lte]=%233", []string{started}},
			{"type=telemed&$sort[createdAt]=1", []string{started, finished}},
			{"type=telemed&$skip=1&$limit=1", []string{started}},
			{"startedBy=ann&state[$in][]=started&state[$in][]=finished", []string{started}},
		} {
			same(t, tt.query, ids(crm.List("?"+tt.query)), tt.want)
			escaped := strings.NewReplacer("[", "%5B", "]", "%5D", "$", "%24").Replace(tt.query)
			same(t, escaped, ids(crm.List("?"+escaped)), tt.want)
			count := crm.Expect(200, "GET", "/chat-sessions?"+tt.query, "", "Prefer: count=exact").Header.Get("X-Total-Count")
			if want := strconv.Itoa(len(tt.want)); count != want && !strings.Contains(tt.query, "$skip") {
				t.Errorf("%s: X-Total-Count is %q, want %s", tt.query, count, want)
			}
		}
		// What leaves a filter is found under the new value at once.
		crm.Patch("/chat-sessions/"+plain, `{"room":"r 1","start":true}`)
		same(t, "after a change", ids(crm.List("?room=r+1&state=started")), []string{started, plain})
		same(t, "after a change", ids(crm.List("?state=created")), []string{other})
	})
}

// TestSelectShowsOnlyTheFieldsAskedFor, with the id as in every Feathers service.
func TestSelectShowsOnlyTheFieldsAskedFor(t *testing.T) {
	s := rig.Start(t, "--dev")
	alice := s.As("account-alice")
	path := alice.Create(`{"room":"r","type":"telemed","participants":["bob"]}`)
	for _, query := range []string{"?$select[]=room&$select[]=state&$select[]=startedAt", "?$select=room&$select=state", "?$select[0]=room&$select[1]=state"} {
		for _, session := range append(alice.List(query), alice.Expect(200, "GET", path+query, "").Object(t)) {
			if names := sorted(session); !slices.Equal(names, []string{"id", "room", "state"}) {
				t.Errorf("%s: %v, want id, room and state only", query, session)
			}
		}
	}
	for _, query := range []string{"?$select[]=title", "?$select[]=", "?$select[]=room&$select[]=Room", "?$select[room]=1"} {
		alice.Refused(400, "GET", "/chat-sessions"+query, "")
	}
}

// TestAnUnknownOperatorOrFieldIsNamed in a 400.
func TestAnUnknownOperatorOrFieldIsNamed(t *testing.T) {
	s := rig.Start(t, "--dev")
	alice := s.As("account-alice")
	for query, named := range map[string]string{
		"$or[0][room]=x": "$or", "room[$ne]=x": "$ne", "room[$nin][]=x": "$nin", "room[$gt]=x": "$gt", "createdAt[$in][]=1": "$in",
		"createdAt[$ne]=1": "$ne", "$foo=1": "$foo", "$populate=x": "$populate", "$search=x": "$search", "state[$regex]=x": "$regex",
		"title=x": "title", "startedAt=1": "startedAt", "startedAt[$gt]=1": "startedAt", "updatedAt=1": "updatedAt", "version=1": "version", "id=x": "id",
		"Room=x": "Room", "limit=5": "limit", "$Limit=5": "$Limit", "rejectReason=x": "rejectReason",
		"$sort[room]=1": "room", "$sort[createdAt]=2": "2", "$sort=createdAt": "$sort", "$sort[createdAt]=": "$sort", "$sort[createdAt]=asc": "asc",
		"$limit=x": "$limit", "$limit=-1": "$limit", "$limit=1.5": "$limit", "$limit=": "$limit", "$limit=%23": "$limit", "$limit=%23%231": "$limit", "$limit[]=": "$limit",
		"$skip=x": "$skip", "$skip=-1": "$skip", "$skip=%23x": "$skip",
		"createdAt[$gt]=x": "createdAt", "createdAt[$gt]=": "createdAt", "createdAt[$gte]=1.5": "createdAt", "createdAt[$lt]=-1": "createdAt", "createdAt[$lte]=1&createdAt[$lte]=2": "createdAt",
		"room[$in][$gt]=x": "room", "room[x]=y": "room", "room=x&room=y": "room", "$limit=1&$limit=2": "$limit", "room[=x": "room", "room]=x": "room", "room[$in=x": "room",
		"room=%zz": "%zz", "room=%ff": "%ff", "%ff=1": "%ff", "$cursor=x": "$cursor", "$cursor=": "$cursor", "$cursor=AAAA&$limit=1": "$cursor", "[room]=x": "room", "=x": "",
	} {
		t.Run(query, func(t *testing.T) {
			p := alice.In(t).Refused(400, "GET", "/chat-sessions?"+query, "")
			if !strings.Contains(fmt.Sprint(p["detail"]), named) {
				t.Errorf("%s: %q is not named: %v", query, named, p["detail"])
			}
		})
	}
}
