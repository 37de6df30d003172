package projections

import (
	"fmt"
	"slices"

	"chatsessions/domain"
)

// A plan is how a query is answered: which indexes could be walked, which part
// of them, and what a document found there has to satisfy.
type plan struct {
	query      domain.Query
	tests      []test
	candidates []source
	whole      bounds // of createdAt
	rest       bounds // what of it lies behind the place where the page before ended
	empty      bool   // no session can match, whatever there is
}

// A source is one way to walk through all sessions that a query can match: the
// union of some indexes.
type source struct {
	indexes []string
	alone   bool // every session in it matches
	exact   bool // and is in only one of the indexes, so that their sizes add up
}

// A test is one condition on a document: it must be in one of some indexes.
type test struct {
	indexes []string
	values  []string
	of      func(*domain.Session) []string // the session's own values
	hashed  bool                           // an index's name does not prove the value
}

func newTest(values []string, index func(string) string, of func(*domain.Session) []string) test {
	t := test{values: values, of: of}
	for _, value := range values {
		if index != nil {
			t.indexes = append(t.indexes, index(value))
		}
		t.hashed = t.hashed || !isPlain(value)
	}
	return t
}

func newPlan(q domain.Query) (*plan, error) {
	p := &plan{query: q}
	low, high, ok := lexTimes(q.MinCreatedAt, q.MaxCreatedAt)
	p.whole, p.empty = bounds{low, high, q.Ascending}, !ok
	p.rest = p.whole
	if q.After != nil {
		member, err := appendMember(nil, q.After.CreatedAt, q.After.ID)
		if err != nil {
			return nil, fmt.Errorf("place in a list: %w", err)
		}
		if ok {
			p.rest = p.whole.resume(string(member))
		}
	}
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
			func(value string) string { return fieldIndex(filter.Field, value) },
			func(s *domain.Session) []string { return s.FilterValues(filter.Field) })
		p.tests = append(p.tests, t)
		// What the account created or takes part in, it may see.
		implied := q.VisibleTo == "" || slices.Equal(values, []string{q.VisibleTo}) &&
			(filter.Field == "createdBy" || filter.Field == "participants")
		alone := len(q.Filters) == 1 && implied
		p.candidates = append(p.candidates, source{
			indexes: t.indexes, alone: alone,
			exact: alone && (len(values) == 1 || filter.Field != "participants"),
		})
	}
	if q.VisibleTo != "" {
		t := newTest([]string{q.VisibleTo}, nil, (*domain.Session).Readers)
		t.indexes = readerIndexes(q.VisibleTo)
		p.tests = append(p.tests, t)
		p.candidates = append(p.candidates, source{indexes: t.indexes, alone: len(q.Filters) == 0})
	}
	if len(p.candidates) == 0 {
		p.candidates = []source{{indexes: []string{indexAll}, alone: true, exact: true}}
	}
	return p, nil
}

// matches verifies a document against the whole query. A name of an index that
// holds a hash is taken for a hint: then the document's own values decide.
func (p *plan) matches(d *stored) (bool, error) {
	for _, t := range p.tests {
		if !slices.ContainsFunc(t.indexes, d.isIn) {
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
			if s, err = d.session(); err != nil {
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

// after returns what lies behind a member.
func (b bounds) after(member string) bounds {
	if b.ascending {
		b.low = lexAfter(member)
	} else {
		b.high = lexBefore(member)
	}
	return b
}

// from returns what lies at and behind a member.
func (b bounds) from(member string) bounds {
	if b.ascending {
		b.low = lexFrom(member)
	} else {
		b.high = lexFrom(member)
	}
	return b
}

// resume returns what lies behind a member that may lie outside of the bounds:
// it does not widen them.
func (b bounds) resume(member string) bounds {
	if b.ascending && (b.low == lexFirst || member >= b.low[1:]) ||
		!b.ascending && (b.high == lexLast || member < b.high[1:]) {
		return b.after(member)
	}
	return b
}

// precedes says whether one member comes before another in the direction.
func (b bounds) precedes(one, other string) bool {
	if b.ascending {
		return one < other
	}
	return one > other
}

// args returns the command that walks an index, and its bounds in its order.
func (b bounds) args() (command, first, last string) {
	if b.ascending {
		return "ZRANGEBYLEX", b.low, b.high
	}
	return "ZREVRANGEBYLEX", b.high, b.low
}
