package http

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"chatsessions/domain"
	"chatsessions/domain/query"
	"chatsessions/http/problem"
)

// Limits of a list.
const (
	defaultLimit = 50
	maxLimit     = 1000
)

// A listQuery is the query of a list, in the Feathers syntax.
type listQuery struct {
	query.Query
	names selection
	text  string         // as the client wrote it; a cursor takes it along
	in    map[string]int // the filter that collects a field's $in
}

// A param is one name=value of a query: createdAt[$gt]=5 has the path
// [createdAt $gt].
type param struct {
	key   string // as the client wrote it, for messages
	path  []string
	value string
}

// parseList reads a list's query; with a cursor in it, the query is the one that
// the cursor stands for.
func (s *Server) parseList(ctx context.Context, account, text string) (listQuery, error) {
	params, err := parseParams(text)
	if err != nil {
		return listQuery{}, err
	}
	if !slices.ContainsFunc(params, func(p param) bool { return p.path[0] == "$cursor" }) {
		return parseListQuery(text, params)
	}
	if len(params) != 1 || len(params[0].path) != 1 {
		return listQuery{}, problem.BadRequest("$cursor holds the whole query; give nothing beside it")
	}
	text, after, err := s.openCursor(ctx, account, params[0].value)
	if err != nil {
		return listQuery{}, err
	}
	if params, err = parseParams(text); err != nil {
		return listQuery{}, err
	}
	query, err := parseListQuery(text, params)
	query.After, query.Skip = &after, 0
	return query, err
}

// parseParams splits a query string (URL Standard, section 5.1) and its bracketed
// names. The array forms name[] and name[0] are the same as name.
func parseParams(text string) ([]param, error) {
	var params []param
	for part := range strings.SplitSeq(text, "&") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		key, err := url.QueryUnescape(name)
		if err == nil {
			value, err = url.QueryUnescape(value)
		}
		if err != nil || !utf8.ValidString(key) || !utf8.ValidString(value) {
			return nil, problem.BadRequest("the query has %q, which is not percent-encoded UTF-8", part)
		}
		path, ok := parsePath(key)
		if !ok {
			return nil, problem.BadRequest("the query has %q, whose brackets do not fit; write name[operator]=value", key)
		}
		params = append(params, param{key, path, value})
	}
	return params, nil
}

func parsePath(key string) ([]string, bool) {
	name, rest, bracketed := strings.Cut(key, "[")
	path := []string{name}
	if !bracketed {
		return path, !strings.Contains(key, "]")
	}
	if !strings.HasSuffix(rest, "]") {
		return nil, false
	}
	for part := range strings.SplitSeq(strings.TrimSuffix(rest, "]"), "][") {
		if strings.ContainsAny(part, "[]") {
			return nil, false
		}
		path = append(path, part)
	}
	if last := path[len(path)-1]; last == "" || allDigits(last) {
		path = path[:len(path)-1]
	}
	return path, true
}

func parseListQuery(text string, params []param) (listQuery, error) {
	q := listQuery{Query: query.Everything(defaultLimit), text: text, in: map[string]int{}}
	once := map[string]bool{}
	for _, p := range params {
		repeatable := len(p.path) == 2 && p.path[1] == "$in" || p.path[0] == "$select"
		if name := strings.Join(p.path, "\x00"); !repeatable && once[name] {
			return q, problem.BadRequest("%s is given twice%s", p.key, severalValues(p.path[0]))
		} else {
			once[name] = true
		}
		if err := q.add(p); err != nil {
			return q, err
		}
	}
	return q, nil
}

// severalValues says how a field is given more than one value, where it can be.
func severalValues(name string) string {
	if !slices.Contains(domain.FilterFields(), name) {
		return ""
	}
	return fmt.Sprintf("; several values are given as %s[$in][]=…", name)
}

func (q *listQuery) add(p param) error {
	switch name := p.path[0]; {
	case name == "$limit" && len(p.path) == 1:
		n, err := p.number()
		q.Limit = int(min(n, maxLimit))
		return err
	case name == "$skip" && len(p.path) == 1:
		n, err := p.number()
		q.Skip = int(n)
		return err
	case name == "$sort":
		return q.sort(p)
	case name == "$select" && len(p.path) == 1:
		return q.names.add(p)
	case name == "createdAt":
		return q.bound(p)
	case slices.Contains(domain.FilterFields(), name):
		return q.filter(p)
	case strings.HasPrefix(name, "$"):
		return problem.BadRequest("%s is not an operator here; there are $limit, $skip, $sort, $select, and $in, $gt, $gte, $lt, $lte behind a field", p.key)
	default:
		return problem.BadRequest("%s is not a field that a list can be filtered by; there are createdAt, %s", p.key, strings.Join(domain.FilterFields(), ", "))
	}
}

