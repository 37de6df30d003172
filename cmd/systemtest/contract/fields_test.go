package contract

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"chatsessions/cmd/systemtest/rig"
)

// The kinds of fields, and what is wrong for each, as JSON.
var wrongValues = map[string][]string{
	"type":                    {`1`, `true`, `[]`, `{}`, `""`, `"Telemed"`, `"video"`, `" telemed"`},
	"room":                    {`1`, `false`, `["r"]`, `{}`, `""`, `"a\u0000"`, `"\u001b"`, `"\u007f"`, `"\u0085"`},
	"participants":            {`1`, `"bob"`, `true`, `{}`, `[1]`, `[null]`, `["bob",["x"]]`, `[""]`, `["bob","bob"]`, `["a\u0000"]`},
	"time":                    {`"1"`, `true`, `[]`, `{}`, `null`, `-1`, `1.5`, `1e-1`, `1e400`, `8640000000000001`, `99999999999999999999`, `9223372036854775808`},
	"account":                 {`1`, `true`, `[]`, `{}`, `null`, `""`, `"a\u0001"`, `"\u009f"`},
	"reason":                  {`1`, `true`, `[]`, `{}`, `"a\u0000"`, `"\u0008"`},
	"directive":               {`1`, `0`, `[]`, `{}`, `"yes"`},
	"directive with a reason": {`1`, `0`, `[]`, `{}`, `"a\u0000"`},
}

// settable are the fields of a POST and a PATCH, with their kinds.
func settable() map[string]string {
	fields := map[string]string{
		"type": "type", "room": "room", "participants": "participants", "createdAt": "time",
		"rejectReason": "reason", "finishReason": "reason",
	}
	for _, transition := range []string{"started", "accepted", "rejected", "finished"} {
		fields[transition+"At"], fields[transition+"By"] = "time", "account"
	}
	return fields
}

// patchable are the fields of a PATCH.
func patchable() map[string]string {
	fields := settable()
	fields["start"], fields["accept"] = "directive", "directive"
	fields["reject"], fields["finish"] = "directive with a reason", "directive with a reason"
	return fields
}

func sorted[V any](fields map[string]V) []string { return slices.Sorted(maps.Keys(fields)) }

// TestAFieldWithAWrongTypeOrValueIsNamed sends every wrong value of every field.
func TestAFieldWithAWrongTypeOrValueIsNamed(t *testing.T) {
	s := rig.Start(t, "--dev")
	crm := s.As("service-crm")
	path := reach(s, t, "alice", "started")
	t.Run("POST", func(t *testing.T) {
		fields := settable()
		fields["createdBy"] = "account" // a service may give it
		eachWrongValue(t, crm, "POST", "/chat-sessions", fields)
	})
	t.Run("PATCH", func(t *testing.T) {
		check := unchanged(crm, path)
		eachWrongValue(t, crm, "PATCH", path, patchable())
		check("all wrong values")
	})
}

func eachWrongValue(t *testing.T, c *rig.Client, method, path string, fields map[string]string) {
	for _, field := range sorted(fields) {
		for _, value := range wrongValues[fields[field]] {
			body := fmt.Sprintf(`{"%s":%s}`, field, value)
			t.Run(body, func(t *testing.T) {
				p := c.In(t).Refused(422, method, path, body)
				found := pointers(t, p)
				if len(found) == 0 {
					t.Errorf("%s: no errors: %v", body, p)
				}
				for _, pointer := range found {
					inside := field == "participants" && strings.HasPrefix(pointer, "/participants/")
					if pointer != "/"+field && !inside {
						t.Errorf("%s: a pointer to %s: %v", body, pointer, p)
					}
				}
			})
		}
	}
}

// TestEveryBadFieldIsListed sends one body in which everything is wrong.
func TestEveryBadFieldIsListed(t *testing.T) {
	s := rig.Start(t, "--dev")
	crm := s.As("service-crm")
	for _, tt := range []struct {
		method, path string
		fields       map[string]string
	}{
		{"POST", "/chat-sessions", settable()},
		{"PATCH", reach(s, t, "alice", "created"), patchable()},
	} {
		t.Run(tt.method, func(t *testing.T) {
			var body, want []string
			for _, field := range sorted(tt.fields) {
				body = append(body, fmt.Sprintf(`"%s":{}`, field))
				want = append(want, "/"+field)
			}
			p := crm.In(t).Refused(422, tt.method, tt.path, "{"+strings.Join(body, ",")+"}")
			same(t, "pointers", pointers(t, p), want)
		})
	}
	t.Run("elements", func(t *testing.T) {
		p := crm.In(t).Refused(422, "POST", "/chat-sessions", `{"participants":["a",1,"b",null],"room":5}`)
		same(t, "pointers", pointers(t, p), []string{"/participants/1", "/participants/3", "/room"})
		p = crm.In(t).Refused(422, "POST", "/chat-sessions", `{"participants":["a","","b","a"]}`)
		same(t, "pointers", pointers(t, p), []string{"/participants/1", "/participants/3"})
	})
	t.Run("unknown fields that are taken strictly", func(t *testing.T) {
		p := crm.In(t).Refused(422, "POST", "/chat-sessions", `{"room":5,"a/b~c":1,"title":"x"}`, "Prefer: handling=strict")
		same(t, "pointers", pointers(t, p), []string{"/a~1b~0c", "/room", "/title"})
	})
}

