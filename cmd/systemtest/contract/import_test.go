package contract

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"chatsessions/cmd/systemtest/rig"
)

// TestASessionIsImportedWithItsHistory: one event per transition, in one write.
func TestASessionIsImportedWithItsHistory(t *testing.T) {
	rig.OnAllSetups(t, func(t *testing.T, s *rig.Service) {
		crm := s.As("service-crm")
		for _, tt := range []struct {
			name, body string
			want       members
		}{
			{"only created, in the past", `{"createdAt":1000}`, members{"createdAt": 1000, "createdBy": "crm", "state": "created", "version": 1}},
			{"started", `{"createdAt":1000,"startedAt":2000}`, members{"startedAt": 2000, "startedBy": "crm", "state": "started", "version": 2}},
			{"members in any order", `{"finishedAt":4000,"acceptedAt":3000,"startedAt":2000,"createdAt":1000}`,
				members{"createdAt": 1000, "startedAt": 2000, "acceptedAt": 3000, "finishedAt": 4000, "state": "finished", "version": 4}},
			{"all at the same time", `{"createdAt":1,"startedAt":1,"rejectedAt":1,"finishedAt":1,"rejectReason":"r","finishReason":"f"}`,
				members{"rejectedAt": 1, "rejectReason": "r", "finishReason": "f", "acceptedAt": nil, "state": "finished", "version": 4}},
			{"a missing By is the creator", `{"createdAt":1,"createdBy":"pat","startedAt":2,"acceptedAt":3,"acceptedBy":"doc","finishedAt":4}`,
				members{"createdBy": "pat", "startedBy": "pat", "acceptedBy": "doc", "finishedBy": "pat"}},
			{"a missing At is the earliest possible", `{"createdAt":1000,"startedBy":"a","acceptedAt":5000,"finishedBy":"b"}`,
				members{"startedAt": 1000, "startedBy": "a", "acceptedAt": 5000, "finishedAt": 5000, "finishedBy": "b", "version": 4}},
			{"only By", `{"createdAt":1000,"startedBy":"a","rejectedBy":"b"}`,
				members{"startedAt": 1000, "rejectedAt": 1000, "rejectedBy": "b", "state": "rejected", "version": 3}},
		} {
			t.Run(tt.name, func(t *testing.T) {
				crm := crm.In(t)
				a := crm.Expect(200, "POST", "/chat-sessions", tt.body)
				session := a.Object(t)
				has(t, session, tt.want)
				if number(t, session, "updatedAt") < longAgo {
					t.Errorf("updatedAt is when it was recorded, not %v", session["updatedAt"])
				}
				if got := crm.Expect(200, "GET", a.Header.Get("Location"), "").Body; string(got) != string(a.Body) {
					t.Errorf("the GET says %s, the POST said %s", got, a.Body)
				}
			})
		}
	})
}

// TestAHistoryWithAGapIsRefused, with the name of what is missing.
func TestAHistoryWithAGapIsRefused(t *testing.T) {
	s := rig.Start(t, "--dev")
	crm := s.As("service-crm")
	for _, tt := range []struct {
		body    string
		missing []string // each has to be named in an error
	}{
		{`{"acceptedAt":1}`, []string{"startedAt"}},
		{`{"acceptedBy":"x"}`, []string{"startedAt"}},
		{`{"rejectedAt":1,"rejectReason":"x"}`, []string{"startedAt"}},
		{`{"startedAt":1,"finishedAt":2}`, []string{"acceptedAt", "rejectedAt"}},
		{`{"finishedAt":2}`, []string{"startedAt", "acceptedAt", "rejectedAt"}},
		{`{"acceptedAt":1,"finishedAt":2}`, []string{"startedAt"}},
		{`{"startedAt":1,"acceptedAt":1,"rejectedAt":1}`, []string{"accept", "reject"}},
		{`{"rejectReason":"x"}`, []string{"rejectedAt"}},
		{`{"startedAt":1,"acceptedAt":1,"rejectReason":"x"}`, []string{"rejectedAt"}},
		{`{"startedAt":1,"acceptedAt":1,"finishReason":"x"}`, []string{"finishedAt"}},
	} {
		t.Run(tt.body, func(t *testing.T) {
			room := "gap " + tt.body
			body := `{"room":` + rig.ToJSON(room) + `,"createdAt":0,` + tt.body[1:]
			p := crm.In(t).Refused(422, "POST", "/chat-sessions", body)
			for _, name := range tt.missing {
				if !strings.Contains(fmt.Sprint(p["errors"]), name) {
					t.Errorf("%s: %s is not named: %v", body, name, p["errors"])
				}
			}
			same(t, "sessions after the refusal", crm.In(t).Expect(200, "GET", "/chat-sessions?room="+escape(room), "").List(t), nil)
		})
	}
}

