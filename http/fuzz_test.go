package http

import (
	"encoding/json"
	"errors"
	"testing"
	"unicode/utf8"

	"chatsessions/domain"
	"chatsessions/http/problem"
)

func FuzzBody(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"start":true}`, `{"seen":true}`, `{"participants":["account-id1","account-id2"],"title":"Hello"}`,
		`{"reject":"busy","rejectReason":"busy","rejectedAt":1e3}`, `{"room":"\ud83d\ude00\n","createdAt":-0.0}`,
		`{"a":{"b":[1,2,{"c":null}]}}`, `{"a":1,"a":2}`, `{"room":"\ud800"}`, `[]`, ``, `{"id":"x","version":3,"state":"started"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		members, err := parseObject(body)
		if err != nil {
			var p *problem.Problem
			if !errors.As(err, &p) || p.Status != 400 {
				t.Fatalf("refused with %v, not with a 400", err)
			}
			return
		}
		var other map[string]any
		if err := json.Unmarshal(body, &other); err != nil || len(other) != len(members) {
			t.Fatalf("taken for %d members, encoding/json says %d (%v)", len(members), len(other), err)
		}
		by := domain.Caller{Account: "pat", Role: domain.RoleService}
		values, r := readCreate(members, by)
		events, err := domain.Decide(domain.Session{}, parsed(domain.Create{ID: "s1", By: by, Now: 1 << 40, Values: values}, r))
		if err == nil {
			checkSession(t, &events[len(events)-1].Session)
		}
		change, r := readChange(members)
		change.By, change.Now = by, 1<<40
		session := domain.Session{ID: "s1", CreatedBy: "pat", State: domain.StateCreated, Version: 1}
		r.ignored(&session)
		if events, err = domain.Decide(session, parsed(change, r)); err == nil && len(events) > 0 {
			checkSession(t, &events[len(events)-1].Session)
		}
	})
}

// checkSession checks that what was let in is what the contract allows.
func checkSession(t *testing.T, s *domain.Session) {
	texts := append([]string{s.Room, s.CreatedBy}, s.Participants...)
	times := []int64{s.CreatedAt}
	for _, stamp := range s.Stamps {
		if stamp != nil {
			texts = append(texts, stamp.By, stamp.Reason)
			times = append(times, stamp.At)
		}
	}
	for _, text := range texts {
		if !utf8.ValidString(text) || utf8.RuneCountInString(text) > domain.MaxReason {
			t.Fatalf("let in: %q", text)
		}
	}
	for _, at := range times {
		if at < 0 || at > domain.MaxTime {
			t.Fatalf("let in: %d", at)
		}
	}
	if !json.Valid(s.AppendJSON(nil)) {
		t.Fatalf("encoded to %s", s.AppendJSON(nil))
	}
}

func FuzzHistoryQuery(f *testing.F) {
	for _, seed := range []string{"", "after=7&$limit=#3", "after=%23", "$limit=1e9", "after[]=1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if asked, historyErr := parseHistoryQuery(text); historyErr != nil {
			mustBe400(t, historyErr)
		} else if asked.limit < 0 || asked.limit > maxHistory || asked.after > uint64(domain.MaxTime) {
			t.Fatalf("let in: %+v", asked)
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
