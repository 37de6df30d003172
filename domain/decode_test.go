package domain_test

import (
	"bytes"
	"encoding/json"
	"reflect"
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

// TestEventsWithoutEscapesTakeTheFastWay, whatever members they have: one that the
// scanner does not know would send each event that has it the slow way.
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

// checkDecoding compares with encoding/json, and says whether the session came back
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
