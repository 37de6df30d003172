package feathers

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"chatsessions/domain/query"
	"chatsessions/http/problem"
)

func TestQueries(t *testing.T) {
	base := query.Everything(50)
	with := func(change func(*query.Query)) query.Query {
		q := base
		change(&q)
		return q
	}
	for text, want := range map[string]query.Query{
		"":                             base,
		"&&":                           base,
		"$limit=10":                    with(func(q *query.Query) { q.Limit = 10 }),
		"$limit=%2310":                 with(func(q *query.Query) { q.Limit = 10 }),
		"$limit=#10":                   with(func(q *query.Query) { q.Limit = 10 }),
		"%24limit=0":                   with(func(q *query.Query) { q.Limit = 0 }),
		"$limit=1e40":                  with(func(q *query.Query) { q.Limit = 1000 }),
		"$limit=5000":                  with(func(q *query.Query) { q.Limit = 1000 }),
		"$limit=1e1&$skip=%235":        with(func(q *query.Query) { q.Limit, q.Skip = 10, 5 }),
		"$sort[createdAt]=1":           with(func(q *query.Query) { q.Ascending = true }),
		"%24sort%5BcreatedAt%5D=%23-1": base,
		"room=%2310":                   with(func(q *query.Query) { q.Filters = []query.Filter{{Field: "room", Values: []string{"#10"}}} }),
		"room=a+b%2Bc":                 with(func(q *query.Query) { q.Filters = []query.Filter{{Field: "room", Values: []string{"a b+c"}}} }),
		"state[$in][]=created&state[$in][]=started": with(func(q *query.Query) {
			q.Filters = []query.Filter{{Field: "state", Values: []string{"created", "started"}}}
		}),
		"state[$in][0]=created&room=x&state[$in][1]=started": with(func(q *query.Query) {
			q.Filters = []query.Filter{{Field: "state", Values: []string{"created", "started"}}, {Field: "room", Values: []string{"x"}}}
		}),
		"participants[$in]=a":                   with(func(q *query.Query) { q.Filters = []query.Filter{{Field: "participants", Values: []string{"a"}}} }),
		"createdAt[$gt]=5&createdAt[$lte]=%239": with(func(q *query.Query) { q.MinCreatedAt, q.MaxCreatedAt = 6, 9 }),
		"createdAt[$gte]=5&createdAt[$lt]=9":    with(func(q *query.Query) { q.MinCreatedAt, q.MaxCreatedAt = 5, 8 }),
	} {
		got, err := ParseList(text)
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
		_, err := ParseList(text)
		var p *problem.Problem
		if !errors.As(err, &p) || p.Status != 400 || !strings.Contains(p.Detail, names) {
			t.Errorf("%s: %v; want a 400 that names %q", text, err, names)
		}
	}
}

func TestSelection(t *testing.T) {
	document := []byte(`{"id":"1","createdAt":5,"room":"a\"b","participants":["x"],"state":"created"}`)
	for want, names := range map[string]Selection{
		string(document):           nil,
		`{"id":"1","room":"a\"b"}`: {"room"},
		`{"id":"1"}`:               {"startedAt"},
		`{"id":"1","createdAt":5,"state":"created"}`: {"state", "id", "createdAt"},
	} {
		if got := string(names.Project(document)); got != want {
			t.Errorf("%v: got %s, want %s", names, got, want)
		}
	}
}

func TestACursorIsAlone(t *testing.T) {
	for text, want := range map[string]string{"$cursor=abc": "abc", "%24cursor=": "", "$cursor[]=abc": "abc"} {
		if l, err := ParseList(text); err != nil || l.Cursor == nil || *l.Cursor != want {
			t.Errorf("%s: %+v, %v", text, l, err)
		}
	}
	for _, text := range []string{"$cursor=abc&$limit=1", "$limit=1&$cursor=abc", "$cursor=a&$cursor=b", "$cursor[$in]=a", "$cursor=a&x=1"} {
		if _, err := ParseList(text); err == nil || !strings.Contains(err.Error(), "$cursor holds the whole query") {
			t.Errorf("%s: %v", text, err)
		}
	}
	if l, err := ParseList("$limit=1"); l.Cursor != nil || err != nil {
		t.Errorf("%+v, %v without one", l, err)
	}
}

func TestAFieldWithSeveralValues(t *testing.T) {
	const text = "room[$in][]=a&state[$in][]=x&room[$in][]=b&room[$in]=a&room=c"
	l, err := ParseList(text)
	want := []query.Filter{{Field: "room", Values: []string{"a", "b"}}, {Field: "state", Values: []string{"x"}}, {Field: "room", Values: []string{"c"}}}
	if err != nil || !reflect.DeepEqual(l.Query.Filters, want) || l.Text != text {
		t.Errorf("%+v %v", l, err)
	}
	for _, text := range []string{"createdAt[][]=5", "createdAt[$gt][$gt]=5", "createdAt[=]=5", "createdAt[$eq]=5", "room[$in][$in]=a", "$limit[$in]=1", "$select[$in]=room"} {
		_, err := ParseList(text)
		if err == nil {
			t.Errorf("%s is taken", text)
		}
	}
}

func TestAStoredSessionThatIsNotJSON(t *testing.T) {
	for _, document := range []string{"", "[", `{"id":`, `{"id":1`, `{"id":1,}`, `{"id"}`} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%q is taken", document)
				}
			}()
			Selection{"id"}.Project([]byte(document))
		}()
	}
	if got := (Selection{"room"}).Text(`{"id":"1","room":"r","state":"x"}`); got != `{"id":"1","room":"r"}` {
		t.Error(got)
	}
	if got := (Selection{}).Text("as it is"); got != "as it is" {
		t.Error(got)
	}
}
