package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"

	"chatsessions/projections/layout"
)

// Bounds of one trip to Redis.
const (
	keyBatch    = 512  // about
	shortIndex  = 64   // members; an index that has no more is read in one piece
	memberBatch = 1024 // of a longer one
	parkedBatch = 500
)

// An entry is a member of an index, as it was found.
type entry struct {
	index, member string
	score         float64
	wrongKind     bool // the key is not an index; it has no members
}

// count adds every document and index entry of the partition to the found tally.
func (p *partition) count(ctx context.Context) error {
	a := p.audit
	return p.eachKey(ctx, Counting, func(id string) error {
		if member, ok := memberOf(id); ok {
			a.found.add(p.keys.Partition.Number, "", member, 0)
		} else {
			a.odd = true
		}
		return nil
	}, func(entries []entry) error {
		for _, e := range entries {
			if e.isOdd() {
				a.odd = true
			} else {
				a.found.add(p.keys.Partition.Number, e.index, e.member, e.score)
			}
		}
		return nil
	})
}

// memberOf returns the end of a session's index members; ok is false for an impossible id.
func memberOf(id string) (end string, ok bool) {
	member, err := layout.AppendMember(nil, 0, id)
	if err != nil {
		return "", false
	}
	return string(member[layout.MemberLength-idLength:]), true
}

func (e entry) isOdd() bool { return e.wrongKind || len(e.member) != layout.MemberLength }

// check reads all keys again and suspects the sessions, and the index entries that do not
// match their documents, where the tallies differ.
func (p *partition) check(ctx context.Context) error {
	a := p.audit
	return p.eachKey(ctx, Checking, func(id string) error {
		if member, ok := memberOf(id); ok && !a.expected.differsAt(a.found, member) {
			return nil
		}
		return p.suspect(ctx, suspect{id: id})
	}, func(entries []entry) error {
		for _, e := range entries {
			detail := ""
			switch {
			case e.wrongKind:
				detail = "the key is not of its kind"
			case e.isOdd():
				detail = fmt.Sprintf("the member %q is not in the layout %s", e.member, layout.Version())
			default:
				continue
			}
			if err := a.report(Difference{Index: e.index, Detail: detail}); err != nil {
				return err
			}
		}
		return p.checkEntries(ctx, slices.DeleteFunc(entries, func(e entry) bool {
			return e.isOdd() || !a.expected.differsAt(a.found, e.member)
		}))
	})
}

// checkEntries suspects index entries that the documents of their sessions do not have.
// Those documents are suspects themselves.
func (p *partition) checkEntries(ctx context.Context, entries []entry) error {
	for batch := range slices.Chunk(entries, sessionBatch) {
		keys := make([]string, len(batch))
		for i, e := range batch {
			keys[i] = p.keys.Document(layout.MemberID(e.member))
		}
		documents, err := p.audit.rdb.MGet(ctx, keys...).Result()
		if err != nil {
			return err
		}
		for i, e := range batch {
			text, _ := documents[i].(string)
			if d, err := layout.DecodeDocument(text); err == nil && d.Entries.Member == e.member && d.Entries.IsIn(e.index) {
				continue
			}
			if err := p.suspect(ctx, suspect{layout.MemberID(e.member), e.index, e.member}); err != nil {
				return err
			}
		}
	}
	return nil
}

// suspectParked suspects every session that is parked.
func (p *partition) suspectParked(ctx context.Context) error {
	notes := p.audit.rdb.HScan(ctx, p.keys.Parked(), 0, "", parkedBatch).Iterator()
	for notes.Next(ctx) {
		id := notes.Val()
		_ = notes.Next(ctx) // its note
		if err := p.suspect(ctx, suspect{id: id}); err != nil {
			return err
		}
	}
	err := notes.Err()
	switch {
	case isWrongType(err):
		return p.audit.report(Difference{Detail: "the key of the parked sessions is not of its kind"})
	case err != nil:
		return fmt.Errorf("list the parked sessions: %w", err)
	}
	return nil
}

// pace waits before n more keys are read.
func (a *audit) pace(ctx context.Context, n int) error {
	if a.opts.Pace == nil {
		return nil
	}
	return a.opts.Pace(ctx, n)
}

