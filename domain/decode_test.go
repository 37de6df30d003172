package domain_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"chatsessions/domain"
)

// TestEventsAreReadAsEncodingJSONReadsThem, whether they take the fast way or not.
func TestEventsAreReadAsEncodingJSONReadsThem(t *testing.T) {
	fast := 0
	rapid.Check(t, func(rt *rapid.T) {
		var s domain.Session
		for range rapid.IntRange(1, 6).Draw(rt, "commands") {
			events, err := domain.Decide(s, command(rt, s))
			if err != nil {
				continue
			}
			for _, e := range events {
				data, _ := e.MarshalData()
				if checkDecoding(rt, data) {
					fast++
				}
				s = e.Session
			}
		}
	})
	if fast == 0 {
		t.Error("no event took the fast way")
	}
}

// TestEventsWithoutEscapesTakeTheFastWay, whatever members they have.
func TestEventsWithoutEscapesTakeTheFastWay(t *testing.T) {
	seen := map[string]bool{} // members of the sessions
	rapid.Check(t, func(rt *rapid.T) {
		var s domain.Session
		apply := func(c domain.Command) {
			events, err := domain.Decide(s, c)
			if err != nil {
				rt.Fatalf("%+v: %v", c, err)
			}
			for _, e := range events {
				data, _ := e.MarshalData()
				if !checkDecoding(rt, data) {
					rt.Fatalf("does not take the fast way: %s", data)
				}
				s = e.Session
			}
			var members map[string]any
			if err := json.Unmarshal(s.AppendJSON(nil), &members); err != nil {
				rt.Fatal(err)
			}
			for name := range members {
				seen[name] = true
			}
		}
		desk := domain.Caller{Account: plainText.Draw(rt, "account"), Role: domain.RoleService}
		second := rapid.SampledFrom([]domain.Transition{domain.Accept, domain.Reject}).Draw(rt, "accept or reject")
		imported := plainValues(rt, second, 0)
		id := plainText.Draw(rt, "id")
		apply(domain.Create{ID: id, By: desk, Now: *imported.Stamps[domain.Finish].At, Values: imported})
		corrected := plainValues(rt, second, s.CreatedAt)
		corrected.CreatedAt, corrected.CreatedBy = nil, nil
		apply(domain.Change{By: desk, Now: domain.MaxTime, Values: corrected})
		apply(domain.Change{By: desk, Now: domain.MaxTime, Values: cleared(second)})
	})
	for _, name := range domain.FieldNames() {
		if !seen[name] {
			t.Errorf("no session had %s: draw it too", name)
		}
	}
}

// plainText draws what JSON writes as it is.
var plainText = rapid.StringOfN(rapid.Rune().Filter(func(r rune) bool {
	return r >= ' ' && r != '"' && r != '\\' && utf8.ValidRune(r)
}), 1, 8, -1)

// plainValues draws everything that a request can say of a session that is finished,
// from a time on.
func plainValues(t *rapid.T, second domain.Transition, at int64) domain.Values {
	text := func(of string) *string { v := plainText.Draw(t, of); return &v }
	next := func(of string) *int64 {
		at = rapid.Int64Range(at, domain.MaxTime).Draw(t, of)
		v := at
		return &v
	}
	kind := domain.TypeTelemed
	participants := rapid.SliceOfN(plainText, 1, 3).Draw(t, "participants")
	v := domain.Values{
		Type: &kind, Room: text("room"), Participants: &participants,
		CreatedAt: next("createdAt"), CreatedBy: text("createdBy"),
	}
	for _, tr := range []domain.Transition{domain.Start, second, domain.Finish} {
		v.Stamps[tr] = domain.StampValues{At: next(tr.AtField()), By: text(tr.ByField())}
		if tr.ReasonField() != "" {
			v.Stamps[tr].Reason = text(tr.ReasonField())
		}
	}
	return v
}

