package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"chatsessions/projections"
	"chatsessions/projections/layout"
)

// A Difference is where the read model that answers is not what the log says.
type Difference struct {
	SessionID string `json:"sessionId"`
	// Index is the name of an index, "" for the session's document.
	Index    string `json:"index,omitempty"`
	Position uint64 `json:"position,omitempty"` // in the log, of the session's newest event
	Detail   string `json:"detail"`
}

// Bounds of one step of a comparison.
const (
	memberBatch    = 1024 // members of an index that are read at once
	documentBatch  = 128
	parkedBatch    = 500
	followBatch    = 256
	compareMembers = 256  // of an index; one that has no more is read in one piece
	compareKeys    = 512  // about
	maxDoubts      = 1000 // kept until they are looked at once more
)

// pollEvery is how often the checkpoint is read while it is behind.
const pollEvery = 10 * time.Millisecond

// slowAfter is how long that may take before CompareOptions.Slow is called.
const slowAfter = 2 * time.Second

// doubtPatience is how long the slower of two generations may take to get where the
// other one is, before the comparison fails.
const doubtPatience = 10 * time.Second

// CompareOptions are what a comparison reports to; all but Slow are needed.
type CompareOptions struct {
	Difference func(Difference)
	Progress   func(done, total uint64) // in keys; total is 0 where it is not known
	// Slow is called while the generations are long in reaching the same event, which
	// the caller may be able to mend. It may be called again.
	Slow func()
}

// A Pair is what is compared of a partition: the generation that answers with one that
// was built beside it.
type Pair struct{ Built, Answers layout.Keyspace }

// CompareGenerations reports every difference between the generations that answer and
// the ones that were built. Both may change meanwhile: what differs at first sight is
// looked at once more when both hold the same events of that session.
func CompareGenerations(ctx context.Context, rdb redis.UniversalClient, pairs []Pair, opts CompareOptions) error {
	err := compareGenerations(ctx, rdb, pairs, opts)
	if err == nil || !strings.Contains(err.Error(), "WRONGTYPE") { // of Redis, perhaps out of a script
		return err
	}
	opts.Difference(Difference{Detail: fmt.Sprintf("a key is not of its kind, the rest was not compared: %v", err)})
	return nil // it is high time for another one
}

func compareGenerations(ctx context.Context, rdb redis.UniversalClient, pairs []Pair, opts CompareOptions) error {
	var total, seen uint64
	if len(pairs) == 1 { // on a cluster, the number of keys says nothing about a partition
		n, err := rdb.DBSize(ctx).Result()
		if err != nil {
			return fmt.Errorf("compare: %w", err)
		}
		total = uint64(n) //nolint:gosec // not negative
	}
	for _, pair := range pairs {
		c := &comparison{opts: opts, rdb: rdb, built: pair.Built, answers: pair.Answers, doubts: map[doubt]struct{}{}}
		if err := c.keys(ctx, &seen, total); err != nil {
			return err
		}
		if err := c.resolve(ctx); err != nil {
			return err
		}
	}
	return nil
}

// A comparison is that of one partition.
type comparison struct {
	opts           CompareOptions
	rdb            redis.UniversalClient
	built, answers layout.Keyspace
	doubts         map[doubt]struct{} // what differed at first sight
}

// A doubt is about a session's document, or about its place in an index.
type doubt struct{ id, index, member string }

func (c *comparison) doubt(ctx context.Context, d doubt) error {
	c.doubts[d] = struct{}{}
	if len(c.doubts) < maxDoubts {
		return nil
	}
	return c.resolve(ctx)
}

// keys compares all keys of both generations. Redis looks for the next ones while these
// are compared here: it has only one processor.
func (c *comparison) keys(ctx context.Context, seen *uint64, total uint64) error {
	found := make(chan []string, 1)
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() error {
		defer close(found)
		return c.scan(ctx, found)
	})
	both.Go(func() error {
		for keys := range found {
			if err := c.some(ctx, keys); err != nil {
				return err
			}
			*seen += uint64(len(keys))
			if total > 0 {
				total = max(total, *seen) // it may have grown
			}
			c.opts.Progress(*seen, total)
		}
		return nil
	})
	return both.Wait()
}

