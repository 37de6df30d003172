package feathers

import (
	"errors"
	"slices"
	"testing"

	"chatsessions/domain"
	"chatsessions/http/problem"
)

func FuzzQuery(f *testing.F) {
	for _, seed := range []string{
		"", "$limit=#10", "$limit=10&$skip=5", "$sort[createdAt]=-1", "state[$in][]=created&state[$in][]=started",
		"createdAt[$gt]=1&createdAt[$lte]=1e3", "$select[]=id&$select[1]=room", "room=%2310", "%24limit=%231", "a[b", "=", "[]=",
		"at=2026-11-22T12:00:00%2B01:00&$select=room", "at=2026-11-22T12:00:00+01:00", "after=7&$limit=#3",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		q, err := ParseList(text)
		if _, selectErr := ParseSelect(text); selectErr != nil {
			mustBe400(t, selectErr)
		}
		if asked, atErr := ParseSession(text); atErr != nil {
			mustBe400(t, atErr)
		} else if asked.At != nil && *asked.At > domain.MaxTime {
			t.Fatalf("let in: %d", *asked.At)
		}
		if err != nil {
			mustBe400(t, err)
			return
		}
		if q.Query.Limit < 0 || q.Query.Limit > maxLimit || q.Query.Skip < 0 || q.Query.MinCreatedAt < 0 {
			t.Fatalf("let in: %+v", q.Query)
		}
		for _, filter := range q.Query.Filters {
			if !slices.Contains(domain.FilterFields(), filter.Field) || len(filter.Values) == 0 {
				t.Fatalf("let in: %+v", filter)
			}
		}
	})
}

func mustBe400(t *testing.T, err error) {
	t.Helper()
	var p *problem.Problem
	if !errors.As(err, &p) || p.Status != 400 || p.Detail == "" {
		t.Fatalf("refused with %v, not with a 400 that says why", err)
	}
}
