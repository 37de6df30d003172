package contract

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"chatsessions/cmd/systemtest/rig"
)

// TestSeveralDirectivesAreAppliedInOrder, whatever their order in the body.
func TestSeveralDirectivesAreAppliedInOrder(t *testing.T) {
	rig.OnAllSetups(t, func(t *testing.T, s *rig.Service) {
		alice := s.As("account-alice")
		for _, tt := range []struct {
			body string
			want members
		}{
			{`{"start":true,"accept":true}`, members{"state": "accepted", "version": 3}},
			{`{"finish":"bye","accept":true,"start":true}`, members{"state": "finished", "version": 4, "finishReason": "bye"}},
			{`{"finish":true,"reject":"busy","start":true}`, members{"state": "finished", "version": 4, "rejectReason": "busy", "finishReason": nil}},
			{`{"finishedBy":"alice","accept":true,"startedAt":1600000000000}`, members{"state": "finished", "version": 4, "startedAt": longAgo}},
			{`{"start":true,"accept":false,"reject":null,"finish":""}`, members{"state": "started", "version": 2}},
			{`{"room":"r","start":true}`, members{"state": "started", "room": "r", "version": 3}},
		} {
			path := alice.Create(fmt.Sprintf(`{"createdAt":%d}`, longAgo))
			has(t, alice.Patch(path, tt.body), tt.want)
			has(t, alice.Get(path), tt.want)
		}
	})
}

// TestARefusedChangeLeavesNoHalf: whatever in it would have been fine.
func TestARefusedChangeLeavesNoHalf(t *testing.T) {
	s := rig.Start(t, "--dev")
	alice := s.As("account-alice")
	path := alice.Create(fmt.Sprintf(`{"createdAt":%d}`, longAgo))
	check := unchanged(alice, path)
	for _, tt := range []struct {
		status int
		body   string
	}{
		{409, `{"room":"new","start":true,"finish":true}`},
		{409, `{"room":"new","accept":true}`},
		{422, `{"room":"new","start":true,"startedAt":1}`},
		{422, fmt.Sprintf(`{"room":"new","start":true,"accept":true,"acceptedAt":%d}`, nowMillis()+3_600_000)},
		{422, `{"room":"new","start":true,"type":"x"}`},
		{403, `{"room":"new","start":true,"startedBy":"bob"}`},
	} {
		alice.Refused(tt.status, "PATCH", path, tt.body)
		check(tt.body)
	}
}

// TestWhatIsNotAskedForWritesNothing: no event, so neither version nor place in
// the log moves.
func TestWhatIsNotAskedForWritesNothing(t *testing.T) {
	rig.OnAllSetups(t, func(t *testing.T, s *rig.Service) {
		alice := s.As("account-alice")
		a := alice.Expect(200, "POST", "/chat-sessions", `{"room":"r","participants":["bob","carol"]}`)
		path := a.Header.Get("Location")
		bodies := []string{
			`{}`, ` { } `, `{"seen":true}`, `{"room":"r"}`, `{"type":null}`, `{"participants":["bob","carol"]}`, `{"rejectReason":""}`,
			`{"rejectReason":null}`, `{"createdAt":` + fmt.Sprint(number(t, a.Object(t), "createdAt")) + `}`,
			`{"id":"other","state":"finished","version":7,"createdBy":"bob","updatedAt":0}`,
		}
		for _, directive := range allDirectives {
			bodies = append(bodies, `{"`+directive+`":false}`, `{"`+directive+`":null}`, `{"`+directive+`":""}`)
		}
		for _, body := range bodies {
			again := alice.Expect(200, "PATCH", path, body)
			if string(again.Body) != string(a.Body) {
				t.Errorf("%s: the session is %s, was %s", body, again.Body, a.Body)
			}
			for _, name := range []string{"ETag", "Chat-Sessions-Position"} {
				if again.Header.Get(name) != a.Header.Get(name) {
					t.Errorf("%s: %s is %q, want that of the newest event, %q", body, name, again.Header.Get(name), a.Header.Get(name))
				}
			}
		}
	})
}