// TestNullClearsWhatMayBeCleared on a PATCH; on a POST it is the same as absent.
func TestNullClearsWhatMayBeCleared(t *testing.T) {
	s := rig.Start(t, "--dev")
	alice := s.As("account-alice")
	nulls := `{"type":null,"room":null,"participants":null}`
	has(t, alice.Expect(200, "POST", "/chat-sessions", nulls).Object(t), members{"type": nil, "room": nil, "participants": nil, "version": 1})
	for _, field := range []string{"type", "room", "participants"} {
		path := alice.Create(`{"type":"telemed","room":"r","participants":["bob"]}`)
		want := members{"type": "telemed", "room": "r", "participants": []string{"bob"}, "version": 2}
		want[field] = nil
		has(t, alice.Patch(path, `{"`+field+`":null}`), want)
		has(t, alice.Get(path), want)
	}
	path := alice.Create(`{"participants":["bob"]}`)
	has(t, alice.Patch(path, `{"participants":[]}`), members{"participants": nil, "version": 2})
	has(t, alice.Expect(200, "POST", "/chat-sessions", `{"participants":[]}`).Object(t), members{"participants": nil})
}

// TestLimitsAreExact sends each value at its limit, and one above it.
func TestLimitsAreExact(t *testing.T) {
	s := rig.Start(t, "--dev")
	crm := s.As("service-crm")
	started := fmt.Sprintf(`"createdAt":%d,"startedAt":%d`, longAgo, longAgo)
	uids := func(n int) string {
		list := make([]string, n)
		for i := range list {
			list[i] = fmt.Sprintf("uid-%d", i)
		}
		return rig.ToJSON(list)
	}
	text := func(n int, character string) string { return `"` + strings.Repeat(character, n) + `"` }
	for _, tt := range []struct {
		name      string
		body      func(n int) string
		at, above int
		pointer   string
		onPost    string // what a POST needs beside it
		onPatch   string
	}{
		{"room", func(n int) string { return `"room":` + text(n, "x") }, 256, 257, "/room", "", ""},
		{"room of characters beyond the first plane", func(n int) string { return `"room":` + text(n, "😀") }, 256, 257, "/room", "", ""},
		{"room of escaped surrogate pairs", func(n int) string { return `"room":` + text(n, `\ud83d\ude00`) }, 256, 257, "/room", "", ""},
		{"participants", func(n int) string { return `"participants":` + uids(n) }, 100, 101, "/participants", "", ""},
		{"a participant", func(n int) string { return `"participants":[` + text(n, "é") + `]` }, 128, 129, "/participants/0", "", ""},
		{"startedBy", func(n int) string { return `"startedBy":` + text(n, "é") }, 128, 129, "/startedBy", "", ""},
		{"rejectReason", func(n int) string { return `"rejectReason":` + text(n, "é") }, 1024, 1025, "/rejectReason", started + `,"rejectedAt":` + fmt.Sprint(longAgo), `"start":true,"reject":true`},
		{"finishReason", func(n int) string { return `"finishReason":` + text(n, "é") }, 1024, 1025, "/finishReason",
			started + `,"acceptedBy":"x","finishedBy":"x"`, `"start":true,"accept":true,"finish":true`},
		{"reject", func(n int) string { return `"reject":` + text(n, "é") }, 1024, 1025, "/reject", "-", `"start":true`},
		{"finish", func(n int) string { return `"finish":` + text(n, "é") }, 1024, 1025, "/finish", "-", `"start":true,"accept":true`},
	} {
		join := func(parts ...string) string {
			return "{" + strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), ",") + "}"
		}
		t.Run(tt.name, func(t *testing.T) {
			crm := crm.In(t)
			if tt.onPost != "-" {
				crm.Expect(200, "POST", "/chat-sessions", join(tt.onPost, tt.body(tt.at)))
				same(t, "pointers", pointers(t, crm.Refused(422, "POST", "/chat-sessions", join(tt.onPost, tt.body(tt.above)))), []string{tt.pointer})
			}
			path := crm.Create("{}")
			same(t, "pointers", pointers(t, crm.Refused(422, "PATCH", path, join(tt.onPatch, tt.body(tt.above)))), []string{tt.pointer})
			crm.Expect(200, "PATCH", path, join(tt.onPatch, tt.body(tt.at)))
		})
	}
}

