package contract

import (
	"fmt"
	"slices"
	"strconv"
	"testing"

	"chatsessions/cmd/systemtest/rig"
)

// TestALifeFromCreationToTheEnd follows a session through both ways of its
// life, and looks at the write's answer, the GETs and the lists after each step.
func TestALifeFromCreationToTheEnd(t *testing.T) {
	rig.OnAllSetups(t, func(t *testing.T, s *rig.Service) {
		t.Run("accepted", func(t *testing.T) {
			live(t, s, []step{
				{"alice", `{"start":true}`, "started", members{"startedBy": "alice", "acceptedAt": nil}},
				{"bob", `{"accept":true}`, "accepted", members{"startedBy": "alice", "acceptedBy": "bob", "rejectedAt": nil, "finishedAt": nil}},
				{"alice", `{"finish":"all said"}`, "finished", members{"acceptedBy": "bob", "finishedBy": "alice", "finishReason": "all said"}},
			})
		})
		t.Run("rejected", func(t *testing.T) {
			live(t, s, []step{
				{"bob", `{"start":true}`, "started", members{"startedBy": "bob", "rejectedAt": nil}},
				{"alice", `{"reject":"busy"}`, "rejected", members{"rejectedBy": "alice", "rejectReason": "busy", "acceptedAt": nil, "acceptedBy": nil}},
				{"bob", `{"finish":true}`, "finished", members{"finishedBy": "bob", "finishReason": nil, "rejectReason": "busy"}},
			})
		})
	})
}

// A step is one PATCH in a session's life, and what the session is after it.
type step struct {
	account, body, state string
	want                 members
}

func live(t *testing.T, s *rig.Service, steps []step) {
	room := t.Name()
	alice := s.As("account-alice").In(t)
	earliest := nowMillis()
	a := alice.Expect(200, "POST", "/chat-sessions", toJSON(members{"participants": []string{"bob"}, "room": room, "type": "telemed"}))
	path := a.Header.Get("Location")
	created := a.Object(t)
	if id := fmt.Sprint(created["id"]); !uuidV7.MatchString(id) || path != "/chat-sessions/"+id {
		t.Errorf("the id is %q, Location %q; want a UUIDv7 and its path", id, path)
	}
	has(t, created, members{
		"createdBy": "alice", "type": "telemed", "room": room, "participants": []string{"bob"}, "state": "created", "version": 1,
		"startedAt": nil, "startedBy": nil, "acceptedAt": nil, "rejectedAt": nil, "finishedAt": nil, "rejectReason": nil, "finishReason": nil,
	})
	if at := number(t, created, "createdAt"); at < earliest || at > nowMillis() {
		t.Errorf("createdAt is %d, want the time of the request, from %d", at, earliest)
	}
	position, previous := everyoneSees(t, s, a, path, room, 1, 0), created

	for i, step := range steps {
		before := nowMillis()
		a := s.As("account-"+step.account).In(t).Expect(200, "PATCH", path, step.body)
		session := a.Object(t)
		has(t, session, step.want)
		has(t, session, members{"state": step.state, "version": i + 2})
		at := number(t, session, step.state+"At")
		if at < before || at > nowMillis() {
			t.Errorf("%s: %sAt is %d, want the time of the request, from %d", step.body, step.state, at, before)
		}
		for name, value := range previous { // what happened stays
			if !slices.Contains([]string{"state", "version", "updatedAt"}, name) {
				has(t, session, members{name: value})
			}
		}
		if number(t, session, "updatedAt") < number(t, previous, "updatedAt") {
			t.Errorf("updatedAt goes backwards: %v after %v", session, previous)
		}
		position, previous = everyoneSees(t, s, a, path, room, i+2, position), session
	}
}

