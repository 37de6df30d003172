package domain_test

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"chatsessions/domain"
)

// recorded is an event as the log has it.
func recorded(e domain.Event) *domain.Record {
	return &domain.Record{
		Position: e.Session.Version, ID: "event", Time: time.UnixMilli(e.Session.UpdatedAt), Event: e,
		Request: domain.Request{SessionID: e.Session.ID, Actor: "pat"},
	}
}

func TestNoHistoryThatTheDomainDecidesHasADefect(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s domain.Session
		for range rapid.IntRange(1, 12).Draw(t, "commands") {
			events, _ := domain.Decide(s, command(t, s))
			for _, e := range events {
				for _, before := range []*domain.Session{&s, nil} {
					if defects, folded := domain.Check(before, recorded(e)); len(defects) > 0 || folded != nil {
						t.Fatalf("%s %s after %s: %+v", e.Type, e.Changes, s.AppendJSON(nil), defects)
					}
				}
				// Changes that say more than is needed still fold.
				loose := e
				loose.Changes = e.Session.AppendJSON(nil)
				for _, name := range domain.FieldNames() {
					if !strings.Contains(string(loose.Changes), `"`+name+`":`) {
						loose.Changes = append(loose.Changes[:len(loose.Changes)-1], (`,"` + name + `": null}`)...)
					}
				}
				if defects, _ := domain.Check(&s, recorded(loose)); len(defects) > 0 {
					t.Fatalf("%s %s after %s: %+v", e.Type, loose.Changes, s.AppendJSON(nil), defects)
				}
				s = e.Session
			}
		}
	})
}

// life is a session from its creation to its end, event by event.
func life(t *testing.T) (states []domain.Session, events []domain.Event) {
	t.Helper()
	var s domain.Session
	states = append(states, s)
	decide := func(c domain.Command) {
		decided, err := domain.Decide(s, c)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range decided {
			events, s = append(events, e), e.Session
			states = append(states, s)
		}
	}
	pat := domain.Caller{Account: "pat", Role: domain.RoleService}
	decide(domain.Create{ID: "s1", By: pat, Now: 1000})
	directive := func(now int64, directive domain.Transition) {
		c := domain.Change{By: pat, Now: now}
		c.Directives[directive].Asked = true
		decide(c)
	}
	directive(2000, domain.Start)
	room := "r1"
	decide(domain.Change{By: pat, Now: 3000, Values: domain.Values{Room: &room}})
	directive(4000, domain.Accept)
	directive(5000, domain.Finish)
	return states, events
}

