package readmodel

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"chatsessions/domain"
	"chatsessions/domain/query"
	"chatsessions/projections/layout"
)

// Limits of one list, so that lists do not slow down writes.
const (
	maxExamined = 200_000         // index entries examined, for the page and for the count each
	maxListTime = 2 * time.Second // or ctx's deadline, if earlier; the count gets half of what is left
	freeSkip    = 1000            // a list that skips more is paced from its first trip; cursors are cheaper
)

// List returns the sessions that match a query. It returns domain.ErrTooExpensive if it
// would have to examine too many sessions, domain.ErrBusy under too much load, and
// domain.ErrUnavailable if the read model cannot be reached or trusted now.
//
// A session that does not change while a client pages is returned exactly once. The total
// is left out if counting would cost too much. The page is shared with concurrent requests
// and must not be changed. Any other error is a defect of the caller: a filter on a field
// without an index, or an invalid place.
func (m *ReadModel) List(ctx context.Context, q query.Query) (query.Page, error) {
	p, err := newPlan(q)
	if err != nil {
		return query.Page{}, err
	}
	return m.lists.list(ctx, q, func(ctx context.Context) (page query.Page, err error) {
		err = m.answer(ctx, m.allPartitions, func(views []*view) error {
			page, err = m.list(ctx, p, views)
			return err
		})
		if err != nil {
			return query.Page{}, err
		}
		return page, nil
	})
}

// list answers from some partitions. As a rule, one trip to Redis finds the sessions and
// one reads their documents: a script takes ten times as long as MGET to read a document.
func (m *ReadModel) list(ctx context.Context, p *plan, views []*view) (query.Page, error) {
	ctx, cancel := context.WithTimeout(ctx, maxListTime)
	defer cancel()
	l := &listing{model: m, plan: p, allowed: m.budget, leaveSeat: func() {}}
	for _, view := range views {
		l.walkers = append(l.walkers, &walker{list: l, view: view, part: p.rest})
	}
	defer func() { l.leaveSeat() }()
	return l.page(ctx)
}

// A listing is one attempt to answer a query.
type listing struct {
	model     *ReadModel
	plan      *plan
	walkers   []*walker // one per partition
	wanted    int       // about how many members are still to be taken
	taken     int       // members taken so far
	allowed   int       // index entries that may be examined, in total
	paced     bool      // every trip waits for its turn, even the first ones
	seated    bool      // it has one of the seats for long pages
	leaveSeat func()
}

func (l *listing) page(ctx context.Context) (query.Page, error) {
	q := &l.plan.query
	page := query.Page{Documents: []string{}}
	if l.plan.empty {
		if q.Count {
			page.Total = new(int64)
		}
		return page, nil
	}
	limit, skip := min(max(q.Limit, 0), math.MaxInt32), min(max(q.Skip, 0), math.MaxInt32)
	l.paced = skip > freeSkip
	byRank := len(l.walkers) == 1 && l.plan.indexes() == 1
	if byRank {
		l.walkers[0].skip, skip = skip, 0
	}
	if limit > 0 {
		l.wanted = skip + limit + 1
	}
	if err := l.begin(ctx); err != nil {
		return page, err
	}
	if limit > 0 {
		for range skip {
			if p, err := l.next(ctx); err != nil {
				return page, err
			} else if p == nil {
				break
			}
		}
		if err := l.fill(ctx, &page, limit); err != nil {
			return page, err
		}
	}
	var err error
	switch {
	case !q.Count:
	case limit > 0 && page.Next == nil && q.After == nil && !byRank: // everything was taken
		page.Total = new(int64(l.taken))
	default:
		page.Total, err = l.total(ctx)
	}
	return page, err
}

// begin reads the first slice of every partition at once. It does not wait for a turn:
// most lists need nothing more.
func (l *listing) begin(ctx context.Context) error {
	find, looks := 0, maxSlice
	if l.wanted > 0 {
		find = l.portion()
		switch {
		case l.plan.indexes() == 1:
			looks = find
		case len(l.plan.tests) == 1:
			looks = min(2*find, maxSlice)
		default:
			looks = min(max(slicePerMatch*find, minSlice), maxSlice)
		}
	}
	return l.trip(ctx, func() error {
		return eachWalker(l.walkers, func(w *walker) error {
			w.slice, w.withDocuments = looks, fewDocuments
			if len(l.plan.tests) == 1 && !l.plan.query.Count {
				w.source = 1 // there is no choice
			}
			return w.read(ctx, find)
		})
	})
}