// eachKey calls document with the id of each document, and entries with those of each index,
// until it has seen all that were there the whole time. A key may come twice.
func (p *partition) eachKey(ctx context.Context, stage Stage, document func(id string) error, entries func([]entry) error) error {
	var done, total uint64
	if len(p.audit.partitions) == 1 { // otherwise Redis has keys of other partitions too
		n, err := p.audit.rdb.DBSize(ctx).Result()
		if err != nil {
			return fmt.Errorf("count the keys: %w", err)
		}
		total = uint64(n) //nolint:gosec // not negative
	}
	for cursor := uint64(0); ; {
		if err := p.audit.pace(ctx, keyBatch); err != nil {
			return err
		}
		keys, next, err := p.scan(ctx, cursor)
		if err != nil {
			return fmt.Errorf("list the keys: %w", err)
		}
		var indexes []string
		for _, key := range keys {
			if id, ok := strings.CutPrefix(key, p.keys.Document("")); ok {
				if err := document(id); err != nil {
					return err
				}
			} else if name, ok := strings.CutPrefix(key, p.keys.Index("")); ok {
				indexes = append(indexes, name)
			}
		}
		if err := p.eachEntry(ctx, indexes, entries); err != nil {
			return err
		}
		done += uint64(len(keys))
		if total > 0 {
			total = max(total, done) // it may have grown
		}
		if p.audit.opts.Progress != nil && p.audit.read.Load() { // before that, the caller shows its reading
			p.audit.opts.Progress(stage, done, total)
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

func (p *partition) scan(ctx context.Context, cursor uint64) (keys []string, next uint64, err error) {
	var node redis.Cmdable = p.audit.rdb
	if cluster, ok := p.audit.rdb.(*redis.ClusterClient); ok {
		if node, err = cluster.MasterForKey(ctx, p.keys.Partition.Checkpoint()); err != nil {
			return nil, 0, err
		}
	}
	return node.Scan(ctx, cursor, p.keys.GenerationPattern(), keyBatch).Result()
}

// eachEntry calls f with the entries of some indexes, until it has seen all that were
// there the whole time. f may change the slice.
func (p *partition) eachEntry(ctx context.Context, indexes []string, f func([]entry) error) error {
	if len(indexes) == 0 {
		return nil
	}
	trip := p.audit.rdb.Pipeline()
	found := make([]*redis.ZSliceCmd, len(indexes))
	for i, name := range indexes {
		found[i] = trip.ZRangeWithScores(ctx, p.keys.Index(name), 0, shortIndex)
	}
	if _, err := trip.Exec(ctx); err != nil && !isWrongType(err) {
		return fmt.Errorf("read indexes: %w", err)
	}
	var entries []entry
	for i, name := range indexes {
		members, err := found[i].Result()
		switch {
		case isWrongType(err):
			entries = append(entries, entry{index: name, wrongKind: true})
		case err != nil:
			return fmt.Errorf("read index %s: %w", name, err)
		case len(members) > shortIndex:
			if err := p.eachEntryOfLong(ctx, name, f); err != nil {
				return fmt.Errorf("read index %s: %w", name, err)
			}
		default:
			entries = appendEntries(entries, name, members)
		}
	}
	return f(entries)
}

// eachEntryOfLong is eachEntry for one index, of which it reads a part at a time.
func (p *partition) eachEntryOfLong(ctx context.Context, name string, f func([]entry) error) error {
	key := p.keys.Index(name)
	ends := p.audit.rdb.Pipeline()
	least, greatest := ends.ZRangeWithScores(ctx, key, 0, 0), ends.ZRangeWithScores(ctx, key, -1, -1)
	if _, err := ends.Exec(ctx); err != nil {
		return err
	}
	ordered := true
	for _, z := range append(least.Val(), greatest.Val()...) {
		ordered = ordered && z.Score == 0
	}
	for from, rank := layout.LexFirst, int64(0); ; rank += memberBatch {
		if err := p.audit.pace(ctx, memberBatch); err != nil {
			return err
		}
		var entries []entry
		if ordered {
			members, err := p.audit.rdb.ZRangeByLex(ctx, key, &redis.ZRangeBy{Min: from, Max: layout.LexLast, Count: memberBatch}).Result()
			if err != nil {
				return err
			}
			for _, member := range members {
				entries = append(entries, entry{index: name, member: member})
				from = layout.LexBeyond(member)
			}
		} else { // ranges by member are undefined
			members, err := p.audit.rdb.ZRangeWithScores(ctx, key, rank, rank+memberBatch-1).Result()
			if err != nil {
				return err
			}
			entries = appendEntries(nil, name, members)
		}
		if len(entries) == 0 {
			return nil
		}
		if err := f(entries); err != nil {
			return err
		}
	}
}

func appendEntries(entries []entry, index string, members []redis.Z) []entry {
	for _, z := range members {
		member, _ := z.Member.(string)
		entries = append(entries, entry{index: index, member: member, score: z.Score})
	}
	return entries
}

// isWrongType reports whether a command failed because a key is not of its kind.
func isWrongType(err error) bool {
	var refused redis.Error
	return errors.As(err, &refused) && strings.HasPrefix(refused.Error(), "WRONGTYPE")
}