// everyoneSees checks the headers of a write's answer, and that every reader gets
// what it said. It returns the write's position.
func everyoneSees(t *testing.T, s *rig.Service, a rig.Answer, path, room string, version int, after uint64) uint64 {
	t.Helper()
	if tag := a.Header.Get("ETag"); tag != strconv.Quote(strconv.Itoa(version)) {
		t.Errorf("ETag %s, want version %d", tag, version)
	}
	position, err := strconv.ParseUint(a.Header.Get("Chat-Sessions-Position"), 10, 64)
	if err != nil || position <= after {
		t.Errorf("Chat-Sessions-Position %q, want one after %d", a.Header.Get("Chat-Sessions-Position"), after)
	}
	list := "/chat-sessions?room=" + escape(room)
	for _, who := range []string{"account-alice", "account-bob", "service-crm", "auditor-eve", "admin-root"} {
		c := s.As(who).In(t)
		got := c.Expect(200, "GET", path, "")
		if string(got.Body) != string(a.Body) || got.Header.Get("ETag") != a.Header.Get("ETag") {
			t.Errorf("%s gets %s, ETag %s; the write said %s, ETag %s", who, got.Body, got.Header.Get("ETag"), a.Body, a.Header.Get("ETag"))
		}
		if listed := c.Expect(200, "GET", list, "").Body; string(listed) != "["+string(a.Body)+"]" {
			t.Errorf("%s lists %s, want [%s]", who, listed, a.Body)
		}
	}
	for _, state := range allStates {
		inList := len(s.As("account-bob").In(t).Expect(200, "GET", list+"&state="+state, "").List(t)) == 1
		if want := a.Object(t)["state"] == state; inList != want {
			t.Errorf("listed under state=%s: %v, want %v: %s", state, inList, want, a.Body)
		}
	}
	stranger := s.As("account-stranger").In(t)
	refused(stranger, 404, "GET", path, "")
	same(t, "what a stranger lists", stranger.Expect(200, "GET", list, "").List(t), nil)
	return position
}

// TestEveryDirectiveInEveryState walks the whole table of the state machine.
func TestEveryDirectiveInEveryState(t *testing.T) {
	s := rig.Start(t, "--dev")
	alice := s.As("account-alice")
	leadsTo := map[string]string{"start": "started", "accept": "accepted", "reject": "rejected", "finish": "finished"}
	allowed := map[string][]string{
		"created": {"start"}, "started": {"accept", "reject"}, "accepted": {"finish"}, "rejected": {"finish"}, "finished": {},
	}
	for _, state := range allStates {
		path := reach(s, t, "alice", state)
		for _, directive := range allDirectives {
			// Each way to ask for the same transition.
			bodies := []string{`{"` + directive + `":true}`}
			if directive == "reject" || directive == "finish" {
				bodies = append(bodies, `{"`+directive+`":"because"}`)
			}
			if !happened(state, leadsTo[directive]) {
				bodies = append(bodies, fmt.Sprintf(`{"%sAt":%d}`, leadsTo[directive], nowMillis()), `{"`+leadsTo[directive]+`By":"alice"}`)
			}
			for _, body := range bodies {
				t.Run(state+" "+body, func(t *testing.T) {
					alice := alice.In(t)
					if slices.Contains(allowed[state], directive) {
						fresh := reach(s, t, "alice", state)
						has(t, patch(alice, fresh, body), members{"state": leadsTo[directive], leadsTo[directive] + "By": "alice"})
						return
					}
					check := unchanged(alice, path)
					p := refused(alice, 409, "PATCH", path, body)
					illegal(t, p, state, allowed[state])
					check(body)
				})
			}
		}
	}
}

// happened says whether a session that reach made has been in a state.
func happened(state, before string) bool {
	return state == before || state == "finished" && before != "rejected" || before == "started" && state != "created"
}

// illegal checks the body of a 409 for a session that reach made.
func illegal(t *testing.T, p map[string]any, state string, allowed []string) {
	t.Helper()
	has(t, p, members{"state": state, "allowed": allowed, "status": 409})
	var conflict any
	switch state {
	case "started":
		conflict = members{"type": "chat-session.started", "by": "alice", "at": longAgo + 1000}
	case "accepted", "rejected":
		conflict = members{"type": "chat-session." + state, "by": "alice", "at": longAgo + 2000}
	case "finished":
		conflict = members{"type": "chat-session.finished", "by": "alice", "at": longAgo + 3000}
	}
	has(t, p, members{"conflict": conflict, "errors": nil})
	want := []string{"allowed", "className", "code", "conflict", "detail", "instance", "message", "name", "state", "status", "title", "type"}
	if conflict == nil {
		want = slices.DeleteFunc(want, func(name string) bool { return name == "conflict" })
	}
	var names []string
	for name := range p {
		names = append(names, name)
	}
	slices.Sort(names)
	same(t, "the members of a 409", names, want)
}