// TestTheWholeSessionSentBackChangesNothing in any state, not even when unknown
// fields are taken strictly.
func TestTheWholeSessionSentBackChangesNothing(t *testing.T) {
	s := rig.Start(t, "--dev")
	for _, state := range allStates {
		path := reach(s, t, "alice", state)
		for _, who := range []string{"account-alice", "account-bob", "service-crm", "admin-root"} {
			c := s.As(who)
			whole := c.Expect(200, "GET", path, "")
			for _, prefer := range []string{"handling=lenient", "handling=strict"} {
				a := c.Expect(200, "PATCH", path, string(whole.Body), "Prefer: "+prefer)
				if string(a.Body) != string(whole.Body) || a.Header.Get("Ignored-Fields") != "" {
					t.Errorf("%s, %s: %s became %s, Ignored-Fields %q", who, prefer, whole.Body, a.Body, a.Header.Get("Ignored-Fields"))
				}
			}
			// Changed in one member, all the others are dropped before they are judged.
			edited := whole.Object(t)
			edited["room"] = who
			has(t, c.Patch(path, rig.ToJSON(edited)), members{"room": who, "version": number(t, whole.Object(t), "version") + 1})
		}
	}
}

// TestAStampWithoutItsDirectiveIsTheDirective, as existing clients write it.
func TestAStampWithoutItsDirectiveIsTheDirective(t *testing.T) {
	s := rig.Start(t, "--dev")
	crm := s.As("service-crm")
	for _, tt := range []struct {
		state, body string
		want        members
	}{
		{"created", `{"startedAt":1600000000500}`, members{"state": "started", "startedAt": longAgo + 500, "startedBy": "crm"}},
		{"created", `{"startedBy":"doc"}`, members{"state": "started", "startedBy": "doc"}},
		{"created", `{"start":true,"startedAt":1600000000500,"startedBy":"doc"}`, members{"state": "started", "startedAt": longAgo + 500, "startedBy": "doc"}},
		{"started", `{"acceptedAt":1600000002000,"acceptedBy":"doc"}`, members{"state": "accepted", "acceptedAt": longAgo + 2000, "acceptedBy": "doc"}},
		{"started", `{"rejectedBy":"doc","rejectReason":"no"}`, members{"state": "rejected", "rejectedBy": "doc", "rejectReason": "no"}},
		{"started", `{"reject":"no","rejectReason":"no"}`, members{"state": "rejected", "rejectReason": "no"}},
		{"started", `{"reject":true,"rejectReason":"no"}`, members{"state": "rejected", "rejectReason": "no"}},
		{"rejected", `{"finishedAt":1600000002000}`, members{"state": "finished", "finishedAt": longAgo + 2000}},
		{"accepted", `{"finish":true,"finishReason":"late"}`, members{"state": "finished", "finishReason": "late"}},
	} {
		path := reach(s, t, "alice", tt.state)
		before := number(t, crm.Get(path), "version")
		tt.want["version"] = before + 1
		has(t, crm.Patch(path, tt.body), tt.want)
	}
}

// TestARecordedStampIsCorrected by naming it again; the state stays.
func TestARecordedStampIsCorrected(t *testing.T) {
	s := rig.Start(t, "--dev")
	crm := s.As("service-crm")
	for _, tt := range []struct {
		state, body string
		want        members
	}{
		{"started", `{"startedAt":1600000000001}`, members{"startedAt": longAgo + 1, "startedBy": "alice"}},
		{"started", `{"startedBy":"doc"}`, members{"startedAt": longAgo + 1000, "startedBy": "doc"}},
		{"started", `{"startedAt":1600000000002,"start":false,"startedBy":"alice"}`, nil}, // a contradiction, below
		{"accepted", `{"acceptedAt":1600000005000,"startedAt":1600000004000}`, members{"acceptedAt": longAgo + 5000, "startedAt": longAgo + 4000}},
		{"rejected", `{"rejectReason":"away"}`, members{"rejectReason": "away"}},
		{"rejected", `{"rejectReason":""}`, members{"rejectReason": nil}},
		{"rejected", `{"rejectReason":null}`, members{"rejectReason": nil}},
		{"finished", `{"finishReason":"other","finishedBy":"doc"}`, members{"finishReason": "other", "finishedBy": "doc"}},
		{"finished", `{"createdAt":1600000000500}`, members{"createdAt": longAgo + 500}},
	} {
		t.Run(tt.state+" "+tt.body, func(t *testing.T) {
			crm := crm.In(t)
			path := reach(s, t, "alice", tt.state)
			if tt.want == nil {
				crm.Refused(422, "PATCH", path, tt.body)
				return
			}
			tt.want["version"], tt.want["state"] = number(t, crm.Get(path), "version")+1, tt.state
			has(t, crm.Patch(path, tt.body), tt.want)
			has(t, crm.Get(path), tt.want)
		})
	}
}

