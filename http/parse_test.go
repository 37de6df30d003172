package http

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"chatsessions/domain"
)

func TestWholeNumbers(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "-0": 0, "-0.0": 0, "1": 1, "1e3": 1000, "1E+3": 1000, "1.0": 1, "1.5e1": 15, "10e-1": 1,
		"1564661697125": 1564661697125, "8640000000000000": domain.MaxTime, "8.64e15": domain.MaxTime,
		"0e999999999999999999999": 0, "0.000e-99999999999999": 0, "1000000000000000000000e-20": 10,
	} {
		if n, ok := parseWhole(text, 0, domain.MaxTime); !ok || n != want {
			t.Errorf("%s is %d, %v; want %d", text, n, ok, want)
		}
	}
	for _, text := range []string{
		"", "-", "-1", "1.5", "1e-1", "8640000000000001", "8.6400000000000001e15", "1e16", "1e999999999999999999",
		"01", "1.", ".5", "1e", "1e+", "+1", " 1", "1 ", "0x1", "1_000", "NaN", "Infinity", "1.00000000000000000001", "１",
	} {
		if n, ok := parseWhole(text, 0, domain.MaxTime); ok {
			t.Errorf("%q is taken for %d", text, n)
		}
	}
}

// TestWholeNumbersAgreeWithExactArithmetic compares with math/big.
func TestWholeNumbersAgreeWithExactArithmetic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`-?(0|[1-9][0-9]{0,18})(\.[0-9]{1,18})?([eE][+-]?[0-9]{1,2})?`).Draw(t, "number")
		n, ok := parseWhole(text, -domain.MaxTime, domain.MaxTime)
		exact, _ := new(big.Rat).SetString(text)
		inRange := exact.IsInt() && new(big.Int).Abs(exact.Num()).Cmp(big.NewInt(domain.MaxTime)) <= 0
		if ok != inRange || ok && exact.Num().Int64() != n {
			t.Fatalf("%s: got %d, %v; exactly %s", text, n, ok, exact)
		}
	})
}

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
		`{} {}`:                              "goes on",
		`{}x`:                                "goes on",
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
		var p *problem
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

func TestPointersAreEscaped(t *testing.T) {
	if got := pointer("a/b~c"); got != "/a~1b~0c" {
		t.Error(got)
	}
}

