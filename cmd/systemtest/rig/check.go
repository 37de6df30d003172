package rig

import (
	"reflect"
	"strings"
	"testing"
)

// Verify runs `chatsessions verify`, which must not find a defect in log or read model.
func (s *Service) Verify() {
	s.T.Helper()
	if status, stdout, stderr := Command(s.T, nil, append([]string{"verify"}, s.Stores()...)...); status != ExitDone {
		s.T.Errorf("verify: exit status %d\n%s%s", status, stdout, stderr)
	}
}

// CheckReadModel checks that a GET and a list show each session as the log has it.
func CheckReadModel(t *testing.T, s *Service, events []Event) {
	t.Helper()
	newest := map[string]map[string]any{}
	for _, e := range events {
		newest[e.Session["id"].(string)] = e.Session
	}
	listed := map[string]bool{}
	for next := "/chat-sessions?$limit=1000"; next != ""; {
		a := s.As("auditor-eve").Expect(200, "GET", next, "")
		for _, session := range a.List(t) {
			id := session["id"].(string)
			listed[id] = true
			if !reflect.DeepEqual(session, newest[id]) {
				t.Errorf("the list has %v, the log %v", session, newest[id])
			}
		}
		next, _, _ = strings.Cut(strings.TrimPrefix(a.Header.Get("Link"), "<"), ">")
	}
	if len(listed) != len(newest) {
		t.Errorf("%d sessions are listed, the log has %d", len(listed), len(newest))
	}
	for id, session := range newest {
		if got := s.As("auditor-eve").Expect(200, "GET", "/chat-sessions/"+id, "").Object(t); !reflect.DeepEqual(got, session) {
			t.Errorf("GET shows %v, the log has %v", got, session)
		}
	}
}
