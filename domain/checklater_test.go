package domain_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"chatsessions/domain"
)

// kinds lists defects as "kind: detail".
func kinds(defects []domain.Defect) []string {
	var all []string
	for _, d := range defects {
		all = append(all, fmt.Sprintf("%s: %s", d.Kind, d.Detail))
	}
	return all
}

// TestAnEventAfterUnreadableMessages checks what can still be known of an event when
// messages before it cannot be read. The event is the acceptance, version 4 of the life.
func TestAnEventAfterUnreadableMessages(t *testing.T) {
	states, events := life(t)
	for name, test := range map[string]struct {
		earlier    int // version of the session that is known
		unreadable uint64
		spoil      func(*domain.Record)
		want       []string
	}{
		"right after the session that is known": {earlier: 3, unreadable: 1},
		"each message was an event":             {earlier: 1, unreadable: 2},
		"some messages were no events":          {earlier: 1, unreadable: 9},
		"versions are missing": {earlier: 1, unreadable: 1,
			want: []string{"version-gap: version 4 follows version 1, with no more than 1 messages in between"}},
		"a version again": {earlier: 4, unreadable: 3, want: []string{"version-repeated: version 4 follows version 4"}},
		"an old version":  {earlier: 5, unreadable: 3, want: []string{"version-repeated: version 4 follows version 5"}},
		"of a repeated version, only the event by itself is checked": {earlier: 5, unreadable: 3,
			spoil: func(r *domain.Record) { r.Event.Session.CreatedBy, r.Event.Session.CreatedAt = "eve", 2500 },
			want: []string{
				"version-repeated: version 4 follows version 5",
				"time: startedAt (2000) is before createdAt (2500)",
			}},
		"recorded before": {earlier: 2, unreadable: 1,
			spoil: func(r *domain.Record) { r.Event.Session.UpdatedAt, r.Time = 1999, time.UnixMilli(1999) },
			want:  []string{"time: updatedAt (1999) is before that of version 2 (2000)"}},
		"recorded at the same time": {earlier: 2, unreadable: 1,
			spoil: func(r *domain.Record) { r.Event.Session.UpdatedAt, r.Time = 2000, time.UnixMilli(2000) }},
		"another creator": {earlier: 2, unreadable: 1, spoil: func(r *domain.Record) { r.Event.Session.CreatedBy = "eve" },
			want: []string{`immutable: createdBy changed from "pat" to "eve"`}},
		"a state that its stamps do not lead to": {earlier: 2, unreadable: 1, spoil: func(r *domain.Record) { r.Event.Session.State = "finished" },
			want: []string{`transition: the stamps lead to state "accepted", but the session is finished`}},
		"an event without an author": {earlier: 2, unreadable: 1, spoil: func(r *domain.Record) { r.Request.Actor = "" },
			want: []string{"envelope: ce-actor is missing"}},
	} {
		r := recorded(events[3])
		if test.spoil != nil {
			test.spoil(r)
		}
		if got := kinds(domain.CheckLater(&states[test.earlier], test.unreadable, r)); !slices.Equal(got, test.want) {
			t.Errorf("%s:\n got %q\nwant %q", name, got, test.want)
		}
	}
}

// TestAnEventOutOfTurnIsStillChecked: after a gap or a repetition, the event still has
// to agree with itself, and the step is not checked.
func TestAnEventOutOfTurnIsStillChecked(t *testing.T) {
	states, events := life(t)
	for version, want := range map[int][]string{
		2: {"version-gap: version 4 follows version 2", "time: acceptedAt (4000) is before startedAt (4001)"},
		4: {"version-repeated: version 4 follows version 4", "time: acceptedAt (4000) is before startedAt (4001)"},
		5: {"version-repeated: version 4 follows version 5", "time: acceptedAt (4000) is before startedAt (4001)"},
	} {
		r := recorded(events[3])
		r.Event.Session.Stamps[domain.Start] = &domain.Stamp{At: 4001, By: "pat"}
		defects, folded := domain.Check(&states[version], r)
		if got := kinds(defects); !slices.Equal(got, want) || folded != nil {
			t.Errorf("after version %d:\n got %q\nwant %q", version, got, want)
		}
	}
}