// TestEveryKindOfDefectOfOneEvent spoils one event of a life. Members are set both in
// the changes and in the session, unless a test says otherwise.
func TestEveryKindOfDefectOfOneEvent(t *testing.T) {
	const ( // indexes of the life's events
		created = iota
		started
		updated
		accepted
		finished
	)
	type members map[string]any
	for name, test := range map[string]struct {
		event            int
		set, sessionOnly members // nil removes
		spoil            func(*domain.Record)
		want             domain.DefectKind
		says             string
	}{
		"ce-time is another":             {event: started, spoil: func(r *domain.Record) { r.Time = r.Time.Add(time.Millisecond) }, want: domain.DefectEnvelope, says: "ce-time"},
		"an event without an author":     {event: started, spoil: func(r *domain.Record) { r.Request.Actor = "" }, want: domain.DefectEnvelope, says: "ce-actor"},
		"a key without a digest":         {event: started, spoil: func(r *domain.Record) { r.Request.Key = "k" }, want: domain.DefectEnvelope, says: "ce-requestdigest"},
		"an unknown type":                {event: updated, spoil: func(r *domain.Record) { r.Event.Type = "chat-session.moved" }, want: domain.DefectEnvelope, says: "moved"},
		"a version is left out":          {event: updated, set: members{"version": 4}, want: domain.DefectVersionGap, says: "version 4 follows version 2"},
		"a version comes again":          {event: updated, set: members{"version": 2}, want: domain.DefectVersionRepeated, says: "version 2 follows version 2"},
		"a member only in the session":   {event: accepted, sessionOnly: members{"room": "r2"}, want: domain.DefectChanges, says: `room "r1", but the session has "r2"`},
		"a member lost in the session":   {event: accepted, sessionOnly: members{"room": nil}, want: domain.DefectChanges, says: `but the session has nothing`},
		"another creator in the session": {event: finished, sessionOnly: members{"createdBy": "eve"}, want: domain.DefectChanges, says: `createdBy "pat", but the session has "eve"`},
		"another state in the session":   {event: started, sessionOnly: members{"state": "finished"}, want: domain.DefectChanges, says: "state"},
		"changes that are no object":     {event: started, spoil: func(r *domain.Record) { r.Event.Changes = json.RawMessage(`[]`) }, want: domain.DefectChanges, says: "cannot be applied"},
		"a transition that is illegal":   {event: accepted, spoil: func(r *domain.Record) { r.Event.Type = domain.EventFinished }, want: domain.DefectTransition, says: "finish is not possible: the session is started"},
		"a transition to elsewhere":      {event: started, set: members{"state": "accepted"}, want: domain.DefectTransition, says: "start leads to started, but the session is accepted"},
		"a transition without a stamp":   {event: started, set: members{"startedAt": nil, "startedBy": nil}, want: domain.DefectTransition, says: "has no startedAt"},
		"an update of the state":         {event: updated, set: members{"state": "finished"}, want: domain.DefectTransition, says: "does not change the state"},
		"a first event that is another":  {event: created, spoil: func(r *domain.Record) { r.Event.Type = domain.EventUpdated }, want: domain.DefectTransition, says: "the first event is"},
		"a session created as finished":  {event: created, set: members{"state": "finished"}, want: domain.DefectTransition, says: "begins as created"},
		"a creation in between":          {event: updated, spoil: func(r *domain.Record) { r.Event.Type = domain.EventCreated }, want: domain.DefectTransition, says: "created again"},
		"recorded before the one before": {event: updated, set: members{"updatedAt": 1999}, spoil: func(r *domain.Record) { r.Time = time.UnixMilli(1999) }, want: domain.DefectTime, says: "updatedAt (1999)"},
		"a stamp before the one before":  {event: accepted, set: members{"acceptedAt": 1500}, want: domain.DefectTime, says: "acceptedAt (1500) is before startedAt (2000)"},
		"a stamp far ahead":              {event: finished, set: members{"finishedAt": 305001}, want: domain.DefectTime, says: "5 minutes"},
		"another creator":                {event: updated, set: members{"createdBy": "eve"}, want: domain.DefectImmutable, says: `"pat" to "eve"`},
		"an update of a stamp":           {event: updated, set: members{"startedBy": "eve"}, want: domain.DefectFields, says: "start"},
		"a transition with a room":       {event: accepted, set: members{"room": "r2"}, want: domain.DefectFields, says: "room"},
		"a transition of another stamp":  {event: accepted, set: members{"startedBy": "eve"}, want: domain.DefectFields, says: "start"},
	} {
		t.Run(name, func(t *testing.T) {
			states, events := life(t)
			e := events[test.event]
			changes, session := members{}, members{}
			must := func(err error) {
				if err != nil {
					t.Fatal(err)
				}
			}
			must(json.Unmarshal(e.Changes, &changes))
			must(json.Unmarshal(e.Session.AppendJSON(nil), &session))
			set := func(m members, name string, value any, patch bool) {
				if m[name] = value; value == nil && !patch {
					delete(m, name)
				}
			}
			for name, value := range test.set {
				set(changes, name, value, true)
				set(session, name, value, false)
			}
			for name, value := range test.sessionOnly {
				set(session, name, value, false)
			}
			var err error
			e.Changes, err = json.Marshal(changes)
			must(err)
			encoded, err := json.Marshal(session)
			must(err)
			must(json.Unmarshal(encoded, &e.Session))
			r := recorded(e)
			if test.spoil != nil {
				test.spoil(r)
			}
			defects, folded := domain.Check(&states[test.event], r)
			if len(defects) != 1 || defects[0].Kind != test.want || !strings.Contains(defects[0].Detail, test.says) ||
				defects[0].SessionID != "s1" || defects[0].Position != r.Position {
				t.Errorf("got %+v, want one %s that says %q", defects, test.want, test.says)
			}
			if wasFolded := test.sessionOnly != nil; wasFolded != (folded != nil) {
				t.Errorf("the changes fold to %+v", folded)
			}
		})
	}
}

