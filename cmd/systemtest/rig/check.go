package rig

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
)

// CheckChains checks that the events of each session follow one another.
func CheckChains(t *testing.T, events []Event) {
	t.Helper()
	last := map[string]Event{}
	for _, e := range events {
		before := last[e.Subject]
		if want := float64(len(before.Data)); want == 0 && e.Session["version"] != 1.0 ||
			want != 0 && e.Session["version"] != before.Session["version"].(float64)+1 {
			t.Errorf("event %d has version %v after %v", e.Sequence, e.Session["version"], before.Session["version"])
		}
		folded := fold(before.Session, e.Changes)
		if !reflect.DeepEqual(folded, e.Session) {
			t.Errorf("event %d: the changes lead to %v, the session is %v", e.Sequence, folded, e.Session)
		}
		previous := strings.Join(e.Header["ce-previous"], "|")
		switch {
		case before.Sequence == 0 && previous != "",
			before.Sequence != 0 && previous != strconv.FormatUint(before.Sequence, 10) &&
				(previous != "0" || before.Sequence != e.Sequence-1):
			t.Errorf("event %d: ce-previous %q, the event before is %d", e.Sequence, previous, before.Sequence)
		}
		last[e.Subject] = e
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

// fold applies a JSON merge patch (RFC 7396) to a session. None of its members is an
// object.
func fold(session, changes map[string]any) map[string]any {
	folded := map[string]any{}
	for name, value := range session {
		folded[name] = value
	}
	for name, value := range changes {
		if folded[name] = value; value == nil {
			delete(folded, name)
		}
	}
	return folded
}

// CheckLegal checks that the events of every session follow the state machine, and that
// times of recording never run backwards, whatever the clocks of the nodes are.
func CheckLegal(events []Event) error {
	directives := map[string]string{"started": "start", "accepted": "accept", "rejected": "reject", "finished": "finish"}
	type point struct {
		state   string
		updated float64
	}
	at := map[string]point{}
	for _, e := range events {
		before, exists := at[e.Subject]
		kind := strings.TrimPrefix(e.Header["ce-type"][0], "chat-session.")
		state, _ := e.Session["state"].(string)
		updated, _ := e.Session["updatedAt"].(float64)
		legal := exists && state == before.state // of updated and corrected
		if d, is := directives[kind]; is {
			to, possible := EndOf(before.state, []string{d})
			legal = possible && state == to
		} else if kind == "created" {
			legal = !exists && state == "created"
		}
		if !legal {
			return fmt.Errorf("event %d: %s leads from %q to %q", e.Sequence, kind, before.state, state)
		}
		recorded, err := time.Parse(time.RFC3339, e.Header["ce-time"][0])
		if err != nil || recorded.UnixMilli() != int64(updated) || updated < before.updated {
			return fmt.Errorf("event %d: recorded at %s, updatedAt is %.0f after %.0f: %w", e.Sequence, e.Header["ce-time"][0], updated, before.updated, err)
		}
		at[e.Subject] = point{state, updated}
	}
	return nil
}

// EndOf returns the state after the directives, and false if one of them is illegal.
func EndOf(state string, directives []string) (string, bool) {
	for _, d := range directives {
		to, legal := leads[state][d]
		if !legal {
			return state, false
		}
		state = to
	}
	return state, true
}

// leads is the state machine: the next state, by state and directive.
var leads = map[string]map[string]string{
	"created":  {"start": "started"},
	"started":  {"accept": "accepted", "reject": "rejected"},
	"accepted": {"finish": "finished"},
	"rejected": {"finish": "finished"},
}
