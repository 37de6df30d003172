package readmodel

import (
	"context"
	_ "embed" // list.lua
	"fmt"
	"math"

	"github.com/redis/go-redis/v9"

	"golang.org/x/sync/errgroup"

	"chatsessions/projections/layout"
)

//go:embed list.lua
var listSource string

var listScript = redis.NewScript(listSource)

// Limits of one trip to Redis, which serves no other client during it.
const (
	// minSlice and maxSlice bound a slice's index entries, at 0.15 to 0.3 µs each in Redis.
	minSlice, maxSlice = 128, 1024
	// slicePerMatch is how many entries the first slice of a list with several filters
	// examines for each wanted session.
	slicePerMatch = 8
	// maxDocuments is how many documents one trip reads, 0.2 µs each.
	maxDocuments = 128
	// fewDocuments is how many documents come with the trip that finds their members, at
	// 2 µs each. From ten on, another trip is cheaper.
	fewDocuments = 10
)

// A walker walks through one partition's part of a list, slice by slice.
type walker struct {
	list   *listing
	view   *view
	part   bounds   // not walked yet
	found  []*match // found and not taken yet
	passed string   // the member before part: everything up to it was found
	done   bool     // part is empty

	source        int   // the test whose indexes are walked, from 1; 0 until Redis has chosen
	size          int64 // members of those indexes within the plan's bounds; 0 if Redis did not count
	skip          int   // members to skip by rank
	slice         int   // limit of the next slice
	examined      int   // index entries examined so far
	withDocuments int   // read documents along with up to this many members
}

// A match is a member found for the list, and its document.
type match struct {
	walker   *walker
	member   string
	fetched  bool
	document *layout.Stored // nil before it is fetched, or if there is none
}

// setDocument takes Redis's reply for the document.
func (p *match) setDocument(value any) (err error) {
	p.fetched = true
	if text, ok := value.(string); ok {
		p.document, err = layout.DecodeDocument(text)
	}
	return err
}

// read finds the next members, at most find. With find 0, it only counts.
func (w *walker) read(ctx context.Context, find int) error {
	keys := make([]string, 1, 1+w.list.plan.indexes())
	keys[0] = w.view.keys.Partition.Checkpoint()
	command, first, last := w.part.args()
	args := []any{
		command, first, last, w.skip, w.source, w.list.plan.whole.low, w.list.plan.whole.high,
		w.slice, find, w.withDocuments, w.view.keys.Document(""),
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

// takeReply takes the reply of the script.
func (w *walker) takeReply(reply []any, find int) error {
	source, _ := reply[1].(int64)
	size, _ := reply[2].(int64)
	examined, _ := reply[3].(int64)
	members, _ := reply[5].([]any)
	documents, ok := reply[6].([]any)
	if !ok || source == 0 {
		return fmt.Errorf("redis returned %v for a slice of a list", reply)
	}
	if w.source == 0 {
		w.source, w.size = int(source), size
	}
	w.examined += int(examined)
	if find == 0 {
		return nil
	}
	w.skip, w.slice = 0, min(2*w.slice, maxSlice)
	matches := make([]match, len(members))
	for i, value := range members {
		p := &matches[i]
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

// cost is how many index entries are examined for each member of the source.
func (w *walker) cost() int {
	own := len(w.list.plan.tests[w.source-1].indexes)
	return min(2, own) + w.list.plan.indexes() - own
}

// rewind starts over with the whole of the plan's bounds.
func (w *walker) rewind() {
	w.part, w.found, w.passed, w.done, w.slice = w.list.plan.whole, nil, "", false, maxSlice
	w.withDocuments = 0
}

// nextWalker returns the walker whose next member or slice is first; nil when all are done.
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

// next takes the next member, nil for none, or domain.ErrTooExpensive if that costs too much.
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

// portion is how many members each partition has to find so that together they have
// enough. Sessions are spread over partitions at random, and a second slice costs more
// than a few surplus members.
func (l *listing) portion() int {
	n := float64(l.wanted)
	if partitions := float64(len(l.walkers)); partitions > 1 {
		n = n/partitions + 4*math.Sqrt(n/partitions)
	}
	return int(min(max(n, 1), maxSlice))
}

// fetch reads the documents that some matches still lack, in one trip per partition.
func (l *listing) fetch(ctx context.Context, matches []*match) error {
	return eachWalker(l.walkers, func(w *walker) error {
		keys, own := []string{w.view.keys.Partition.Checkpoint()}, []*match(nil)
		for _, p := range matches {
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

// verify reports whether a match belongs in the result: the session may have changed
// since its member was found.
func (l *listing) verify(ctx context.Context, p *match) (bool, error) {
	if p.document == nil {
		l.model.logger.WarnContext(ctx, "an index names a session that the read model does not hold", "id", layout.MemberID(p.member))
		return false, nil
	}
	if p.document.Entries.Member != p.member {
		return false, nil
	}
	return l.plan.matches(p.document)
}

// eachWalker runs f for all walkers at once and returns an error of one.
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
