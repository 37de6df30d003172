package feathers

import (
	"fmt"
	"slices"
	"strings"

	"chatsessions/domain"
	"chatsessions/domain/query"
	"chatsessions/http/problem"
)

// Limits of a list, in sessions.
const (
	defaultLimit = 50
	maxLimit     = 1000
)

// A List is the query of a list.
type List struct {
	Query  query.Query
	Select Selection
	Text   string         // as the client wrote it, for a cursor
	in     map[string]int // the filter that collects a field's $in
}

// Cursor returns the value of $cursor, if it is given. A cursor holds the whole query, so
// it must be alone.
func Cursor(params []Param) (cursor string, given bool, err error) {
	given = slices.ContainsFunc(params, func(p Param) bool { return p.Path[0] == "$cursor" })
	if given && (len(params) != 1 || len(params[0].Path) != 1) {
		return "", true, problem.BadRequest("$cursor holds the whole query; give nothing beside it")
	}
	if given {
		cursor = params[0].Value
	}
	return cursor, given, nil
}

// ParseList reads the query of a list from its parameters; text is the query string.
func ParseList(text string, params []Param) (List, error) {
	l := List{Query: query.Everything(defaultLimit), Text: text, in: map[string]int{}}
	once := map[string]bool{}
	for i := range params {
		p := &params[i]
		repeatable := len(p.Path) == 2 && p.Path[1] == "$in" || p.Path[0] == "$select"
		name := strings.Join(p.Path, "\x00")
		if !repeatable && once[name] {
			return l, problem.BadRequest("%s is given twice%s", p.Key, severalValues(p.Path[0]))
		}
		once[name] = true
		if err := l.add(p); err != nil {
			return l, err
		}
	}
	return l, nil
}

// severalValues explains how to give a filter more than one value.
func severalValues(name string) string {
	if !slices.Contains(domain.FilterFields(), name) {
		return ""
	}
	return fmt.Sprintf("; several values are given as %s[$in][]=…", name)
}

func (l *List) add(p *Param) error {
	switch name := p.Path[0]; {
	case p.Is("$limit"):
		n, err := p.Number()
		l.Query.Limit = int(min(n, maxLimit))
		return err
	case p.Is("$skip"):
		n, err := p.Number()
		l.Query.Skip = int(n)
		return err
	case name == "$sort":
		return l.sort(p)
	case p.Is("$select"):
		return l.Select.add(p)
	case name == "createdAt":
		return l.bound(p)
	case slices.Contains(domain.FilterFields(), name):
		return l.filter(p)
	case strings.HasPrefix(name, "$"):
		return problem.BadRequest("%s is not an operator here; there are $limit, $skip, $sort, $select, and $in, $gt, $gte, $lt, $lte behind a field", p.Key)
	default:
		return problem.BadRequest("%s is not a field that a list can be filtered by; there are createdAt, %s", p.Key, strings.Join(domain.FilterFields(), ", "))
	}
}

func (l *List) sort(p *Param) error {
	if len(p.Path) != 2 || p.Path[1] != "createdAt" {
		return problem.BadRequest("%s: lists are sorted by createdAt only, $sort[createdAt]=1 or -1", p.Key)
	}
	switch p.Untagged() {
	case "1":
		l.Query.Ascending = true
	case "-1":
		l.Query.Ascending = false
	default:
		return problem.BadRequest("%s must be 1 or -1, not %q", p.Key, p.Value)
	}
	return nil
}

// bound narrows the range of createdAt.
func (l *List) bound(p *Param) error {
	operator := "" // equality
	if len(p.Path) > 1 {
		operator = p.Path[1]
	}
	if len(p.Path) > 2 || len(p.Path) == 2 && !slices.Contains([]string{"$gt", "$gte", "$lt", "$lte"}, operator) {
		return problem.BadRequest("%s is not an operator for createdAt; there are $gt, $gte, $lt, $lte", p.Key)
	}
	at, err := p.Number()
	if err != nil {
		return err
	}
	q := &l.Query
	switch operator {
	case "$gt":
		q.MinCreatedAt = max(q.MinCreatedAt, at+1)
	case "$gte":
		q.MinCreatedAt = max(q.MinCreatedAt, at)
	case "$lt":
		q.MaxCreatedAt = min(q.MaxCreatedAt, at-1)
	case "$lte":
		q.MaxCreatedAt = min(q.MaxCreatedAt, at)
	default:
		q.MinCreatedAt, q.MaxCreatedAt = max(q.MinCreatedAt, at), min(q.MaxCreatedAt, at)
	}
	return nil
}

// filter adds an equality, or a value to a field's $in.
func (l *List) filter(p *Param) error {
	field := p.Path[0]
	if len(p.Path) == 1 {
		if strings.HasSuffix(p.Key, "]") {
			return problem.BadRequest("%s: several values are given as %s[$in][]=…", p.Key, field)
		}
		l.Query.Filters = append(l.Query.Filters, query.Filter{Field: field, Values: []string{p.Value}})
		return nil
	}
	if len(p.Path) > 2 || p.Path[1] != "$in" {
		return problem.BadRequest("%s is not an operator for %s; there is equality, and $in", p.Key, field)
	}
	i, begun := l.in[field]
	if !begun {
		i = len(l.Query.Filters)
		l.in[field] = i
		l.Query.Filters = append(l.Query.Filters, query.Filter{Field: field})
	}
	if f := &l.Query.Filters[i]; !slices.Contains(f.Values, p.Value) {
		f.Values = append(f.Values, p.Value)
	}
	return nil
}
