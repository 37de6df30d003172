package http

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"chatsessions/domain"
	"chatsessions/http/problem"
)

func TestBodiesThatAreRefusedWhole(t *testing.T) {
	for body, want := range map[string]string{
		``:                                   "empty",
		" \n":                                "empty",
		`nonsense`:                           "not valid JSON",
		`{`:                                  "not valid JSON",
		`{"room":"a"`:                        "not valid JSON",
		`[]`:                                 "array",
		`"x"`:                                "string",
		`null`:                               "null",
		`1`:                                  "number",
		`{} {}`:                              "more data",
		`{}x`:                                "more data",
		`{"a":1,"a":2}`:                      "duplicate",
		`{"a":{"b":1,"b":2}}`:                "duplicate",
		`{"a":1,"\u0061":2}`:                 "duplicate",
		"{\"room\":\"\xff\"}":                "UTF-8",
		`{"room":"\ud800"}`:                  "surrogate",
		`{"room":"\udc00x"}`:                 "surrogate",
		`{"x":[{"y":"\ud800"}]}`:             "surrogate",
		"{\"room\":\"a\x00b\"}":              "not valid JSON",
		"\xef\xbb\xbf{}":                     "not valid JSON",
		`{"x":` + strings.Repeat("[", 20000): "not valid JSON",
	} {
		_, err := parseObject([]byte(body))
		var p *problem.Problem
		if !errors.As(err, &p) || p.Status != 400 || !strings.Contains(p.Detail, want) {
			t.Errorf("%.40q: %v; want a 400 that says %q", body, err, want)
		}
	}
}

// TestEveryFieldOfAPatch: each field with a wrong type, a wrong value and null.
func TestEveryFieldOfAPatch(t *testing.T) {
	text256, text257 := strings.Repeat("é", 256), strings.Repeat("é", 257)
	good := map[string][]string{
		"type":         {`"telemed"`, `null`},
		"room":         {`"r"`, `null`, `"` + text256 + `"`, `"a\tb\nc\r"`, `"\ud83d\ude00"`, `"#10"`},
		"participants": {`[]`, `null`, `["a"]`, `["a","b"]`},
		"createdAt":    {`0`, `1e3`, `1.0`, `8640000000000000`},
		"rejectReason": {`""`, `null`, `"x"`},
		"finishReason": {`""`, `null`, `"` + strings.Repeat("x", 1024) + `"`},
		"start":        {`true`, `false`, `null`, `""`},
		"accept":       {`true`, `false`, `null`, `""`},
		"reject":       {`true`, `false`, `null`, `""`, `"why"`},
		"finish":       {`true`, `false`, `null`, `""`, `"why"`},
	}
	bad := map[string][]string{
		"type":         {`""`, `"Telemed"`, `"chat"`, `1`, `true`, `[]`, `{}`},
		"room":         {`""`, `1`, `true`, `["a"]`, `{}`, `"` + text257 + `"`, `"a\u0000b"`, `"\u0085"`, `"\u007f"`},
		"participants": {`"a"`, `1`, `true`, `{}`, `["a","a"]`, `[""]`, `[1]`, `[null]`, `[["a"]]`, `["` + strings.Repeat("u", 129) + `"]`, manyAccounts(101)},
		"createdAt":    {`null`, `-1`, `1.5`, `"1"`, `true`, `[]`, `{}`, `8640000000000001`, `1e400`},
		"rejectReason": {`1`, `true`, `[]`, `{}`, `"` + strings.Repeat("x", 1025) + `"`, `"\u001b"`},
		"finishReason": {`1`, `false`},
		"start":        {`1`, `0`, `"yes"`, `[]`, `{}`},
		"accept":       {`1`, `"true"`, `[]`},
		"reject":       {`1`, `[]`, `{}`, `"` + strings.Repeat("x", 1025) + `"`},
		"finish":       {`0`, `[]`, `{}`, `"\u0007"`},
	}
	for _, tr := range domain.Transitions() {
		good[tr.AtField()] = []string{`0`, `1564661697125`}
		bad[tr.AtField()] = bad["createdAt"]
		good[tr.ByField()] = []string{`"a"`, `"` + strings.Repeat("é", 128) + `"`}
		bad[tr.ByField()] = []string{`null`, `""`, `1`, `true`, `[]`, `{}`, `"` + strings.Repeat("é", 129) + `"`, `"a\u0000"`}
	}
	read := func(name, value string) *bodyReader {
		members, err := parseObject([]byte(`{"` + name + `":` + value + `}`))
		if err != nil {
			t.Fatalf("%s: %s: %v", name, value, err)
		}
		_, r := readChange(members)
		return r
	}
	for name, values := range good {
		for _, value := range values {
			if r := read(name, value); len(r.problems) > 0 || len(r.unknown) > 0 {
				t.Errorf("%s: %.40s is refused: %v, unknown %v", name, value, r.problems, r.unknown)
			}
		}
	}
	for name, values := range bad {
		for _, value := range values {
			r := read(name, value)
			if len(r.problems) == 0 || !strings.HasPrefix(r.problems[0].Pointer, "/"+name) {
				t.Errorf("%s: %.40s is not refused under its name: %v", name, value, r.problems)
			}
		}
	}
}

func manyAccounts(n int) string {
	uids := make([]string, n)
	for i := range uids {
		uids[i] = fmt.Sprintf("a%d", i)
	}
	text, _ := json.Marshal(uids)
	return string(text)
}