// fill adds documents to the page until it is full.
func (l *listing) fill(ctx context.Context, page *query.Page, limit int) error {
	last := ""
	for len(page.Documents) < limit {
		var matches []*match
		for range limit - len(page.Documents) {
			p, err := l.next(ctx)
			if err != nil {
				return err
			}
			if p == nil {
				break
			}
			matches = append(matches, p)
		}
		if len(matches) == 0 {
			return nil
		}
		if err := l.documents(ctx, page, matches); err != nil {
			return err
		}
		last = matches[len(matches)-1].member
	}
	more, err := l.next(ctx)
	if more == nil && !errors.Is(err, domain.ErrTooExpensive) {
		return err
	}
	createdAt, id := layout.MemberPlace(last) // there is more, or may be
	page.Next = &query.Place{CreatedAt: createdAt, ID: id}
	return nil
}

// documents adds the documents of the matches to the page.
func (l *listing) documents(ctx context.Context, page *query.Page, matches []*match) error {
	if len(matches) > maxDocuments && !l.seated {
		leave, err := acquire(ctx, l.model.pacer.seats)
		if err != nil {
			return err
		}
		l.leaveSeat, l.seated, l.paced = leave, true, true
	}
	for some := range slices.Chunk(matches, maxDocuments) {
		if slices.ContainsFunc(some, func(p *match) bool { return !p.fetched }) {
			if err := l.trip(ctx, func() error { return l.fetch(ctx, some) }); err != nil {
				return err
			}
		}
		for _, p := range some {
			ok, err := l.verify(ctx, p)
			if err != nil {
				return err
			}
			if ok {
				page.Documents = append(page.Documents, p.document.JSON)
			}
			p.document = nil
		}
	}
	return nil
}

// total counts the whole result: by the sizes of indexes if they are exact, else by
// walking through it within the limits. A count trusts index names even if they hold a
// hash: it shows nothing of another's session.
func (l *listing) total(ctx context.Context) (*int64, error) {
	size, looks := int64(0), int64(0)
	for _, w := range l.walkers {
		size += w.size
		looks += w.size * int64(w.cost())
	}
	if l.plan.counts() {
		return &size, nil
	}
	if looks > int64(l.model.budget) {
		return nil, nil
	}
	deadline, _ := ctx.Deadline() // set by list
	ctx, cancel := context.WithTimeout(ctx, time.Until(deadline)/2)
	defer cancel()
	l.allowed = l.examined() + l.model.budget
	n := 0
	for _, w := range l.walkers {
		for w.rewind(); !w.done; {
			err := l.readMore(ctx, w, maxSlice)
			if errors.Is(err, domain.ErrTooExpensive) {
				return nil, nil
			}
			if err != nil {
				return nil, err
			}
			n += len(w.found)
			w.found = nil
		}
	}
	return new(int64(n)), nil
}

// readMore reads another slice of a partition. It returns domain.ErrTooExpensive once the
// list has examined too much.
func (l *listing) readMore(ctx context.Context, w *walker, find int) error {
	if l.examined() >= l.allowed {
		return domain.ErrTooExpensive
	}
	return l.inTurn(ctx, func() error { return w.read(ctx, find) })
}

// trip makes a first trip, or waits for a turn if the whole list is paced.
func (l *listing) trip(ctx context.Context, f func() error) error {
	if l.paced {
		return l.inTurn(ctx, f)
	}
	return l.model.pacer.first(ctx, f)
}

// inTurn makes a trip that waits for its turn.
func (l *listing) inTurn(ctx context.Context, f func() error) error {
	err := l.model.pacer.inTurn(ctx, f)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return domain.ErrTooExpensive
	}
	return err
}

func (l *listing) examined() int {
	n := 0
	for _, w := range l.walkers {
		n += w.examined
	}
	return n
}