// number reads a whole number, plain (10) or tagged (#10). What is larger than
// any time is taken for the largest.
func (p param) number() (int64, error) {
	n, ok := readWhole(strings.TrimPrefix(p.value, "#"))
	if !ok || n < 0 {
		return 0, problem.BadRequest("%s must be a whole number from 0, not %q", p.key, p.value)
	}
	return min(n, domain.MaxTime), nil
}

func (q *listQuery) sort(p param) error {
	if len(p.path) != 2 || p.path[1] != "createdAt" {
		return problem.BadRequest("%s: lists are sorted by createdAt only, $sort[createdAt]=1 or -1", p.key)
	}
	switch strings.TrimPrefix(p.value, "#") {
	case "1":
		q.Ascending = true
	case "-1":
		q.Ascending = false
	default:
		return problem.BadRequest("%s must be 1 or -1, not %q", p.key, p.value)
	}
	return nil
}

// bound narrows the range of createdAt.
func (q *listQuery) bound(p param) error {
	operator := "$eq"
	if len(p.path) == 2 {
		operator = p.path[1]
	}
	if len(p.path) > 2 || !slices.Contains([]string{"$eq", "$gt", "$gte", "$lt", "$lte"}, operator) || len(p.path) == 2 && operator == "$eq" {
		return problem.BadRequest("%s is not an operator for createdAt; there are $gt, $gte, $lt, $lte", p.key)
	}
	at, err := p.number()
	if err != nil {
		return err
	}
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
func (q *listQuery) filter(p param) error {
	field := p.path[0]
	if len(p.path) == 1 {
		if strings.HasSuffix(p.key, "]") {
			return problem.BadRequest("%s: several values are given as %s[$in][]=…", p.key, field)
		}
		q.Filters = append(q.Filters, query.Filter{Field: field, Values: []string{p.value}})
		return nil
	}
	if len(p.path) > 2 || p.path[1] != "$in" {
		return problem.BadRequest("%s is not an operator for %s; there is equality, and $in", p.key, field)
	}
	i, begun := q.in[field]
	if !begun {
		i = len(q.Filters)
		q.in[field] = i
		q.Filters = append(q.Filters, query.Filter{Field: field})
	}
	if f := &q.Filters[i]; !slices.Contains(f.Values, p.value) {
		f.Values = append(f.Values, p.value)
	}
	return nil
}

// tooExpensive refuses a query that would have to look at too much.
func (q *listQuery) tooExpensive(err error) error {
	var names []string
	for _, f := range q.Filters {
		names = append(names, f.Field)
	}
	if q.Skip > 0 {
		names = append(names, "$skip="+strconv.Itoa(q.Skip))
	}
	found := ""
	if len(names) > 0 {
		found = " by " + strings.Join(names, ", ")
	}
	return problem.Unavailable(err, "the query would have to look at too many sessions to find those%s; narrow it, by createdAt for example", found).
		Quietly() // it is the query's doing, and counted with the other answers
}

// A selection is the fields that the client wants to see; empty for all. The id
// always comes along, as with Feathers' own databases.
type selection []string

func (s *selection) add(p param) error {
	if !slices.Contains(domain.FieldNames(), p.value) {
		return problem.BadRequest("%s: %q is not a field of a session; there are %s", p.key, p.value, strings.Join(domain.FieldNames(), ", "))
	}
	*s = append(*s, p.value)
	return nil
}

// parseSelectOnly reads the query of what answers with a single session.
func parseSelectOnly(text string) (selection, error) {
	params, err := parseParams(text)
	if err != nil {
		return nil, err
	}
	var s selection
	for _, p := range params {
		if p.path[0] != "$select" || len(p.path) != 1 {
			return nil, problem.BadRequest("%s means nothing for a single session; there is $select", p.key)
		}
		if err := s.add(p); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// projectText is project for a text.
func (s selection) projectText(document string) string {
	if len(s) == 0 {
		return document
	}
	return string(s.project([]byte(document)))
}

// project keeps the selected members of a session's JSON.
func (s selection) project(document []byte) []byte {
	if len(s) == 0 {
		return document
	}
	members, err := parseObject(document)
	if err != nil {
		panic(fmt.Sprintf("a stored session is not JSON: %v", err))
	}
	kept := []byte{'{'}
	for _, m := range members {
		if m.name != "id" && !slices.Contains(s, m.name) {
			continue
		}
		if len(kept) > 1 {
			kept = append(kept, ',')
		}
		kept = append(kept, '"')
		kept = append(kept, m.name...)
		kept = append(kept, '"', ':')
		kept = append(kept, m.value...)
	}
	return append(kept, '}')
}