// scan finds the keys of the partition.
func (c *comparison) scan(ctx context.Context, found chan<- []string) error {
	for cursor := uint64(0); ; {
		var node redis.Cmdable = c.rdb
		if cluster, ok := c.rdb.(*redis.ClusterClient); ok {
			var err error
			if node, err = cluster.MasterForKey(ctx, c.built.Checkpoint()); err != nil {
				return fmt.Errorf("compare: %w", err)
			}
		}
		keys, next, err := node.Scan(ctx, cursor, c.built.Partition.KeyPattern(), compareKeys).Result()
		if err != nil {
			return fmt.Errorf("compare: %w", err)
		}
		select {
		case found <- keys:
		case <-ctx.Done():
			return ctx.Err()
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// some compares some keys: those of what was built with those of what answers, and of
// the latter whether the former has them too.
func (c *comparison) some(ctx context.Context, keys []string) error {
	var documents, indexes, others []string // names, and keys that what was built should have
	for _, key := range keys {
		if name, ok := strings.CutPrefix(key, c.built.DocumentPrefix()); ok {
			documents = append(documents, name)
		} else if name, ok := strings.CutPrefix(key, c.built.IndexPrefix()); ok {
			indexes = append(indexes, name)
		} else if strings.HasPrefix(key, c.answers.DocumentPrefix()) || strings.HasPrefix(key, c.answers.IndexPrefix()) {
			others = append(others, c.built.Prefix+strings.TrimPrefix(key, c.answers.Prefix))
		}
	}
	trip := c.rdb.Pipeline()
	var texts *redis.SliceCmd
	if len(documents) > 0 {
		pairs := make([]string, 0, 2*len(documents))
		for _, id := range documents {
			pairs = append(pairs, c.built.Document(id), c.answers.Document(id))
		}
		texts = trip.MGet(ctx, pairs...)
	}
	members := make([][2]*redis.StringSliceCmd, len(indexes))
	for i, name := range indexes {
		members[i][0] = trip.ZRange(ctx, c.built.Index(name), 0, compareMembers)
		members[i][1] = trip.ZRange(ctx, c.answers.Index(name), 0, compareMembers)
	}
	var known *redis.IntCmd
	if len(others) > 0 {
		known = trip.Exists(ctx, others...)
	}
	if _, err := trip.Exec(ctx); err != nil {
		return fmt.Errorf("compare: %w", err)
	}
	for i, id := range documents {
		if texts.Val()[2*i] != texts.Val()[2*i+1] {
			if err := c.doubt(ctx, doubt{id: id}); err != nil {
				return err
			}
		}
	}
	for i, name := range indexes {
		built, answers := members[i][0].Val(), members[i][1].Val()
		if len(built) > compareMembers || !slices.Equal(built, answers) {
			if err := c.index(ctx, name); err != nil {
				return err
			}
		}
	}
	if known != nil && known.Val() < int64(len(others)) {
		return c.missing(ctx, others)
	}
	return nil
}

// missing compares those keys that what was built does not have, and what answers does.
func (c *comparison) missing(ctx context.Context, keys []string) error {
	for _, key := range keys {
		n, err := c.rdb.Exists(ctx, key).Result()
		if err != nil {
			return fmt.Errorf("compare: %w", err)
		}
		if n > 0 {
			continue
		}
		if name, ok := strings.CutPrefix(key, c.built.IndexPrefix()); ok {
			err = c.index(ctx, name)
		} else {
			err = c.doubt(ctx, doubt{id: strings.TrimPrefix(key, c.built.DocumentPrefix())})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// index compares one index, member by member, in slices of the one that holds less in
// the same part.
func (c *comparison) index(ctx context.Context, name string) error {
	for from := layout.LexFirst; ; {
		reply, err := compareIndexScript.Run(ctx, c.rdb, []string{c.built.Index(name), c.answers.Index(name)}, from, compareMembers).Slice()
		if err != nil {
			return fmt.Errorf("compare index %s: %w", name, err)
		}
		var sides [2][]string
		for i := range sides {
			if sides[i], err = texts(reply[i]); err != nil {
				return err
			}
		}
		upTo, _ := reply[2].(string)
		for i, mine := range sides {
			for _, member := range mine {
				_, both := slices.BinarySearch(sides[1-i], member)
				if both || upTo != "" && member > upTo {
					continue // it has it, or it comes with the next slice
				}
				_, id := layout.MemberPlace(member)
				if err := c.doubt(ctx, doubt{id, name, member}); err != nil {
					return err
				}
			}
		}
		if upTo == "" {
			return nil
		}
		from = layout.LexAfter(upTo)
	}
}

// resolve looks once more at what differed, and reports what differs still.
func (c *comparison) resolve(ctx context.Context) error {
	for d := range c.doubts {
		for since := time.Now(); ; {
			difference, decided, err := c.judge(ctx, d)
			if err != nil {
				return err
			}
			if decided {
				if difference != nil {
					c.opts.Difference(*difference)
				}
				break
			}
			if time.Since(since) > slowAfter {
				c.opts.Slow()
			}
			if time.Since(since) > doubtPatience {
				return fmt.Errorf("compare session %s: the read models do not reach the same event of it", d.id)
			}
			if !projections.Pause(ctx, 5*time.Millisecond) {
				return context.Cause(ctx)
			}
		}
	}
	clear(c.doubts)
	return nil
}

// judge says whether there is a difference, once that can be decided.
func (c *comparison) judge(ctx context.Context, d doubt) (found *Difference, decided bool, err error) {
	keys := []string{
		c.built.Next(), c.answers.Checkpoint(), c.built.Document(d.id), c.answers.Document(d.id),
		c.built.Parked(), c.answers.Parked(),
	}
	if d.index != "" {
		keys = append(keys, c.built.Index(d.index), c.answers.Index(d.index))
	}
	reply, err := compareSessionScript.Run(ctx, c.rdb, keys, d.id, d.member).Slice()
	if err != nil {
		return nil, false, fmt.Errorf("compare session %s: %w", d.id, err)
	}
	var held [2]side
	for i, space := range []layout.Keyspace{c.built, c.answers} {
		text, _ := reply[i].(string)
		at, ok := layout.ParseCheckpoint(text)
		if !ok || at.Generation != space.Generation {
			return nil, false, fmt.Errorf("the read model was changed during the comparison: checkpoint %q", text)
		}
		held[i].reached = at.Position
		if held[i].text, _ = reply[2+i].(string); held[i].text != "" {
			stored, err := layout.DecodeDocument(held[i].text)
			if err != nil {
				held[i].damaged = err
				continue
			}
			held[i].position = stored.Position
		}
		if text, _ := reply[4+i].(string); text != "" {
			var parked layout.Parked
			if err := json.Unmarshal([]byte(text), &parked); err != nil {
				return nil, false, fmt.Errorf("parked session %s: %w", d.id, err)
			}
			held[i].position = parked.Position
		}
	}
	built, answers := &held[0], &held[1]
	report := func(format string, args ...any) (*Difference, bool, error) {
		return &Difference{SessionID: d.id, Index: d.index, Position: built.position, Detail: fmt.Sprintf(format, args...)}, true, nil
	}
	switch {
	case answers.damaged != nil:
		return report("the document cannot be read: %v", answers.damaged)
	case built.position > answers.reached, answers.position > built.reached:
		return nil, false, nil // one of them is behind
	case d.index != "":
		inBuilt, inAnswers := reply[6] == int64(1), reply[7] == int64(1)
		switch {
		case inBuilt == inAnswers:
			return nil, true, nil
		case inBuilt:
			return report("the index lacks the session")
		}
		return report("the index has the session, which does not belong there")
	case built.text == answers.text:
		return nil, true, nil
	case answers.text == "":
		return report("the session is missing")
	case built.text == "":
		return report("the session is not in the log, or cannot be projected")
	case built.position != answers.position:
		return report("the document is of position %d", answers.position)
	}
	return report("the document differs")
}

// A side is what one generation holds of a session.
type side struct {
	text     string
	position uint64 // of the event that left it so, 0 for none
	reached  uint64 // by the generation
	damaged  error
}

// texts takes the strings out of a script's reply.
func texts(reply any) ([]string, error) {
	values, ok := reply.([]any)
	if !ok {
		return nil, fmt.Errorf("redis returned %T for a list of texts", reply)
	}
	all := make([]string, len(values))
	for i, v := range values {
		if all[i], ok = v.(string); !ok {
			return nil, fmt.Errorf("redis returned %T for a text", v)
		}
	}
	return all, nil
}