// TestOneEventPerKindOfChange: correction, details and each transition count.
func TestOneEventPerKindOfChange(t *testing.T) {
	s := rig.Start(t, "--dev")
	crm := s.As("service-crm")
	path := reach(s, t, "alice", "started") // version 2
	body := fmt.Sprintf(`{"startedAt":%d,"room":"r","type":"telemed","accept":true,"acceptedAt":%d,"finish":"x","title":1}`, longAgo+1, longAgo+2)
	has(t, crm.Patch(path, body), members{"version": 6, "state": "finished", "startedAt": longAgo + 1, "acceptedAt": longAgo + 2, "room": "r"})
}

// TestContradictionsAreRefused, in directives, stamps and reasons.
func TestContradictionsAreRefused(t *testing.T) {
	s := rig.Start(t, "--dev")
	crm := s.As("service-crm")
	for _, tt := range []struct{ state, body string }{
		{"started", `{"accept":true,"reject":true}`},
		{"started", `{"accept":true,"reject":"busy"}`},
		{"started", `{"accept":true,"rejectedBy":"x"}`},
		{"started", `{"acceptedAt":1600000002000,"reject":true}`},
		{"started", `{"acceptedAt":1600000002000,"rejectedAt":1600000002000}`},
		{"created", `{"start":true,"accept":true,"reject":true}`},
		{"created", `{"start":false,"startedAt":1600000002000}`},
		{"started", `{"accept":false,"acceptedBy":"x"}`},
		{"started", `{"reject":false,"rejectedAt":1600000002000}`},
		{"accepted", `{"finish":false,"finishedAt":1600000002000}`},
		{"started", `{"reject":"busy","rejectReason":"away"}`},
		{"accepted", `{"finish":"busy","finishReason":"away"}`},
		{"started", `{"rejectReason":"busy"}`},
		{"accepted", `{"rejectReason":"busy"}`},
		{"accepted", `{"finishReason":"busy"}`},
		{"created", `{"start":true,"finishReason":"busy"}`},
		{"started", `{"startedAt":null}`},
		{"started", `{"startedBy":null}`},
		{"created", `{"createdAt":null}`},
		{"created", `{"acceptedAt":null}`},
	} {
		t.Run(tt.state+" "+tt.body, func(t *testing.T) {
			crm := crm.In(t)
			path := reach(s, t, "alice", tt.state)
			check := unchanged(crm, path)
			if p := crm.Refused(422, "PATCH", path, tt.body); len(pointers(t, p)) == 0 {
				t.Errorf("%s: nothing is pointed to: %v", tt.body, p)
			}
			check(tt.body)
		})
	}
}

// TestTimesKeepTheirOrder after every change, and lie at most 5 minutes ahead.
func TestTimesKeepTheirOrder(t *testing.T) {
	s := rig.Start(t, "--dev")
	crm := s.As("service-crm")
	near, far := nowMillis()+4*60_000, nowMillis()+6*60_000
	for _, tt := range []struct {
		state, body, pointer string // pointer is empty where the change is fine
	}{
		{"created", fmt.Sprintf(`{"startedAt":%d}`, longAgo), ""},
		{"created", fmt.Sprintf(`{"startedAt":%d}`, longAgo-1), "/startedAt"},
		{"started", fmt.Sprintf(`{"acceptedAt":%d}`, longAgo+999), "/acceptedAt"},
		{"started", fmt.Sprintf(`{"rejectedAt":%d}`, longAgo+1000), ""},
		{"accepted", fmt.Sprintf(`{"finishedAt":%d}`, longAgo+1999), "/finishedAt"},
		{"accepted", fmt.Sprintf(`{"startedAt":%d}`, longAgo+2001), "/startedAt"},
		{"finished", fmt.Sprintf(`{"acceptedAt":%d}`, longAgo+3001), "/acceptedAt"},
		{"finished", fmt.Sprintf(`{"createdAt":%d}`, longAgo+1001), "/createdAt"},
		{"finished", fmt.Sprintf(`{"createdAt":%d}`, longAgo+1000), ""},
		{"created", fmt.Sprintf(`{"start":true,"startedAt":%d,"accept":true,"acceptedAt":%d}`, longAgo+2, longAgo+1), "/acceptedAt"},
		{"created", fmt.Sprintf(`{"startedAt":%d}`, near), ""},
		{"created", fmt.Sprintf(`{"startedAt":%d}`, far), "/startedAt"},
		{"accepted", fmt.Sprintf(`{"finishedAt":%d}`, far), "/finishedAt"},
		{"created", fmt.Sprintf(`{"createdAt":%d}`, near), ""},
		{"created", fmt.Sprintf(`{"createdAt":%d}`, far), "/createdAt"},
	} {
		t.Run(tt.state+" "+tt.body, func(t *testing.T) {
			crm := crm.In(t)
			path := reach(s, t, "alice", tt.state)
			if tt.pointer == "" {
				crm.Patch(path, tt.body)
				return
			}
			check := unchanged(crm, path)
			if found := pointers(t, crm.Refused(422, "PATCH", path, tt.body)); !slices.Contains(found, tt.pointer) {
				t.Errorf("%s: pointers %v, want %s", tt.body, found, tt.pointer)
			}
			check(tt.body)
		})
	}
}