// TestTimesAreWholeNumbersHoweverTheyAreWritten up to the end of ECMAScript's time.
func TestTimesAreWholeNumbersHoweverTheyAreWritten(t *testing.T) {
	s := rig.Start(t, "--dev")
	alice := s.As("account-alice")
	for text, want := range map[string]int64{"0": 0, "-0": 0, "1.0": 1, "1e3": 1000, "1.6E+12": 1_600_000_000_000, "15e-1": -1} {
		body := `{"createdAt":` + text + `}`
		if want < 0 {
			alice.Refused(422, "POST", "/chat-sessions", body)
			continue
		}
		path := alice.Create(body)
		has(t, alice.Get(path), members{"createdAt": want})
		alice.Expect(200, "PATCH", path, `{"createdAt":1}`)
		has(t, alice.Patch(path, body), members{"createdAt": want})
	}
	// The last of all times is a time; it is refused only because it lies ahead.
	p := alice.Refused(422, "POST", "/chat-sessions", `{"createdAt":8640000000000000}`)
	same(t, "pointers", pointers(t, p), []string{"/createdAt"})
	if !strings.Contains(fmt.Sprint(p["detail"]), "future") {
		t.Errorf("8.64e15 is refused with %v; want: in the future", p["detail"])
	}
}

// TestTextKeepsItsCharacters through log and read model.
func TestTextKeepsItsCharacters(t *testing.T) {
	rig.OnAllSetups(t, func(t *testing.T, s *rig.Service) {
		alice := s.As("account-alice")
		for _, room := range []string{
			"#10", " spaces ", "tab\tline\nreturn\r", `quote " backslash \ slash /`, "<script>&amp;", "\u2028\u2029", "\ufeff", "\ufffd",
			"é", "e\u0301", "😀", "日本", "%2F+%", "null", "a,b;c=d", "$in", "*", "[x]", "{}", ":",
		} {
			path := alice.Create(rig.ToJSON(members{"room": room, "participants": []string{room}}))
			has(t, alice.Get(path), members{"room": room, "participants": []string{room}})
			for _, query := range []string{"room=", "participants=", "room[$in][]=", "room%5B%24in%5D%5B%5D=x&room[$in][]="} {
				same(t, query+escape(room), ids(alice.Expect(200, "GET", "/chat-sessions?"+query+escape(room), "").List(t)), []string{idOf(path)})
			}
		}
	})
}

// TestBodiesThatAreNotAJSONObjectAreRefused with a 400, on POST and PATCH.
func TestBodiesThatAreNotAJSONObjectAreRefused(t *testing.T) {
	s := rig.Start(t, "--dev")
	alice := s.As("account-alice")
	path := alice.Create("{}")
	check := unchanged(alice, path)
	for _, body := range []string{
		"", " ", "nonsense", "{", "}", `{"room"}`, `{"room":}`, `{"room":"a",}`, `{'room':'a'}`, `{room:"a"}`, `{"room":"a"} x`, `{}{}`, "{} // no",
		"[]", `[{"room":"a"}]`, `"x"`, "1", "true", "null", "NaN", `{"createdAt":01}`, `{"createdAt":+1}`, `{"createdAt":.5}`, `{"createdAt":Infinity}`,
		`{"room":"a","room":"a"}`, `{"room":"a","r\u006fom":"b"}`, `{"title":{"a":1,"a":2}}`, `{"title":[{"a":1,"a":1}]}`,
		`{"room":"\ud800"}`, `{"room":"\udc00"}`, `{"room":"\ud83dx"}`, `{"title":"\ud800"}`, `{"\ud800":1}`, `{"room":"\x"}`, `{"room":"\u12"}`,
		"{\"room\":\"\xff\"}", "{\"room\":\"\xc0\xaf\"}", "{\"room\":\"\xed\xa0\x80\"}", "{\"title\":\"\xf8\"}", "{\"\xff\":1}",
		"{\"room\":\"a\nb\"}", "{\"room\":\"a\x00b\"}", "\xef\xbb\xbf{}", "\x00{}", "{\x00}",
		`{"x":` + strings.Repeat("[", 30000) + strings.Repeat("]", 30000) + `}`,
		`{"x":` + strings.Repeat(`{"a":`, 12000),
	} {
		t.Run(fmt.Sprintf("%.40q", body), func(t *testing.T) {
			alice := alice.In(t)
			alice.Refused(400, "POST", "/chat-sessions", body, "Content-Type: application/json")
			alice.Refused(400, "PATCH", path, body, "Content-Type: application/json")
		})
	}
	check("all bad bodies")
}
