package readmodel

import (
	"context"
	"fmt"
	"math"

	"golang.org/x/sync/errgroup"

	"chatsessions/projections/layout"
)

// Bounds of one trip to Redis, which serves nobody else meanwhile.
const (
	// minLooks and maxLooks are entries of indexes to look at in one slice: a look
	// takes Redis 0.15 to 0.3 µs.
	minSlice, maxSlice = 128, 1024
	// looksPerFind is with how many of them the first slice of a list with several
	// filters tries to find a session.
	slicePerMatch = 8
	// maxDocuments is how many documents are asked for in one trip, 0.2 µs each.
	maxDocuments = 128
	// fewDocuments is how many come in the same trip as their members. There they take
	// Redis 2 µs each; from ten on, another trip is cheaper for everybody.
	fewDocuments = 10
)

// A walker walks through what one partition has of a list, slice by slice.
type walker struct {
	list   *listing
	view   *view
	part   bounds   // what has not been walked yet
	found  []*match // what has been found there and was not taken yet
	passed string   // the member in front of part: all before it has been found
	done   bool     // there is nothing in part

	source        int   // the test whose indexes are walked, from 1; 0 until Redis has chosen
	size          int64 // how many members they have within the plan's bounds; 0 if Redis was not asked
	skip          int   // members to leave out by rank
	slice         int   // bound of the next slice
	examined      int   // how many entries of indexes have been looked at
	withDocuments int   // for how many members their documents come with them
}

// A pick is a member that was found for the list, and its document.
type match struct {
	walker   *walker
	member   string
	fetched  bool
	document *layout.Stored // nil until it was read, or if there is none
}

// set takes Redis' answer for the document.
func (p *match) setDocument(value any) (err error) {
	p.fetched = true
	if text, ok := value.(string); ok {
		p.document, err = layout.DecodeDocument(text)
	}
	return err
}

// read finds some of the next members, find at most, none if it is 0.
func (w *walker) read(ctx context.Context, find int) error {
	keys := make([]string, 1, 1+w.list.plan.indexes())
	keys[0] = w.view.keys.Checkpoint()
	command, first, last := w.part.args()
	args := []any{
		command, first, last, w.skip, w.source, w.list.plan.whole.low, w.list.plan.whole.high,
		w.slice, find, w.withDocuments, w.view.keys.DocumentPrefix(),
	}
	for _, t := range w.list.plan.tests {
		args = append(args, len(t.indexes))
		for _, index := range t.indexes {
			keys = append(keys, w.view.keys.Index(index))
		}
	}
	reply, err := listScript.Run(ctx, w.list.model.rdb, keys, args...).Slice()
	if err != nil {
		return err
	}
	if err := w.list.model.trustDurable(ctx, w.view, reply[0]); err != nil {
		return err
	}
	return w.takeReply(reply, find)
}

// learn takes note of what the script has returned.
func (w *walker) takeReply(reply []any, find int) error {
	source, _ := reply[1].(int64)
	size, _ := reply[2].(int64)
	looked, _ := reply[3].(int64)
	members, _ := reply[5].([]any)
	documents, ok := reply[6].([]any)
	if !ok || source == 0 {
		return fmt.Errorf("redis returned %v for a slice of a list", reply)
	}
	if w.source == 0 {
		w.source, w.size = int(source), size
	}
	w.examined += int(looked)
	if find == 0 {
		return nil
	}
	w.skip, w.slice = 0, min(2*w.slice, maxSlice)
	picks := make([]match, len(members))
	for i, value := range members {
		p := &picks[i]
		p.walker = w
		if p.member, _ = value.(string); len(p.member) != layout.MemberLength {
			return fmt.Errorf("an index member of %d bytes is not in the layout %s", len(p.member), layout.Version())
		}
		if i < len(documents) {
			if err := p.setDocument(documents[i]); err != nil {
				return err
			}
		}
		w.found = append(w.found, p)
	}
	if w.passed, ok = reply[4].(string); ok {
		w.part = w.part.after(w.passed)
	} else {
		w.done = true
	}
	return nil
}

// cost is how many entries of indexes are looked at for each member of the source.
func (w *walker) cost() int {
	own := len(w.list.plan.tests[w.source-1].indexes)
	return min(2, own) + w.list.plan.indexes() - own
}

// rewind begins anew, with everything that the plan's bounds hold.
func (w *walker) rewind() {
	w.part, w.found, w.passed, w.done, w.slice = w.list.plan.whole, nil, "", false, maxSlice
	w.withDocuments = 0
}

// nearest returns the walker whose next member, or whose next slice, comes first in
// the order of the list; nil when all is walked.
func nextWalker(walkers []*walker) *walker {
	var first *walker
	place := ""
	for _, w := range walkers {
		at := w.passed
		switch {
		case len(w.found) > 0:
			at = w.found[0].member
		case w.done:
			continue
		}
		if first == nil || w.part.precedes(at, place) {
			first, place = w, at
		}
	}
	return first
}

// next takes the next member, nil when there are no more. It returns
// domain.ErrTooExpensive when finding it would cost too much.
func (l *listing) next(ctx context.Context) (*match, error) {
	for {
		w := nextWalker(l.walkers)
		if w == nil {
			return nil, nil
		}
		if len(w.found) > 0 {
			p := w.found[0]
			w.found = w.found[1:]
			l.wanted--
			l.taken++
			return p, nil
		}
		if err := l.readMore(ctx, w, l.portion()); err != nil {
			return nil, err
		}
	}
}

// portion is how many members each partition has to find, so that together they have
// what is wanted. Sessions are spread over the partitions at random; two slices
// where one would have done cost more than some members too many.
func (l *listing) portion() int {
	n := float64(l.wanted)
	if partitions := float64(len(l.walkers)); partitions > 1 {
		n = n/partitions + 4*math.Sqrt(n/partitions)
	}
	return int(min(max(n, 1), maxSlice))
}

// fetch reads the documents that some picks still lack, those of each partition in one trip.
func (l *listing) fetch(ctx context.Context, picks []*match) error {
	return eachWalker(l.walkers, func(w *walker) error {
		keys, own := []string{w.view.keys.Checkpoint()}, []*match(nil)
		for _, p := range picks {
			if p.walker == w && !p.fetched {
				keys, own = append(keys, w.view.keys.Document(layout.MemberID(p.member))), append(own, p)
			}
		}
		if len(own) == 0 {
			return nil
		}
		reply, err := w.list.model.rdb.MGet(ctx, keys...).Result()
		if err != nil {
			return err
		}
		if err := w.list.model.trustDurable(ctx, w.view, reply[0]); err != nil {
			return err
		}
		for i, p := range own {
			if err := p.setDocument(reply[1+i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// verify says whether a pick belongs in the result: a session may have changed since
// its member was found.
func (l *listing) verify(ctx context.Context, p *match) (bool, error) {
	if p.document == nil {
		l.model.logger.WarnContext(ctx, "an index names a session that the read model does not hold", "id", layout.MemberID(p.member))
		return false, nil
	}
	if p.document.Member != p.member {
		return false, nil
	}
	return l.plan.matches(p.document)
}

// together runs f for all walkers at once, and returns their errors.
func eachWalker(walkers []*walker, f func(*walker) error) error {
	if len(walkers) == 1 {
		return f(walkers[0])
	}
	var all errgroup.Group
	for _, w := range walkers {
		all.Go(func() error { return f(w) })
	}
	return all.Wait()
}