func TestEveryBadFieldIsListed(t *testing.T) {
	members, err := parseObject([]byte(`{"room":1,"participants":["a",2,"b",3],"startedAt":"x","accept":"yes"}`))
	if err != nil {
		t.Fatal(err)
	}
	_, r := readChange(members)
	var pointers []string
	for _, p := range r.problems {
		pointers = append(pointers, p.Pointer)
	}
	if want := []string{"/room", "/participants/1", "/participants/3", "/startedAt", "/accept"}; !slices.Equal(pointers, want) {
		t.Errorf("got %v, want %v", pointers, want)
	}
}

// TestWhatIsWrongIsNotCalledMissing: one mistake is told once.
func TestWhatIsWrongIsNotCalledMissing(t *testing.T) {
	by := domain.Caller{Account: "pat", Role: domain.RoleAccount}
	session := domain.Session{ID: "s1", CreatedBy: "pat", State: domain.StateCreated, Version: 1}
	for body, want := range map[string][]string{
		`{"finishedAt":"bad","finishReason":"x"}`:      {"/finishedAt"},
		`{"finish":5,"finishReason":"x"}`:              {"/finish"},
		`{"finish":"x","finishReason":5}`:              {"/finishReason"},
		`{"participants":[1,"","ok","ok",2]}`:          {"/participants/0", "/participants/4", "/participants/1", "/participants/3"},
		`{"acceptedBy":7,"rejectedBy":"pat","room":1}`: {"/acceptedBy", "/room", "/reject"},
	} {
		members, err := parseObject([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		change, r := readChange(members)
		change.By = by
		_, err = domain.Decide(session, parsed(change, r))
		if got := pointers(err); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", body, got, want)
		}
	}
	members, err := parseObject([]byte(`{"startedAt":1,"acceptedAt":"q","finishedBy":"pat"}`))
	if err != nil {
		t.Fatal(err)
	}
	values, r := readCreate(members, by)
	_, err = domain.Decide(domain.Session{}, parsed(domain.Create{ID: "s1", By: by, Values: values}, r))
	if got := pointers(err); !slices.Equal(got, []string{"/acceptedAt"}) {
		t.Errorf("import: %v", got)
	}
}

// parsed is the command with what its parser found wrong.
func parsed(c domain.Command, r *bodyReader) domain.Command {
	return domain.Parsed{Command: c, Findings: func(s *domain.Session) []domain.FieldError { return r.findings(s, false) }}
}

func pointers(err error) []string {
	var invalid *domain.InvalidError
	var all []string
	if errors.As(err, &invalid) {
		for _, f := range invalid.Fields {
			all = append(all, f.Pointer)
		}
	}
	return all
}

func TestPointersAreEscaped(t *testing.T) {
	if got := pointer("a/b~c"); got != "/a~1b~0c" {
		t.Error(got)
	}
}

func TestEntityTags(t *testing.T) {
	for value, matches := range map[string]bool{
		`*`: true, `"3"`: true, `"1", "3"`: true, `"1","3"`: true, ` "3" `: true, `"1" , W/"2", "3"`: true,
		`"4"`: false, `W/"3"`: false, `"03"`: false, `""`: false, `"3,3"`: false,
	} {
		list, err := parseTags("If-Match", value)
		if err != nil || list.holds(problem.ETag(3), false) != matches {
			t.Errorf("%s: %v, %v; want %v", value, list.holds(problem.ETag(3), false), err, matches)
		}
	}
	if list, _ := parseTags("If-None-Match", `W/"3"`); !list.holds(problem.ETag(3), true) {
		t.Error("a weak tag does not match weakly")
	}
	for _, value := range []string{`3`, `"3`, `W/3`, `"1" "3"`, `"1", 3`, `*, "3"`} {
		if list, err := parseTags("If-Match", value); err == nil {
			t.Errorf("%s is taken for %+v", value, list)
		}
	}
}

func TestTraceContextGoesOn(t *testing.T) {
	given := "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	got := traceParent(given)
	if !strings.HasPrefix(got, given[:36]) || got == given || !strings.HasSuffix(got, "-01") {
		t.Errorf("%s became %s; want the same trace and a span of our own", given, got)
	}
	for _, wrong := range []string{"", "x", given[:54], strings.ToUpper(given), "00-00000000000000000000000000000000-00f067aa0ba902b7-01"} {
		if got := traceParent(wrong); len(got) != len(given) || strings.HasPrefix(got, given[:36]) {
			t.Errorf("%q became %s; want a new trace", wrong, got)
		}
	}
}

func TestIgnoredFieldsFitIntoAHeader(t *testing.T) {
	for want, names := range map[string][]string{
		"title, seen":      {"title", "seen"},
		"a%20b, %C3%A9%0A": {"a b", "é\n"},
		"a%2Cb":            {"a,b"},
	} {
		if got := headerList(names); got != want {
			t.Errorf("%q: got %q, want %q", names, got, want)
		}
	}
	if got := headerList(slices.Repeat([]string{"name"}, 10000)); len(got) > maxIgnored || !strings.HasSuffix(got, ", ...") {
		t.Errorf("%d bytes, ends with %q", len(got), got[len(got)-10:])
	}
	if got := headerList([]string{strings.Repeat("x", 5000)}); got != "..." {
		t.Errorf("%.20q", got)
	}
}
