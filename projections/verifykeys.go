package projections

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// reverse finds documents, index entries and parked sessions that the log does not
// account for. First they are counted. Only where their numbers are not what they
// should be, they are looked at one by one: that takes longer, and while sessions are
// written it concerns those, and the indexes that most sessions are in.
func (p *verified) reverse(ctx context.Context) error {
	found := newTally()
	err := p.eachKey(ctx, CountingKeys, func(documents, indexes []string, sizes []int64) error {
		for _, id := range documents {
			found.documents[p.place(id)]++
		}
		for i, name := range indexes {
			if sizes[i] < 0 {
				if err := p.report(Difference{Index: name, Detail: "the key is not of its kind"}); err != nil {
					return err
				}
				continue
			}
			found.entries[p.place(name)] += int32(sizes[i]) //nolint:gosec // far fewer
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := p.meanwhile.await(ctx); err != nil {
		return err
	}
	if err := p.strangers(ctx, found); err != nil {
		return err
	}
	if err := p.eachParked(ctx); err != nil {
		return err
	}
	return p.resolve(ctx)
}

// strangers looks at each document and index entry where the tallies differ, or where
// they may have been changed meanwhile.
func (p *verified) strangers(ctx context.Context, found tally) error {
	meanwhile := p.meanwhile
	documents, entries := make([]bool, tallyPlaces), make([]bool, tallyPlaces)
	meanwhile.mu.Lock()
	some := meanwhile.everything
	for i := range tallyPlaces {
		documents[i] = meanwhile.everything || meanwhile.documents[i] || found.documents[i] != p.rightful.documents[i]
		entries[i] = meanwhile.everything || meanwhile.entries[i] || found.entries[i] != p.rightful.entries[i]
		some = some || documents[i] || entries[i]
	}
	meanwhile.mu.Unlock()
	if !some {
		return nil
	}
	return p.eachKey(ctx, CheckingKeys, func(ids, indexes []string, sizes []int64) error {
		for _, id := range ids {
			if documents[p.place(id)] {
				if err := p.doubt(ctx, doubt{id: id}); err != nil {
					return err
				}
			}
		}
		for i, name := range indexes {
			if sizes[i] >= 0 && entries[p.place(name)] {
				if err := p.index(ctx, name); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// eachKey calls f with the keys of the generation, some at a time. A key may come twice.
func (p *verified) eachKey(ctx context.Context, stage VerifyStage, f func(documents, indexes []string, sizes []int64) error) error {
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
		reply, err := verifyKeysScript.Run(ctx, p.rdb, []string{p.keys.checkpoint()},
			p.keys.pattern(), cursor, verifyKeys, p.keys.begin).Slice()
		if err != nil {
			return fmt.Errorf("list the keys: %w", err)
		}
		cursor, _ = reply[0].(string)
		documents, err := texts(reply[1])
		if err != nil {
			return err
		}
		indexes, err := texts(reply[2])
		if err != nil {
			return err
		}
		counts, _ := reply[3].([]any)
		sizes := make([]int64, len(indexes))
		for i := range counts {
			sizes[i], _ = counts[i].(int64)
		}
		if err := f(documents, indexes, sizes); err != nil {
			return err
		}
		seen += uint64(len(documents) + len(indexes)) //nolint:gosec // not negative
		if total > 0 {
			total = max(total, seen) // it may have grown
		}
		p.Progress(stage, seen, total)
		if cursor == "0" {
			return nil
		}
	}
}

// index looks whether the members of an index belong there by their documents, which
// have been compared with the log.
func (p *verified) index(ctx context.Context, name string) error {
	for from := lexFirst; ; {
		if err := p.Pace(ctx, maxDocuments); err != nil {
			return err
		}
		members, err := p.rdb.ZRangeByLex(ctx, p.keys.index(name), &redis.ZRangeBy{Min: from, Max: lexLast, Count: maxDocuments}).Result()
		if err != nil {
			return fmt.Errorf("index %s: %w", name, err)
		}
		if len(members) == 0 {
			return nil
		}
		keys := make([]string, len(members))
		for i, member := range members {
			if len(member) != memberLength {
				if err := p.report(Difference{Index: name, Detail: fmt.Sprintf("the member %q is not in the layout %s", member, layoutVersion)}); err != nil {
					return err
				}
				member = string(make([]byte, memberLength))
			}
			keys[i] = p.keys.document(idOf(member))
		}
		documents, err := p.rdb.MGet(ctx, keys...).Result()
		if err != nil {
			return fmt.Errorf("index %s: %w", name, err)
		}
		for i, member := range members {
			if len(member) != memberLength {
				continue
			}
			if text, ok := documents[i].(string); ok {
				if d, err := decodeDocument(text); err == nil && d.member == member && d.isIn(name) {
					continue
				}
			}
			if err := p.doubt(ctx, doubt{idOf(member), name, member}); err != nil {
				return err
			}
		}
		from = lexAfter(members[len(members)-1])
	}
}

// eachParked looks at the sessions that are parked.
func (p *verified) eachParked(ctx context.Context) error {
	for cursor := uint64(0); ; {
		found, next, err := p.rdb.HScan(ctx, p.keys.parked(), cursor, "", parkedAtOnce).Result()
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
