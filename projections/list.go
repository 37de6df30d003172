package projections

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"chatsessions/domain"
)

// What one list may cost before it is refused: it must not slow writes down.
const (
	maxExamined = 20_000          // documents looked at, for the page and for the count each
	maxListTime = 2 * time.Second // or until ctx' deadline, if that is earlier; half of it for the count
)

// List returns the sessions that match a query. It returns
// domain.ErrTooExpensive when it would have to look at too many documents, and
// domain.ErrUnavailable when the read model cannot be reached or trusted now.
//
// A session that does not change while a client goes from page to page is
// returned exactly once; one that changes may have moved. The total is left out
// when counting would cost too much. Any other error is a defect of the caller:
// a filter on a field without an index, or a place that is not a session's.
func (m *ReadModel) List(ctx context.Context, q domain.Query) (domain.Page, error) {
	p, err := newPlan(q)
	if err != nil {
		return domain.Page{}, err
	}
	var page domain.Page
	err = m.answer(ctx, m.all, func(views []*view) error {
		l := &listing{ReadModel: m, plan: p, view: views[0], budget: m.budget, deadline: time.Now().Add(maxListTime)}
		if d, ok := ctx.Deadline(); ok && d.Before(l.deadline) {
			l.deadline = d
		}
		var err error
		page, err = l.page(ctx)
		return err
	})
	if err != nil {
		return domain.Page{}, err
	}
	return page, nil
}

// A listing is one attempt to answer one query.
type listing struct {
	*ReadModel
	plan     *plan
	view     *view
	budget   int // how many documents may be looked at
	deadline time.Time
}

func (l *listing) page(ctx context.Context) (domain.Page, error) {
	q := &l.plan.query
	page := domain.Page{Documents: [][]byte{}}
	if l.plan.empty {
		if q.Count {
			page.Total = new(int64)
		}
		return page, nil
	}
	from, total, err := l.choose(ctx)
	if err != nil {
		return page, err
	}
	if q.Count {
		if page.Total, err = l.total(ctx, from, total); err != nil {
			return page, err
		}
	}
	if q.Limit <= 0 {
		return page, nil
	}
	part := l.plan.rest
	skip := min(max(q.Skip, 0), math.MaxInt32)
	if from.alone && len(from.indexes) == 1 && skip > 0 {
		var any bool
		if part, any, err = l.seek(ctx, from.indexes[0], part, skip); err != nil || !any {
			return page, err
		}
		skip = 0
	}
	last := ""
	err = l.walk(ctx, from, part, skip+min(q.Limit, math.MaxInt32)+1, func(d *stored) bool {
		switch {
		case skip > 0:
			skip--
			return true
		case len(page.Documents) < q.Limit:
			page.Documents = append(page.Documents, []byte(d.json))
			last = d.member
			return true
		}
		createdAt, id := placeOf(last) // there is more: a next page
		page.Next = &domain.Place{CreatedAt: createdAt, ID: id}
		return false
	})
	return page, err
}

// choose picks the source with the fewest members within the bounds of
// createdAt, and returns their number. It asks only if that matters.
func (l *listing) choose(ctx context.Context) (from source, size int64, err error) {
	candidates := l.plan.candidates
	if len(candidates) == 1 && !l.plan.query.Count {
		return candidates[0], 0, nil
	}
	keys := []string{l.view.keys.checkpoint()}
	for _, c := range candidates {
		for _, index := range c.indexes {
			keys = append(keys, l.view.keys.index(index))
		}
	}
	reply, err := sizesScript.Run(ctx, l.rdb, keys, l.plan.whole.low, l.plan.whole.high).Slice()
	if err != nil {
		return from, 0, err
	}
	if err := l.check(ctx, l.view, reply[0]); err != nil {
		return from, 0, err
	}
	at := 1
	for i, c := range candidates {
		sum := int64(0)
		for range c.indexes {
			n, ok := reply[at].(int64)
			if !ok {
				return from, 0, fmt.Errorf("size of an index is %v", reply[at])
			}
			sum += n
			at++
		}
		if i == 0 || sum < size {
			from, size = c, sum
		}
	}
	return from, size, nil
}

// total counts the whole result: by the size of the indexes where that is
// exact, otherwise by looking at every document, up to what a list may cost.
func (l *listing) total(ctx context.Context, from source, size int64) (*int64, error) {
	if from.exact {
		return &size, nil
	}
	if size > int64(l.budget) {
		return nil, nil
	}
	counting := *l
	counting.deadline = time.Now().Add(time.Until(l.deadline) / 2)
	n := int64(0)
	err := counting.walk(ctx, from, l.plan.whole, maxSlice, func(*stored) bool { n++; return true })
	if errors.Is(err, domain.ErrTooExpensive) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &n, nil
}