// TestNowIsFittedBetweenTheStampsAroundIt: not later than the next one that is
// given, not earlier than the one before.
func TestNowIsFittedBetweenTheStampsAroundIt(t *testing.T) {
	s := rig.Start(t, "--dev")
	crm := s.As("service-crm")
	ahead := nowMillis() + 4*60_000
	for _, tt := range []struct {
		created int64
		body    string
		want    members
	}{
		{longAgo, fmt.Sprintf(`{"start":true,"acceptedAt":%d}`, longAgo+7), members{"startedAt": longAgo + 7, "acceptedAt": longAgo + 7}},
		{longAgo, fmt.Sprintf(`{"start":true,"accept":true,"finish":true,"finishedAt":%d}`, longAgo+7), members{"startedAt": longAgo + 7, "acceptedAt": longAgo + 7, "finishedAt": longAgo + 7}},
		{longAgo, fmt.Sprintf(`{"startedBy":"x","reject":true,"rejectedAt":%d}`, longAgo), members{"startedAt": longAgo, "rejectedAt": longAgo}},
		{ahead, `{"start":true}`, members{"startedAt": ahead}},
		{ahead, `{"start":true,"reject":true,"finish":true}`, members{"startedAt": ahead, "rejectedAt": ahead, "finishedAt": ahead}},
		{longAgo, fmt.Sprintf(`{"startedAt":%d,"accept":true}`, ahead), members{"startedAt": ahead, "acceptedAt": ahead}},
	} {
		path := crm.Create(fmt.Sprintf(`{"createdAt":%d}`, tt.created))
		has(t, crm.Patch(path, tt.body), tt.want)
	}
}

// TestUnknownFieldsAreIgnoredAndNamed, or refused when they are taken strictly.
func TestUnknownFieldsAreIgnoredAndNamed(t *testing.T) {
	s := rig.Start(t, "--dev")
	alice := s.As("account-alice")
	path := alice.Create("{}")
	for _, tt := range []struct{ body, ignored string }{
		{`{"strt":true}`, "strt"},
		{`{"seen":true,"title":"x","room":"r"}`, "seen, title"},
		{`{"Room":"r"}`, "Room"},
		{`{"version":77}`, "version"},
		{`{"state":"finished","id":"x"}`, "state, id"},
		{`{"createdBy":"bob"}`, "createdBy"},
		{`{"title":{"room":1}}`, "title"},
		{`{"a b":1,"x,y":2,"ü":3,"\u0000\r\n":4}`, "a%20b, x%2Cy, %C3%BC, %00%0D%0A"},
		{`{"":1}`, `""`},
	} {
		a := alice.Expect(200, "PATCH", path, tt.body)
		if got := a.Header.Get("Ignored-Fields"); got != tt.ignored {
			t.Errorf("%s: Ignored-Fields is %q, want %q", tt.body, got, tt.ignored)
		}
		check := unchanged(alice, path)
		for _, prefer := range []string{"handling=strict", `HANDLING="strict"`, "respond-async, handling=strict", "handling=strict; x=y", "handling=strict, handling=lenient"} {
			p := alice.Refused(422, "PATCH", path, tt.body, "Prefer: "+prefer)
			if found := pointers(t, p); len(found) != strings.Count(tt.ignored, ",")+1 && tt.ignored != "" {
				t.Errorf("%s, Prefer: %s: pointers %v", tt.body, prefer, found)
			}
		}
		check(tt.body)
	}
	a := alice.Expect(200, "PATCH", path, `{"room":"strict"}`, "Prefer: handling=strict")
	if a.Header.Get("Preference-Applied") != "handling=strict" {
		t.Errorf("Preference-Applied is %q", a.Header.Get("Preference-Applied"))
	}
	alice.Expect(200, "PATCH", path, `{"strt":true}`, "Prefer: handling=lenient")
	alice.Expect(200, "PATCH", path, `{"strt":true}`, "Prefer: handling=lenient, handling=strict") // RFC 7240, section 2: the first counts
}