// TestRulesOfOneStep checks events that Decide never returns, each with everything that
// is said about it. The session goes from one JSON to the other.
func TestRulesOfOneStep(t *testing.T) {
	const (
		created  = `{"id":"s1","createdAt":1000,"createdBy":"pat","state":"created","version":1,"updatedAt":1000}`
		started  = `{"id":"s1","createdAt":1000,"createdBy":"pat","startedAt":2000,"startedBy":"pat","state":"started","version":2,"updatedAt":2000}`
		disorder = `{"id":"s1","createdAt":5000,"createdBy":"pat","startedAt":2000,"startedBy":"pat","state":"started","version":2,"updatedAt":5000}`
		rejected = `{"id":"s1","createdAt":1000,"createdBy":"pat","startedAt":2000,"startedBy":"pat","rejectedAt":3000,"rejectedBy":"doc","rejectReason":"busy","state":"rejected","version":3,"updatedAt":3000}`
	)
	for name, test := range map[string]struct {
		typ     domain.EventType
		from    string // "" for no session
		replace []string
		want    []string
	}{
		"an update of every detail": {typ: domain.EventUpdated, from: started,
			replace: []string{`"createdAt":1000,"createdBy":"pat"`, `"createdAt":900,"createdBy":"pat","type":"telemed","room":"r"`, `"state"`, `"participants":["doc"],"state"`}},
		"a correction of a whole stamp": {typ: domain.EventCorrected, from: rejected,
			replace: []string{`"rejectedAt":3000,"rejectedBy":"doc","rejectReason":"busy"`, `"rejectedAt":2500,"rejectedBy":"eve","rejectReason":"away"`}},
		"a correction of every detail": {typ: domain.EventCorrected, from: started,
			replace: []string{`"createdAt":1000,"createdBy":"pat"`, `"createdAt":900,"createdBy":"pat","type":"telemed","room":"r"`, `"state"`, `"participants":["doc"],"state"`},
			want:    []string{"fields: chat-session.corrected may not change createdAt, type, room, participants"}},
		"a correction that removes a stamp": {typ: domain.EventCorrected, from: rejected,
			replace: []string{`"startedAt":2000,"startedBy":"pat",`, ``},
			want:    []string{"fields: chat-session.corrected may not change the stamp of start"}},
		"a correction that adds a stamp": {typ: domain.EventCorrected, from: started,
			replace: []string{`"state"`, `"acceptedAt":2000,"acceptedBy":"doc","state"`},
			want:    []string{"fields: chat-session.corrected may not change the stamp of accept"}},
		"an update of a reason": {typ: domain.EventUpdated, from: rejected, replace: []string{"busy", "away"},
			want: []string{"fields: chat-session.updated may not change the stamp of reject"}},
		"a start that accepts too": {typ: domain.EventStarted, from: created,
			replace: []string{`"state":"created"`, `"startedAt":2000,"startedBy":"pat","acceptedAt":2000,"acceptedBy":"doc","state":"started"`},
			want:    []string{"fields: chat-session.started may not change the stamp of accept"}},
		"a start of nothing": {typ: domain.EventStarted, from: "", replace: []string{"", started, `"version":2`, `"version":1`},
			want: []string{"transition: start is not possible: the session does not exist"}},
		"a creation with a stamp": {typ: domain.EventCreated, from: "", replace: []string{"", started, `"version":2`, `"version":1`, `"started"`, `"created"`},
			want: []string{"transition: a session begins as created, but this one is created"}},
		"a creation":                            {typ: domain.EventCreated, from: "", replace: []string{"", created}},
		"a creation just before it is too late": {typ: domain.EventCreated, from: "", replace: []string{"", created, `"createdAt":1000`, `"createdAt":301000`}},
		"a creation too late": {typ: domain.EventCreated, from: "", replace: []string{"", created, `"createdAt":1000`, `"createdAt":301001`},
			want: []string{"time: createdAt (301001) is more than 5 minutes after its recording (1000)"}},
		"a start just before it is too late": {typ: domain.EventStarted, from: created,
			replace: []string{`"state":"created"`, `"startedAt":302000,"startedBy":"pat","state":"started"`}},
		"a start too late": {typ: domain.EventStarted, from: created,
			replace: []string{`"state":"created"`, `"startedAt":302001,"startedBy":"pat","state":"started"`},
			want:    []string{"time: startedAt (302001) is more than 5 minutes after its recording (2000)"}},
		"a time that was too late before": {typ: domain.EventUpdated, from: strings.Replace(created, "1000", "900000", 1),
			replace: []string{`"createdBy":"pat"`, `"createdBy":"pat","room":"r"`}},
		"a stamp that was too late before": {typ: domain.EventUpdated, from: strings.Replace(started, `"startedAt":2000`, `"startedAt":900000`, 1),
			replace: []string{`"createdBy":"pat"`, `"createdBy":"pat","room":"r"`}},
		"a correction to a time too late": {typ: domain.EventCorrected, from: started, replace: []string{`"startedAt":2000`, `"startedAt":303001`},
			want: []string{"time: startedAt (303001) is more than 5 minutes after its recording (3000)"}},
		"times that were out of order before": {typ: domain.EventUpdated, from: disorder, replace: []string{`"createdBy":"pat"`, `"createdBy":"pat","room":"r"`}},
		"times that get out of order": {typ: domain.EventUpdated, from: started, replace: []string{`"createdAt":1000`, `"createdAt":2001`},
			want: []string{"time: startedAt (2000) is before createdAt (2001)"}},
		"times that are equal": {typ: domain.EventUpdated, from: started, replace: []string{`"createdAt":1000`, `"createdAt":2000`}},
		// An illegal event has no fields that it may change, so these are not reported.
		"an illegal event with a room": {typ: domain.EventFinished, from: started, replace: []string{`"createdBy":"pat"`, `"createdBy":"pat","room":"r"`},
			want: []string{"transition: finish is not possible: the session is started"}},
		"an unknown event with a room": {typ: "chat-session.moved", from: started, replace: []string{`"createdBy":"pat"`, `"createdBy":"pat","room":"r"`},
			want: []string{`envelope: unknown type "chat-session.moved"`}},
	} {
		var before, after domain.Session
		text := test.from
		if text != "" {
			decode(t, text, &before)
			text = strings.Replace(text, fmt.Sprintf(`"version":%d`, before.Version), fmt.Sprintf(`"version":%d`, before.Version+1), 1)
			text = strings.Replace(text, fmt.Sprintf(`"updatedAt":%d`, before.UpdatedAt), fmt.Sprintf(`"updatedAt":%d`, before.UpdatedAt+1000), 1)
		}
		for i := 0; i < len(test.replace); i += 2 {
			if !strings.Contains(text, test.replace[i]) {
				t.Fatalf("%s: no %s in %s", name, test.replace[i], text)
			}
			text = strings.Replace(text, test.replace[i], test.replace[i+1], 1)
		}
		decode(t, text, &after)
		r := recorded(domain.Event{Type: test.typ, Session: after, Changes: patch(&before, &after)})
		defects, folded := domain.Check(&before, r)
		if got := kinds(defects); !slices.Equal(got, test.want) || folded != nil {
			t.Errorf("%s:\n got %q (%v)\nwant %q", name, got, folded, test.want)
		}
	}
}