// cleared takes everything away that a request can take away.
func cleared(second domain.Transition) domain.Values {
	nothing, nobody, earliest := "", []string{}, int64(0)
	v := domain.Values{Type: &nothing, Room: &nothing, Participants: &nobody, CreatedAt: &earliest}
	for _, tr := range []domain.Transition{second, domain.Finish} {
		if tr.ReasonField() != "" {
			v.Stamps[tr].Reason = &nothing
		}
	}
	return v
}

// TestDamagedDataIsReadAsEncodingJSONReadsIt changes valid data in a few places, so that
// it is nearly what the fast decoder reads.
func TestDamagedDataIsReadAsEncodingJSONReadsIt(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var s domain.Session
		var data []byte
		for range rapid.IntRange(1, 4).Draw(rt, "commands") {
			events, err := domain.Decide(s, command(rt, s))
			if err != nil || len(events) == 0 {
				continue
			}
			last := events[len(events)-1]
			data, _ = last.MarshalData()
			s = last.Session
		}
		for range rapid.IntRange(1, 2).Draw(rt, "damages") {
			if len(data) == 0 {
				return
			}
			at := rapid.IntRange(0, len(data)-1).Draw(rt, "at")
			damage := rapid.SampledFrom([]string{"", " ", "0", "-", ".", "1", `"`, `\`, "\x00", "\x1f", "\x20", "ü", "\xff", "a", "n", ",", ":", "[", "]", "{", "}", "null"}).Draw(rt, "damage")
			length := rapid.IntRange(0, 1).Draw(rt, "length")
			data = slices.Concat(data[:at], []byte(damage), data[at+length:])
		}
		checkDecoding(rt, data)
	})
}

// TestWhatTheFastDecoderReads pins which data takes the fast way: exactly what the
// service writes. All other data must be read too, as encoding/json reads it.
func TestWhatTheFastDecoderReads(t *testing.T) {
	const session = `{"id":"s","createdAt":0,"createdBy":"pat","participants":["a","b"],"state":"created","version":1,"updatedAt":10}`
	with := func(old, replacement string) string {
		if !strings.Contains(session, old) {
			t.Fatalf("no %s in %s", old, session)
		}
		return `{"changes":{},"session":` + strings.Replace(session, old, replacement, 1) + `}`
	}
	changes := func(changes string) string { return `{"changes":` + changes + `,"session":` + session + `}` }
	for _, test := range []struct {
		data string
		fast bool
	}{
		{with(`"s"`, `"s"`), true},
		{with(`"s"`, `"ü~ 𝄞"`), true},
		{with(`["a","b"]`, `["a"]`), true},
		{with(`"createdAt":0`, `"createdAt":9223372036854775807`), true},
		{with(`,"state"`, `,"title":"t","state"`), false},                 // of a newer version
		{with(`"id":"s",`, ``), true},                                     // only the log can have such a session
		{with(`"createdAt":0,`, ``), false},                               // every session has it
		{with(`"version":1,`, ``), false},                                 // and this
		{with(`,"updatedAt":10`, ``), false},                              // and this
		{with(`"version":1`, `"version":0`), false},                       // there is no such session
		{with(`"id":"s","createdAt":0`, `"createdAt":0,"id":"s"`), false}, // out of order
		{with(`"id":"s"`, `"id":"s","id":"s"`), false},
		{with(`"s"`, `""`), false},
		{with(`"s"`, `"\u0073"`), false},
		{with(`"s"`, "\"\xff\""), false},
		{with(`"s"`, "\"ü\xff\""), false},
		{with(`"s"`, "\"\x80\""), false},
		{with(`["a","b"]`, `[]`), false},
		{with(`["a","b"]`, `["a",""]`), false},
		{with(`["a","b"]`, `["a";"b"]`), false},
		{with(`"createdAt":0`, `"createdAt":00`), false},
		{with(`"createdAt":0`, `"createdAt":-1`), false},
		{with(`"createdAt":0`, `"createdAt":9223372036854775808`), false},
		{with(`"createdAt":0`, `"createdAt":"0"`), false},
		{with(`"createdBy"`, `"acceptedBy":"doc","createdBy"`), false},
		{with(`"participants"`, `"acceptedBy":"doc","participants"`), false}, // nothing says when
		{with(`"participants"`, `"acceptedAt":1,"acceptedBy":"doc","participants"`), true},
		{with(`"participants"`, `"rejectedAt":1,"rejectedBy":"doc","rejectReason":"no","participants"`), true},
		{with(`"participants"`, `"rejectedAt":1,"rejectReason":"no","participants"`), true},
		{with(`,"state"`, `, "state"`), false},
		{with(`10}`, `10} `), false},
		{with(`10}`, `10`), false},
		{with(`10}`, `10}}`), false},
		{changes(`{"room":"r"}`), true},
		{changes(`{"room":"r","type":null,"participants":["a"],"version":2}`), true},
		{changes(`{"room":"\u0072"}`), false},
		{changes(`{"room":nul}`), false},
		{changes(`{"room":}`), false},
		{changes(`{"room":{}}`), false},
		{changes(`{"room":true}`), false},
		{changes(`{"room":"r",}`), false},
		{changes(`{"room":"r";"type":null}`), false},
		{changes(`{"room"}`), false},
		{changes(`[]`), false},
		{`{"changes":{}}`, false},
		{`{"changes":{"version":1`, false},
		{`{"changes":{"room":`, false},
		{`{"changes":{}`, false},
		{``, false},
	} {
		if got := checkDecoding(t, []byte(test.data)); got != test.fast {
			t.Errorf("%s: the fast way %v, want %v", test.data, got, test.fast)
		}
	}
}

// TestAnEventThatIsReadAgainKeepsNothing of what it was before.
func TestAnEventThatIsReadAgainKeepsNothing(t *testing.T) {
	e := domain.Event{Type: domain.EventCreated}
	if session, err := e.UnmarshalData([]byte(benchmarkData)); session == nil || err != nil {
		t.Fatal(err)
	}
	session, err := e.UnmarshalData([]byte(`{"changes": {}}`))
	if session != nil || err != nil || e.Type != domain.EventCreated || e.Session.Exists() || e.Session.ID != "" || string(e.Changes) != `{}` {
		t.Errorf("%s, %v: %+v", session, err, e)
	}
}

// checkDecoding compares with encoding/json, and reports whether the session came back
// as the bytes that it was written with.
func checkDecoding(t interface{ Fatalf(string, ...any) }, data []byte) bool {
	var want, got domain.Event
	wrong := json.Unmarshal(data, &want)
	session, err := got.UnmarshalData(data)
	if (err == nil) != (wrong == nil) {
		t.Fatalf("%s: %v; encoding/json says %v", data, err, wrong)
	}
	if err != nil {
		return false
	}
	if !reflect.DeepEqual(got.Session, want.Session) || !bytes.Equal(got.Changes, want.Changes) {
		t.Fatalf("%s: read %+v; encoding/json reads %+v", data, got, want)
	}
	if session != nil && !bytes.Equal(session, got.Session.AppendJSON(nil)) {
		t.Fatalf("%s: the session is %s, written it would be %s", data, session, got.Session.AppendJSON(nil))
	}
	return session != nil
}

func FuzzEventData(f *testing.F) {
	for _, seed := range []string{
		`{"changes":{"state":"started","room":null,"participants":["a"],"version":2},"session":{"id":"s","createdAt":1,"createdBy":"pat","startedAt":2,"startedBy":"pat","participants":["a","b"],"state":"started","version":2,"updatedAt":3}}`,
		`{"changes":{},"session":{"id":"s","createdAt":0,"rejectedAt":2,"rejectedBy":"ü","rejectReason":"no","version":1,"updatedAt":3}}`,
		`{"changes":{"a":"\\"},"session":{"id":"s","createdAt":01,"version":-1,"updatedAt":3}}`,
		`{"changes":{},"session":{"id":"s","id":"t","createdAt":1,"createdBy":"","version":1,"updatedAt":3}} `,
		`{"session":{},"changes":{}}`, `{"changes":{},"session":{"createdAt":1,"version":1}}`, ``,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) { checkDecoding(t, data) })
}