// TestTimesAtTheEndsOfTheirRange are compared without an overflow.
func TestTimesAtTheEndsOfTheirRange(t *testing.T) {
	for name, test := range map[string]struct {
		finished, updated int64
		want              string // what is said, "" for nothing
	}{
		"recorded at the end of time": {finished: 5000, updated: math.MaxInt64},
		"a stamp at the end of time":  {finished: math.MaxInt64, updated: 5000, want: "more than 5 minutes after"},
		"a stamp before all time":     {finished: math.MinInt64, updated: 5000, want: "is before acceptedAt"},
	} {
		t.Run(name, func(t *testing.T) {
			states, events := life(t)
			last := len(events) - 1
			e := events[last]
			e.Session.UpdatedAt = test.updated
			e.Session.Stamps[domain.Finish] = &domain.Stamp{At: test.finished, By: "pat"}
			e.Changes = json.RawMessage(strings.NewReplacer(
				`"updatedAt":5000`, fmt.Sprintf(`"updatedAt":%d`, test.updated),
				`"finishedAt":5000`, fmt.Sprintf(`"finishedAt":%d`, test.finished),
			).Replace(string(e.Changes)))
			defects, _ := domain.Check(&states[last], recorded(e))
			if test.want == "" && len(defects) == 0 {
				return
			}
			if len(defects) != 1 || test.want == "" || !strings.Contains(defects[0].Detail, test.want) {
				t.Errorf("got %+v, want %q", defects, test.want)
			}
		})
	}
}

// TestWhatCanBeToldOfAnEventAlone: without the session before it, an event still has to
// agree with itself.
func TestWhatCanBeToldOfAnEventAlone(t *testing.T) {
	_, events := life(t)
	for name, test := range map[string]struct {
		spoil func(*domain.Session)
		want  domain.DefectKind
	}{
		"a state that its stamps do not lead to": {func(s *domain.Session) { s.State = domain.StateFinished }, domain.DefectTransition},
		"a life that the machine forbids":        {func(s *domain.Session) { s.Stamps[domain.Reject] = s.Stamps[domain.Accept] }, domain.DefectTransition},
		"a transition that is not recorded": {func(s *domain.Session) {
			s.Stamps[domain.Accept], s.State = nil, domain.StateStarted
		}, domain.DefectTransition},
		"stamps out of order": {func(s *domain.Session) { s.CreatedAt = 1_000_000 }, domain.DefectTime},
	} {
		t.Run(name, func(t *testing.T) {
			r := recorded(events[3]) // accepted
			test.spoil(&r.Event.Session)
			if defects, _ := domain.Check(nil, r); len(defects) != 1 || defects[0].Kind != test.want {
				t.Errorf("got %+v, want one %s", defects, test.want)
			}
		})
	}
}

// decode reads a session as the service wrote it.
func decode(t *testing.T, text string, s *domain.Session) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), s); err != nil || string(s.AppendJSON(nil)) != text {
		t.Fatalf("%s is read as %s (%v)", text, s.AppendJSON(nil), err)
	}
}

// patch returns the merge patch from one session to the other, made from their JSON.
func patch(before, after *domain.Session) json.RawMessage {
	members := func(s *domain.Session) (m map[string]any) {
		_ = json.Unmarshal(s.AppendJSON(nil), &m)
		return m
	}
	was, is := members(before), members(after)
	for name := range was {
		if is[name] == nil {
			is[name] = nil
		} else if reflect.DeepEqual(is[name], was[name]) {
			delete(is, name)
		}
	}
	changes, _ := json.Marshal(is)
	return changes
}
