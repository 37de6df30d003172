package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"chatsessions/projections/layout"
)

// A count is what sums up the keys of all partitions.
type count struct {
	seen, total atomic.Uint64 // of the partition that it is at
	ended       chan struct{} // closed when it is through
	err         error         // why it is not, once that is so
}

// countAll sums up what each partition holds, and reports nothing.
func (v *Verification) countAll(ctx context.Context) error {
	for _, p := range v.parts {
		progress := func(seen, total uint64) {
			v.count.seen.Store(seen)
			v.count.total.Store(total)
		}
		err := p.eachKey(ctx, progress, func(ids []string, indexes []indexKey) error {
			for _, id := range ids {
				p.found.addDocument(p.hash(id))
			}
			for _, index := range indexes {
				p.suspect = p.suspect || index.wrong || index.disordered
				if err := p.sum(ctx, index); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// sum adds the entries of an index to what was found.
func (p *verified) sum(ctx context.Context, index indexKey) error {
	name := p.hash(index.name)
	switch {
	case index.wrong:
		return nil
	case !index.disordered && !index.long:
		for member := range slices.Chunk([]byte(index.members), layout.MemberLength) {
			p.found.addEntry(name, p.hash(string(member)))
		}
		return nil
	}
	return p.eachMember(ctx, index, memberBatch, func(members []string) error {
		for _, member := range members {
			p.found.addEntry(name, p.hash(member))
		}
		return nil
	})
}

// awaitCount waits until all keys are summed up, and tells how far that is.
func (v *Verification) awaitCount(ctx context.Context) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-v.count.ended:
			return v.count.err
		case <-tick.C:
			v.Progress(CountingKeys, v.count.seen.Load(), v.count.total.Load())
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// reverse finds documents, index entries and parked sessions that the log does not
// account for, and index entries that are missing. All were summed up before. Only where
// the sums are not what they should be, they are looked at one by one: that takes longer,
// and while sessions are written it concerns those, and the indexes that most sessions
// are in.
func (p *verified) reverse(ctx context.Context) error {
	if p.suspect {
		if err := p.suspects(ctx); err != nil {
			return err
		}
	}
	if err := p.lookCloser(ctx); err != nil {
		return err
	}
	if err := p.eachParked(ctx); err != nil {
		return err
	}
	return p.resolve(ctx)
}

// suspects tells of indexes that are not of their kind, and doubts what is not in order.
func (p *verified) suspects(ctx context.Context) error {
	return p.eachKey(ctx, p.checking, func(_ []string, indexes []indexKey) (err error) {
		for _, index := range indexes {
			switch {
			case index.wrong:
				err = p.report(Difference{Index: index.name, Detail: "the key is not of its kind"})
			case index.disordered:
				err = p.outOfOrder(ctx, index.name)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (v *Verification) checking(seen, total uint64) { v.Progress(CheckingKeys, seen, total) }

// lookCloser looks at each document and index entry where the tallies differ, or where
// they may have been changed meanwhile.
func (p *verified) lookCloser(ctx context.Context) error {
	places := p.found.places()
	documents, entries := make([]bool, places), make([]bool, places)
	some := p.meanwhile.mark(documents, entries)
	for i := range places {
		documents[i] = documents[i] || p.found.documents[i] != p.rightful.documents[i]
		entries[i] = entries[i] || p.found.entries[i] != p.rightful.entries[i]
		some = some || documents[i] || entries[i]
	}
	if !some {
		return nil
	}
	doubtful := func(marked []bool, text string) bool { return marked[p.hash(text)%uint64(len(marked))] }
	return p.eachKey(ctx, p.checking, func(ids []string, indexes []indexKey) error {
		for _, id := range ids {
			if doubtful(documents, id) {
				if err := p.doubt(ctx, doubt{id: id}); err != nil {
					return err
				}
			}
		}
		if err := p.lacks(ctx, ids, func(name string) bool { return doubtful(entries, name) }); err != nil {
			return err
		}
		for _, index := range indexes {
			if !index.wrong && doubtful(entries, index.name) {
				if err := p.strangers(ctx, index); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// lacks looks whether sessions are in those indexes that are in doubt and that their
// documents, which have been compared with the log, belong in.
func (p *verified) lacks(ctx context.Context, ids []string, doubtful func(name string) bool) error {
	if len(ids) == 0 {
		return nil
	}
	keys := make([]string, len(ids))
	for i, id := range ids {
		keys[i] = p.keys.Document(id)
	}
	texts, err := p.rdb.MGet(ctx, keys...).Result()
	if err != nil {
		return err
	}
	members, owners := map[string][]any{}, map[string][]string{}
	for i, text := range texts {
		value, _ := text.(string)
		d, err := layout.DecodeDocument(value)
		if err != nil {
			continue // it differs, and was in doubt before
		}
		var member any = d.Member
		for name := range d.Indexes() {
			if doubtful(name) {
				members[name], owners[name] = append(members[name], member), append(owners[name], ids[i])
			}
		}
	}
	if len(members) == 0 {
		return nil
	}
	trip := p.rdb.Pipeline()
	found := make(map[string]*redis.Cmd, len(members))
	for name, all := range members {
		found[name] = trip.Do(ctx, append([]any{"ZMSCORE", p.keys.Index(name)}, all...)...)
	}
	if _, err := trip.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) && !isWrongType(err) {
		return err
	}
	for name, cmd := range found {
		scores, err := cmd.Slice()
		if err != nil && !isWrongType(err) {
			return err
		}
		for i, id := range owners[name] {
			if i < len(scores) && scores[i] != nil {
				continue
			}
			if err := p.doubt(ctx, doubt{id: id}); err != nil {
				return err
			}
		}
	}
	return nil
}

// An indexKey is an index, as it was found.
type indexKey struct {
	name       string
	members    string // one behind the other, if it is short
	long       bool
	disordered bool // a score is not 0
	wrong      bool // it is a key of another kind
}

// eachKey calls f with the keys of the generation, some at a time, and progress with how
// many of them that were; total is 0 where it is not known. A key may come twice.
func (p *verified) eachKey(ctx context.Context, progress func(seen, total uint64), f func(ids []string, indexes []indexKey) error) error {
	var seen, total uint64
	if len(p.parts) == 1 { // on a cluster, the number of keys says nothing about a partition
		n, err := p.rdb.DBSize(ctx).Result()
		if err != nil {
			return fmt.Errorf("count the keys: %w", err)
		}
		total = uint64(n) //nolint:gosec // not negative
	}
	for cursor := "0"; ; {
		if err := p.Pace(ctx, verifyKeys); err != nil {
			return err
		}
		reply, err := verifyKeysScript.Run(ctx, p.rdb, []string{p.keys.Checkpoint()},
			p.keys.GenerationPattern(), cursor, verifyKeys, p.keys.Prefix, shortIndex).Slice()
		if err != nil {
			return fmt.Errorf("list the keys: %w", err)
		}
		cursor, _ = reply[0].(string)
		var lists [3][]string
		for i := range lists {
			if lists[i], err = texts(reply[1+i]); err != nil {
				return err
			}
		}
		indexes := make([]indexKey, len(lists[1]))
		for i, name := range lists[1] {
			members := lists[2][i]
			indexes[i] = indexKey{name: name, members: members, long: members == "long", disordered: members == "disordered", wrong: members == "wrong"}
		}
		if err := f(lists[0], indexes); err != nil {
			return err
		}
		seen += uint64(len(lists[0]) + len(indexes)) //nolint:gosec // not negative
		if total > 0 {
			total = max(total, seen) // it may have grown
		}
		progress(seen, total)
		if cursor == "0" {
			return nil
		}
	}
}

// eachMember calls f with the members of an index, so many at a time.
func (p *verified) eachMember(ctx context.Context, index indexKey, limit int64, f func([]string) error) error {
	key, from, rank := p.keys.Index(index.name), layout.LexFirst, int64(0)
	for {
		if err := p.Pace(ctx, int(limit)); err != nil {
			return err
		}
		var found *redis.StringSliceCmd
		if index.disordered { // then ranges by member are not defined
			found = p.rdb.ZRange(ctx, key, rank, rank+limit-1)
		} else {
			found = p.rdb.ZRangeByLex(ctx, key, &redis.ZRangeBy{Min: from, Max: layout.LexLast, Count: limit})
		}
		members, err := found.Result()
		if err != nil {
			return fmt.Errorf("index %s: %w", index.name, err)
		}
		if len(members) == 0 {
			return nil
		}
		if err := f(members); err != nil {
			return err
		}
		from, rank = layout.LexAfter(members[len(members)-1]), rank+int64(len(members))
	}
}

// outOfOrder doubts the members of an index whose score is not 0.
func (p *verified) outOfOrder(ctx context.Context, index string) error {
	for _, scores := range [][2]string{{"-inf", "(0"}, {"(0", "+inf"}} {
		for from := int64(0); ; from += memberBatch {
			if err := p.Pace(ctx, memberBatch); err != nil {
				return err
			}
			members, err := p.rdb.ZRangeArgs(ctx, redis.ZRangeArgs{
				Key: p.keys.Index(index), ByScore: true, Start: scores[0], Stop: scores[1], Offset: from, Count: memberBatch,
			}).Result()
			if err != nil {
				return fmt.Errorf("index %s: %w", index, err)
			}
			for _, member := range members {
				if err := p.stray(ctx, index, member); err != nil {
					return err
				}
			}
			if len(members) < memberBatch {
				break
			}
		}
	}
	return nil
}

// stray doubts a member of an index.
func (p *verified) stray(ctx context.Context, index, member string) error {
	if len(member) != layout.MemberLength {
		return p.report(Difference{Index: index, Detail: fmt.Sprintf("the member %q is not in the layout %s", member, layout.Version())})
	}
	return p.doubt(ctx, doubt{layout.MemberID(member), index, member})
}

// strangers looks whether the members of an index belong there by their documents, which
// have been compared with the log.
func (p *verified) strangers(ctx context.Context, index indexKey) error {
	return p.eachMember(ctx, index, documentBatch, func(members []string) error {
		keys := make([]string, 0, len(members))
		known := make([]string, 0, len(members))
		for _, member := range members {
			if len(member) != layout.MemberLength {
				if err := p.stray(ctx, index.name, member); err != nil {
					return err
				}
				continue
			}
			keys, known = append(keys, p.keys.Document(layout.MemberID(member))), append(known, member)
		}
		if len(keys) == 0 {
			return nil
		}
		documents, err := p.rdb.MGet(ctx, keys...).Result()
		if err != nil {
			return fmt.Errorf("index %s: %w", index.name, err)
		}
		for i, member := range known {
			if text, ok := documents[i].(string); ok {
				if d, err := layout.DecodeDocument(text); err == nil && d.Member == member && d.IsIn(index.name) {
					continue
				}
			}
			if err := p.stray(ctx, index.name, member); err != nil {
				return err
			}
		}
		return nil
	})
}

// eachParked looks at the sessions that are parked.
func (p *verified) eachParked(ctx context.Context) error {
	for cursor := uint64(0); ; {
		found, next, err := p.rdb.HScan(ctx, p.keys.Parked(), cursor, "", parkedBatch).Result()
		if err != nil {
			return fmt.Errorf("parked sessions: %w", err)
		}
		for i := 0; i < len(found); i += 2 {
			if err := p.doubt(ctx, doubt{id: found[i]}); err != nil {
				return err
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}