func TestQueries(t *testing.T) {
	base := domain.Everything(50)
	with := func(change func(*domain.Query)) domain.Query {
		q := base
		change(&q)
		return q
	}
	for text, want := range map[string]domain.Query{
		"":                             base,
		"&&":                           base,
		"$limit=10":                    with(func(q *domain.Query) { q.Limit = 10 }),
		"$limit=%2310":                 with(func(q *domain.Query) { q.Limit = 10 }),
		"$limit=#10":                   with(func(q *domain.Query) { q.Limit = 10 }),
		"%24limit=0":                   with(func(q *domain.Query) { q.Limit = 0 }),
		"$limit=5000":                  with(func(q *domain.Query) { q.Limit = 1000 }),
		"$limit=1e1&$skip=%235":        with(func(q *domain.Query) { q.Limit, q.Skip = 10, 5 }),
		"$sort[createdAt]=1":           with(func(q *domain.Query) { q.Ascending = true }),
		"%24sort%5BcreatedAt%5D=%23-1": base,
		"room=%2310":                   with(func(q *domain.Query) { q.Filters = []domain.Filter{{Field: "room", Values: []string{"#10"}}} }),
		"room=a+b%2Bc":                 with(func(q *domain.Query) { q.Filters = []domain.Filter{{Field: "room", Values: []string{"a b+c"}}} }),
		"state[$in][]=created&state[$in][]=started": with(func(q *domain.Query) {
			q.Filters = []domain.Filter{{Field: "state", Values: []string{"created", "started"}}}
		}),
		"state[$in][0]=created&room=x&state[$in][1]=started": with(func(q *domain.Query) {
			q.Filters = []domain.Filter{{Field: "state", Values: []string{"created", "started"}}, {Field: "room", Values: []string{"x"}}}
		}),
		"participants[$in]=a":                   with(func(q *domain.Query) { q.Filters = []domain.Filter{{Field: "participants", Values: []string{"a"}}} }),
		"createdAt[$gt]=5&createdAt[$lte]=%239": with(func(q *domain.Query) { q.MinCreatedAt, q.MaxCreatedAt = 6, 9 }),
		"createdAt[$gte]=5&createdAt[$lt]=9":    with(func(q *domain.Query) { q.MinCreatedAt, q.MaxCreatedAt = 5, 8 }),
	} {
		params, err := parseParams(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got, err := parseListQuery(text, params)
		if err != nil || !reflect.DeepEqual(got.Query, want) {
			t.Errorf("%s:\n got %+v, %v\nwant %+v", text, got.Query, err, want)
		}
	}
	for text, names := range map[string]string{
		"rom=a":               "rom",
		"room[$ne]=a":         "room[$ne]",
		"room[$gt]=a":         "room[$gt]",
		"$or[0][room]=a":      "$or[0][room]",
		"$populate=x":         "$populate",
		"createdAt[$in][]=1":  "createdAt[$in]",
		"createdAt[$gt]=x":    "createdAt[$gt]",
		"$limit=-1":           "$limit",
		"$limit=ten":          "$limit",
		"$limit=":             "$limit",
		"$limit=1&$limit=2":   "$limit",
		"$skip=1.5":           "$skip",
		"$sort[room]=1":       "$sort[room]",
		"$sort[createdAt]=2":  "$sort[createdAt]",
		"$sort=createdAt":     "$sort",
		"$select[]=bogus":     "bogus",
		"room=a&room=b":       "room",
		"room[]=a":            "room[$in]",
		"room[=a":             "room[",
		"room]=a":             "room]",
		"room[a]]=a":          "room[a]]",
		"room=%zz":            "%zz",
		"room=%ff":            "%ff",
		"__proto__[x]=1":      "__proto__",
		"state[$in][$in][]=x": "state[$in][$in]",
		"[$in]=x":             "[$in]",
	} {
		params, err := parseParams(text)
		if err == nil {
			_, err = parseListQuery(text, params)
		}
		var p *problem
		if !errors.As(err, &p) || p.Status != 400 || !strings.Contains(p.Detail, names) {
			t.Errorf("%s: %v; want a 400 that names %q", text, err, names)
		}
	}
}

func TestSelection(t *testing.T) {
	document := []byte(`{"id":"1","createdAt":5,"room":"a\"b","participants":["x"],"state":"created"}`)
	for want, names := range map[string]selection{
		string(document):           nil,
		`{"id":"1","room":"a\"b"}`: {"room"},
		`{"id":"1"}`:               {"startedAt"},
		`{"id":"1","createdAt":5,"state":"created"}`: {"state", "id", "createdAt"},
	} {
		if got := string(names.project(document)); got != want {
			t.Errorf("%v: got %s, want %s", names, got, want)
		}
	}
}

func TestEntityTags(t *testing.T) {
	for value, matches := range map[string]bool{
		`*`: true, `"3"`: true, `"1", "3"`: true, `"1","3"`: true, ` "3" `: true, `"1" , W/"2", "3"`: true,
		`"4"`: false, `W/"3"`: false, `"03"`: false, `""`: false, `"3,3"`: false,
	} {
		list, err := parseTags("If-Match", value)
		if err != nil || list.holds(3, false) != matches {
			t.Errorf("%s: %v, %v; want %v", value, list.holds(3, false), err, matches)
		}
	}
	if list, _ := parseTags("If-None-Match", `W/"3"`); !list.holds(3, true) {
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

func TestTokens(t *testing.T) {
	caller := domain.Caller{Account: "alice smith", Role: domain.RoleService}
	token := NewToken()
	callers, err := parseTokens(strings.NewReader("# comment\n\n  " + TokenLine(token, caller) + "  \r\n"))
	if err != nil || len(callers) != 1 {
		t.Fatal(callers, err)
	}
	for _, got := range callers {
		if got != caller {
			t.Errorf("got %+v, want %+v", got, caller)
		}
	}
	hash := strings.Repeat("ab", 32)
	for line, names := range map[string]string{
		"x":                                "line 1",
		hash:                               "line 1",
		hash + " account":                  "line 1",
		hash + " root alice":               `"root"`,
		"xy" + hash[2:] + " account alice": "SHA-256",
		hash[2:] + " account alice":        "SHA-256",
		hash + " account a\n" + hash + " account b":   "line 2",
		hash + " account " + strings.Repeat("x", 129): "128",
	} {
		if _, err := parseTokens(strings.NewReader(line)); err == nil || !strings.Contains(err.Error(), names) {
			t.Errorf("%.60q: %v; want an error that says %s", line, err, names)
		}
	}
	for token, want := range map[string]domain.Caller{
		"dev-account-alice":       {Account: "alice", Role: domain.RoleAccount},
		"dev-service-crm":         {Account: "crm", Role: domain.RoleService},
		"dev-account-account-id1": {Account: "account-id1", Role: domain.RoleAccount},
	} {
		if got, ok := (DevTokens{}).Verify(token); !ok || got != want {
			t.Errorf("%s stands for %+v, %v", token, got, ok)
		}
	}
	for _, token := range []string{"", "dev", "dev-", "dev-account", "dev-account-", "dev-root-alice", "account-alice", "dev--alice"} {
		if got, ok := (DevTokens{}).Verify(token); ok {
			t.Errorf("%q stands for %+v", token, got)
		}
	}
}

func TestProblemNamesAreThoseOfFeathers(t *testing.T) {
	for status, want := range map[int][2]string{
		400: {"BadRequest", "bad-request"}, 401: {"NotAuthenticated", "not-authenticated"}, 403: {"Forbidden", "forbidden"},
		404: {"NotFound", "not-found"}, 405: {"MethodNotAllowed", "method-not-allowed"}, 408: {"Timeout", "timeout"},
		409: {"Conflict", "conflict"}, 412: {"PreconditionFailed", "precondition-failed"}, 413: {"PayloadTooLarge", "payload-too-large"},
		414: {"URITooLong", "uri-too-long"}, 415: {"UnsupportedMediaType", "unsupported-media-type"},
		422: {"Unprocessable", "unprocessable"}, 429: {"TooManyRequests", "too-many-requests"},
		431: {"RequestHeaderFieldsTooLarge", "request-header-fields-too-large"},
		500: {"GeneralError", "general-error"}, 503: {"Unavailable", "unavailable"}, 504: {"GatewayTimeout", "gateway-timeout"},
	} {
		if p := newProblem(status, ""); p.Name != want[0] || p.ClassName != want[1] {
			t.Errorf("%d: %s, %s; want %v", status, p.Name, p.ClassName, want)
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

func FuzzBody(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"start":true}`, `{"seen":true}`, `{"participants":["account-id1","account-id2"],"title":"Hello"}`,
		`{"reject":"busy","rejectReason":"busy","rejectedAt":1e3}`, `{"room":"\ud83d\ude00\n","createdAt":-0.0}`,
		`{"a":{"b":[1,2,{"c":null}]}}`, `{"a":1,"a":2}`, `{"room":"\ud800"}`, `[]`, ``, `{"id":"x","version":3,"state":"started"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		members, err := parseObject(body)
		if err != nil {
			var p *problem
			if !errors.As(err, &p) || p.Status != 400 {
				t.Fatalf("refused with %v, not with a 400", err)
			}
			return
		}
		var other map[string]any
		if err := json.Unmarshal(body, &other); err != nil || len(other) != len(members) {
			t.Fatalf("taken for %d members, encoding/json says %d (%v)", len(members), len(other), err)
		}
		by := domain.Caller{Account: "pat", Role: domain.RoleService}
		values, r := readCreate(members, by)
		events, err := domain.Decide(domain.Session{}, domain.Create{ID: "s1", By: by, Now: 1 << 40, Values: values, Problems: r.problems})
		if err == nil {
			checkSession(t, &events[len(events)-1].Session)
		}
		change, r := readChange(members)
		change.By, change.Now, change.Problems = by, 1<<40, r.problems
		session := domain.Session{ID: "s1", CreatedBy: "pat", State: domain.StateCreated, Version: 1}
		r.ignored(&session)
		if events, err = domain.Decide(session, change); err == nil && len(events) > 0 {
			checkSession(t, &events[len(events)-1].Session)
		}
	})
}

// checkSession checks that what was let in is what the contract allows.
func checkSession(t *testing.T, s *domain.Session) {
	texts := append([]string{s.Room, s.CreatedBy}, s.Participants...)
	times := []int64{s.CreatedAt}
	for _, stamp := range s.Stamps {
		if stamp != nil {
			texts = append(texts, stamp.By, stamp.Reason)
			times = append(times, stamp.At)
		}
	}
	for _, text := range texts {
		if !utf8.ValidString(text) || utf8.RuneCountInString(text) > domain.MaxReason {
			t.Fatalf("let in: %q", text)
		}
	}
	for _, at := range times {
		if at < 0 || at > domain.MaxTime {
			t.Fatalf("let in: %d", at)
		}
	}
	if !json.Valid(s.AppendJSON(nil)) {
		t.Fatalf("encoded to %s", s.AppendJSON(nil))
	}
}

func FuzzQuery(f *testing.F) {
	for _, seed := range []string{
		"", "$limit=#10", "$limit=10&$skip=5", "$sort[createdAt]=-1", "state[$in][]=created&state[$in][]=started",
		"createdAt[$gt]=1&createdAt[$lte]=1e3", "$select[]=id&$select[1]=room", "room=%2310", "%24limit=%231", "a[b", "=", "[]=",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		params, err := parseParams(text)
		var q listQuery
		if err == nil {
			q, err = parseListQuery(text, params)
		}
		if _, selectErr := parseSelectOnly(text); selectErr != nil {
			mustBe400(t, selectErr)
		}
		if err != nil {
			mustBe400(t, err)
			return
		}
		if q.Limit < 0 || q.Limit > maxLimit || q.Skip < 0 || q.MinCreatedAt < 0 {
			t.Fatalf("let in: %+v", q.Query)
		}
		for _, filter := range q.Filters {
			if !slices.Contains(domain.FilterFields(), filter.Field) || len(filter.Values) == 0 {
				t.Fatalf("let in: %+v", filter)
			}
		}
	})
}

func mustBe400(t *testing.T, err error) {
	t.Helper()
	var p *problem
	if !errors.As(err, &p) || p.Status != 400 || p.Detail == "" {
		t.Fatalf("refused with %v, not with a 400 that says why", err)
	}
}

func FuzzToken(f *testing.F) {
	for _, seed := range []string{
		"Bearer dev-account-alice", "bearer  x", "Basic x", "Bearer", "", "Bearer dev-admin-", "Bearer dev-service-a b",
		TokenLine("t", domain.Caller{Account: "alice", Role: domain.RoleAccount}),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if token, given := bearer(text); given {
			if caller, ok := (DevTokens{}).Verify(token); ok {
				if err := CheckCaller(caller); err != nil || token != "dev-"+string(caller.Role)+"-"+caller.Account {
					t.Fatalf("%q stands for %+v (%v)", token, caller, err)
				}
			}
		}
		callers, err := parseTokens(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, caller := range callers {
			again, err := parseTokens(strings.NewReader(TokenLine("t", caller)))
			if err != nil || len(again) != 1 {
				t.Fatalf("%+v is let in, but its own line is not: %v", caller, err)
			}
		}
	})
}