// TestAFalsifiedSessionIsReportedOnce, and folded is the session to which the changes
// lead, so that the next event can be checked against it.
func TestAFalsifiedSessionIsReportedOnce(t *testing.T) {
	states, events := life(t)
	r := recorded(events[3])
	r.Event.Session.CreatedBy, r.Event.Session.State, r.Event.Session.Room = "eve", domain.StateFinished, ""
	defects, folded := domain.Check(&states[3], r)
	want := []string{`changes: the changes lead to createdBy "pat", but the session has "eve"; ` +
		`room "r1", but the session has nothing; state "accepted", but the session has "finished"`}
	if got := kinds(defects); !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if folded == nil || string(folded.AppendJSON(nil)) != string(states[4].AppendJSON(nil)) {
		t.Fatalf("folded: %+v", folded)
	}
	if defects, _ := domain.Check(folded, recorded(events[4])); len(defects) > 0 {
		t.Errorf("the next event: %+v", defects)
	}
}

func TestAnEnvelopeHasKeyAndDigestOrNeither(t *testing.T) {
	states, events := life(t)
	for _, test := range []struct {
		key, digest string
		want        []string
	}{
		{"", "", nil}, {"k", "d", nil},
		{"k", "", []string{"envelope: only one of ce-requestkey and ce-requestdigest is set"}},
		{"", "d", []string{"envelope: only one of ce-requestkey and ce-requestdigest is set"}},
	} {
		r := recorded(events[0])
		r.Request.Key, r.Request.Digest = test.key, test.digest
		if defects, _ := domain.Check(&states[0], r); !slices.Equal(kinds(defects), test.want) {
			t.Errorf("%q, %q: %q", test.key, test.digest, kinds(defects))
		}
	}
}

// TestNamesOfDefectsAndEventsStay: scripts and stored events have them.
func TestNamesOfDefectsAndEventsStay(t *testing.T) {
	var names []string
	for _, k := range domain.DefectKinds() {
		names = append(names, string(k))
	}
	for _, e := range domain.EventTypes() {
		names = append(names, strings.TrimPrefix(string(e), "chat-session."))
	}
	const want = "unreadable envelope missing version-gap version-repeated previous fork changes transition time immutable fields " +
		"created started accepted rejected finished updated corrected"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("got %s", got)
	}
}
