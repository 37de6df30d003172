package readmodel

import (
	"fmt"
	"slices"

	"chatsessions/domain"
	"chatsessions/domain/query"
	"chatsessions/projections/layout"
)

// A plan is how to answer a query: the part of the indexes to walk, and what matches.
type plan struct {
	query query.Query
	tests []test // at least one; a match passes all of them
	whole bounds // of createdAt
	rest  bounds // the part of whole after the previous page
	empty bool   // nothing can match
}

// A test is one condition on a session: it must be in one of these indexes.
type test struct {
	indexes  []string
	values   []string
	of       func(*domain.Session) []string // returns the session's own values
	hashed   bool                           // the name of an index does not prove the value
	disjoint bool                           // no session is in two of the indexes
}

func newTest(values []string, indexes func(string) []string, of func(*domain.Session) []string) test {
	t := test{values: values, of: of}
	for _, value := range values {
		t.indexes = append(t.indexes, indexes(value)...)
		t.hashed = t.hashed || !layout.IsPlain(value)
	}
	return t
}

func newPlan(q query.Query) (*plan, error) {
	p := &plan{query: q}
	low, high, ok := layout.LexTimes(q.MinCreatedAt, q.MaxCreatedAt)
	p.whole, p.empty = bounds{low, high, q.Ascending}, !ok
	p.rest = p.whole
	if q.After != nil {
		member, err := layout.AppendMember(nil, q.After.CreatedAt, q.After.ID)
		if err != nil {
			return nil, fmt.Errorf("place in a list: %w", err)
		}
		if ok {
			p.rest = p.whole.resume(string(member))
		}
	}
	visible := q.VisibleTo == "" // the filters find only sessions that the account may see
	for _, filter := range q.Filters {
		if !slices.Contains(domain.FilterFields(), filter.Field) {
			return nil, fmt.Errorf("no index of field %q", filter.Field)
		}
		values := slices.Compact(slices.Sorted(slices.Values(filter.Values)))
		values = slices.DeleteFunc(values, func(v string) bool { return v == "" }) // no session has it
		if len(values) == 0 {
			p.empty = true
			continue
		}
		t := newTest(values,
			func(value string) []string { return []string{layout.FieldIndex(filter.Field, value)} },
			func(s *domain.Session) []string { return s.FilterValues(filter.Field) })
		t.disjoint = len(values) == 1 || filter.Field != "participants"
		p.tests = append(p.tests, t)
		// An account may see what it created or takes part in.
		visible = visible || slices.Equal(values, []string{q.VisibleTo}) &&
			(filter.Field == "createdBy" || filter.Field == "participants")
	}
	if !visible {
		p.tests = append(p.tests, newTest([]string{q.VisibleTo}, layout.ViewerIndexes, (*domain.Session).Readers))
	}
	if len(p.tests) == 0 {
		p.tests = []test{{indexes: []string{layout.IndexAll}, disjoint: true}}
	}
	return p, nil
}

// indexes returns the number of indexes of all tests.
func (p *plan) indexes() int {
	n := 0
	for _, t := range p.tests {
		n += len(t.indexes)
	}
	return n
}

// counts reports whether the sizes of the indexes add up to the size of the result.
func (p *plan) counts() bool { return len(p.tests) == 1 && p.tests[0].disjoint }

// matches checks a document against the whole query. An index name that holds a hash is
// only a hint; the document's own values decide.
func (p *plan) matches(d *layout.Stored) (bool, error) {
	for _, t := range p.tests {
		if !slices.ContainsFunc(t.indexes, d.Entries.IsIn) {
			return false, nil
		}
	}
	var s *domain.Session
	for _, t := range p.tests {
		if !t.hashed {
			continue
		}
		if s == nil {
			var err error
			if s, err = d.Session(); err != nil {
				return false, err
			}
		}
		if !slices.ContainsFunc(t.of(s), func(v string) bool { return slices.Contains(t.values, v) }) {
			return false, nil
		}
	}
	return true, nil
}

// bounds are the part of an index that is still to be walked, in one direction.
type bounds struct {
	low, high string
	ascending bool
}

// after returns the part after a member.
func (b bounds) after(member string) bounds {
	if b.ascending {
		b.low = layout.LexBeyond(member)
	} else {
		b.high = layout.LexBeyond(member)
	}
	return b
}

// resume is after for a member that may be outside of the bounds; it never widens them.
func (b bounds) resume(member string) bounds {
	if b.ascending && (b.low == layout.LexFirst || member >= b.low[1:]) ||
		!b.ascending && (b.high == layout.LexLast || member < b.high[1:]) {
		return b.after(member)
	}
	return b
}

// precedes reports whether one member comes before another in this direction.
func (b bounds) precedes(one, other string) bool {
	if b.ascending {
		return one < other
	}
	return one > other
}

// args returns the command that walks an index, and its bounds in the command's order.
func (b bounds) args() (command, first, last string) {
	if b.ascending {
		return "ZRANGEBYLEX", b.low, b.high
	}
	return "ZREVRANGEBYLEX", b.high, b.low
}