// TestAnImportIsAllOrNothing: a time that is wrong leaves no half of a history.
func TestAnImportIsAllOrNothing(t *testing.T) {
	s := rig.Start(t, "--dev")
	crm := s.As("service-crm")
	ahead := nowMillis() + 3_600_000
	for _, tt := range []struct{ body, pointer string }{
		{`{"createdAt":5000,"startedAt":4999}`, "/startedAt"},
		{`{"createdAt":1000,"startedAt":3000,"acceptedAt":2000}`, "/acceptedAt"},
		{`{"createdAt":1000,"startedAt":3000,"rejectedAt":2000}`, "/rejectedAt"},
		{`{"createdAt":1000,"startedAt":2000,"acceptedAt":3000,"finishedAt":2999}`, "/finishedAt"},
		{fmt.Sprintf(`{"createdAt":%d}`, ahead), "/createdAt"},
		{fmt.Sprintf(`{"createdAt":1,"startedAt":%d}`, ahead), "/startedAt"},
		{fmt.Sprintf(`{"createdAt":1,"startedAt":1,"acceptedAt":2,"finishedAt":%d}`, ahead), "/finishedAt"},
	} {
		t.Run(tt.body, func(t *testing.T) {
			room := "half " + tt.body
			p := crm.In(t).Refused(422, "POST", "/chat-sessions", `{"room":`+rig.ToJSON(room)+`,`+tt.body[1:])
			if found := pointers(t, p); !slices.Contains(found, tt.pointer) {
				t.Errorf("pointers %v, want %s among them: %v", found, tt.pointer, p)
			}
			same(t, "sessions after the refusal", crm.In(t).Expect(200, "GET", "/chat-sessions?room="+escape(room), "").List(t), nil)
		})
	}
}

// TestOnlyAServiceNamesTheCreator; from another token createdBy is an unknown field.
func TestOnlyAServiceNamesTheCreator(t *testing.T) {
	s := rig.Start(t, "--dev")
	for _, role := range []string{"service", "admin"} {
		a := s.As(role+"-x").Expect(200, "POST", "/chat-sessions", `{"createdBy":"pat"}`)
		has(t, a.Object(t), members{"createdBy": "pat"})
		if ignored := a.Header.Get("Ignored-Fields"); ignored != "" {
			t.Errorf("%s: Ignored-Fields: %s", role, ignored)
		}
		has(t, s.As("account-pat").Get(a.Header.Get("Location")), members{"createdBy": "pat"})
		has(t, s.As(role+"-x").Expect(200, "POST", "/chat-sessions", `{}`).Object(t), members{"createdBy": "x"})
	}
	alice := s.As("account-alice")
	for _, body := range []string{`{"createdBy":"pat"}`, `{"createdBy":"alice"}`, `{"createdBy":5}`} {
		a := alice.Expect(200, "POST", "/chat-sessions", body)
		has(t, a.Object(t), members{"createdBy": "alice"})
		if ignored := a.Header.Get("Ignored-Fields"); ignored != "createdBy" {
			t.Errorf("%s: Ignored-Fields: %q, want createdBy", body, ignored)
		}
		p := alice.Refused(422, "POST", "/chat-sessions", body, "Prefer: handling=strict")
		same(t, "pointers", pointers(t, p), []string{"/createdBy"})
	}
}

// TestACreatedSessionChoosesNothingOfItsOwn: what a client cannot set is ignored,
// and named.
func TestACreatedSessionChoosesNothingOfItsOwn(t *testing.T) {
	s := rig.Start(t, "--dev")
	a := s.As("account-alice").Expect(200, "POST", "/chat-sessions",
		`{"id":"01890000-0000-7000-8000-000000000000","state":"finished","version":9,"updatedAt":1,"start":true,"title":"x"}`)
	has(t, a.Object(t), members{"state": "created", "version": 1, "startedAt": nil, "title": nil})
	if id := fmt.Sprint(a.Object(t)["id"]); id == "01890000-0000-7000-8000-000000000000" || !uuidV7.MatchString(id) {
		t.Errorf("the id is %s, want a new UUIDv7", id)
	}
	ignored := strings.Split(a.Header.Get("Ignored-Fields"), ", ")
	slices.Sort(ignored)
	same(t, "Ignored-Fields", ignored, []string{"id", "start", "state", "title", "updatedAt", "version"})
	s.As("service-crm").Refused(404, "GET", rig.NoSession, "")
}
