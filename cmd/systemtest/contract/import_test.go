package contract

import (
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
