package feathers

import (
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
	Cursor *string        // holds the whole query, which is empty here; nil if it is not given
	in     map[string]int // the filter that collects a field's $in
}

// ParseList reads the query of a list.
func ParseList(text string) (List, error) {
	l := List{Query: query.Everything(defaultLimit), Text: text, in: map[string]int{}}
	first := true
	for p, err := range Params(text) {
		if err == nil && (l.Cursor != nil || p.Path[0] == "$cursor" && (!first || !p.Is("$cursor"))) {
			err = problem.BadRequest("$cursor holds the whole query; give nothing beside it")
		}
		if err == nil && p.Again && !p.IsIn() && p.Path[0] != "$select" {
			hint := ""
			if slices.Contains(domain.FilterFields(), p.Path[0]) {
				hint = "; " + HowSeveral(p.Path[0])
			}
			err = problem.BadRequest("%s is given twice%s", p.Key, hint)
		}
		if err == nil {
			err = l.add(p)
		}
		if err != nil {
			return l, err
		}
		first = false
	}
	return l, nil
}

func (l *List) add(p *Param) error {
	switch name := p.Path[0]; {
	case name == "$cursor":
		l.Cursor = &p.Value
		return nil
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
		return problem.BadRequest("%s is not an operator here; use $limit, $skip, $sort, $select, or $in, $gt, $gte, $lt, $lte behind a field", p.Key)
	default:
		return problem.BadRequest("%s is not a field that a list can be filtered by; the fields are createdAt, %s", p.Key, strings.Join(domain.FilterFields(), ", "))
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
	at, err := p.Number()
	q := &l.Query
	switch strings.Join(p.Path, ".") {
	case "createdAt.$gt":
		q.MinCreatedAt = max(q.MinCreatedAt, at+1)
	case "createdAt.$gte":
		q.MinCreatedAt = max(q.MinCreatedAt, at)
	case "createdAt.$lt":
		q.MaxCreatedAt = min(q.MaxCreatedAt, at-1)
	case "createdAt.$lte":
		q.MaxCreatedAt = min(q.MaxCreatedAt, at)
	case "createdAt":
		q.MinCreatedAt, q.MaxCreatedAt = max(q.MinCreatedAt, at), min(q.MaxCreatedAt, at)
	default:
		return problem.BadRequest("%s is not an operator for createdAt; use $gt, $gte, $lt, or $lte", p.Key)
	}
	return err
}

// filter adds an equality, or a value to a field's $in.
func (l *List) filter(p *Param) error {
	field := p.Path[0]
	if len(p.Path) == 1 {
		if strings.HasSuffix(p.Key, "]") {
			return problem.BadRequest("%s: %s", p.Key, HowSeveral(field))
		}
		l.Query.Filters = append(l.Query.Filters, query.Filter{Field: field, Values: []string{p.Value}})
		return nil
	}
	if !p.IsIn() {
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
