package projections

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"chatsessions/domain"
)

// Bounds of one slice, so that the script which reads it stays short.
const (
	minSlice      = 32  // members
	maxSlice      = 256 // members
	maxSliceBytes = 1 << 20
)

// walk calls visit with every document of the source that matches the query, in
// order, until visit returns false. wanted is how many matches the caller will
// take, about. It returns domain.ErrTooExpensive when it has cost too much.
func (l *listing) walk(ctx context.Context, from source, part bounds, wanted int, visit func(*stored) bool) error {
	size := min(max(wanted, minSlice), maxSlice)
	if from.alone {
		size = min(wanted, maxSlice)
	}
	read := l.slice
	if len(from.indexes) > 1 {
		read = l.merged
	}
	for examined := 0; ; {
		if examined >= l.budget || !time.Now().Before(l.deadline) {
			return domain.ErrTooExpensive
		}
		found, rest, more, err := read(ctx, from.indexes, part, size)
		switch {
		case err != nil && examined > 0 && errors.Is(err, context.DeadlineExceeded):
			return domain.ErrTooExpensive
		case err != nil:
			return err
		}
		for _, e := range found {
			examined++
			ok, err := l.verify(ctx, e)
			if err != nil {
				return err
			}
			if ok && !visit(e.document) {
				return nil
			}
		}
		if !more {
			return nil
		}
		part = rest
		size = min(2*size, maxSlice)
	}
}

// An entry is a member of an index and its document, nil when there is none.
type entry struct {
	member   string
	document *stored
}

// verify says whether an entry belongs in the result. The member of a document
// that was changed between two reads may no longer be its own.
func (l *listing) verify(ctx context.Context, e entry) (bool, error) {
	if e.document == nil {
		_, id := placeOf(e.member)
		l.logger.WarnContext(ctx, "an index names a session that the read model does not hold", "id", id)
		return false, nil
	}
	if e.document.member != e.member {
		return false, nil
	}
	return l.plan.matches(e.document)
}

// slice reads the next members of one index with their documents, as one view.
func (l *listing) slice(ctx context.Context, indexes []string, part bounds, size int) (found []entry, rest bounds, more bool, err error) {
	command, first, last := part.args()
	reply, err := sliceScript.Run(ctx, l.rdb, []string{l.view.keys.checkpoint(), l.view.keys.index(indexes[0])},
		command, first, last, size, l.view.keys.documents(), maxSliceBytes).Slice()
	if err != nil {
		return nil, part, false, err
	}
	if err := l.check(ctx, l.view, reply[0]); err != nil {
		return nil, part, false, err
	}
	members, err := texts(reply[1])
	if err != nil {
		return nil, part, false, err
	}
	documents, _ := reply[2].([]any)
	more = len(members) == size || len(documents) < len(members)
	for i, value := range documents {
		e, err := newEntry(members[i], value)
		if err != nil {
			return nil, part, false, err
		}
		found = append(found, e)
	}
	if len(found) > 0 {
		part = part.after(found[len(found)-1].member)
	}
	return found, part, more, nil
}

// merged reads the next members of several indexes, each member once, and then
// their documents.
func (l *listing) merged(ctx context.Context, indexes []string, part bounds, size int) (found []entry, rest bounds, more bool, err error) {
	each := max(2*size/len(indexes), 8)
	keys := []string{l.view.keys.checkpoint()}
	for _, index := range indexes {
		keys = append(keys, l.view.keys.index(index))
	}
	command, first, last := part.args()
	reply, err := membersScript.Run(ctx, l.rdb, keys, command, first, last, each).Slice()
	if err != nil {
		return nil, part, false, err
	}
	if err := l.check(ctx, l.view, reply[0]); err != nil {
		return nil, part, false, err
	}
	var members []string
	horizon := "" // behind it, an index that was not read to its end may hold more
	for _, r := range reply[1:] {
		some, err := texts(r)
		if err != nil {
			return nil, part, false, err
		}
		members = append(members, some...)
		if len(some) == each && (horizon == "" || part.precedes(some[each-1], horizon)) {
			horizon = some[each-1]
		}
	}
	slices.SortFunc(members, func(a, b string) int {
		if part.ascending {
			return strings.Compare(a, b)
		}
		return strings.Compare(b, a)
	})
	members = slices.Compact(members)
	if horizon != "" {
		more = true
		members = slices.DeleteFunc(members, func(m string) bool { return part.precedes(horizon, m) })
	}
	if len(members) > size {
		more = true
		members = members[:size]
	}
	found, err = l.documents(ctx, members)
	if len(members) > 0 {
		part = part.after(members[len(members)-1])
	}
	return found, part, more, err
}

// documents reads the documents of some members.
func (l *listing) documents(ctx context.Context, members []string) ([]entry, error) {
	if len(members) == 0 {
		return nil, nil
	}
	keys := []string{l.view.keys.checkpoint()}
	for _, member := range members {
		_, id := placeOf(member)
		keys = append(keys, l.view.keys.document(id))
	}
	reply, err := l.rdb.MGet(ctx, keys...).Result()
	if err != nil {
		return nil, err
	}
	if err := l.check(ctx, l.view, reply[0]); err != nil {
		return nil, err
	}
	found := make([]entry, len(members))
	for i, member := range members {
		if found[i], err = newEntry(member, reply[i+1]); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// seek returns the part of an index that begins after so many members.
func (l *listing) seek(ctx context.Context, index string, part bounds, skip int) (rest bounds, any bool, err error) {
	command, low, high := "ZRANGE", "", ""
	if part.ascending && part.low != lexFirst {
		low, high = lexFirst, complement(part.low)
	}
	if !part.ascending {
		command = "ZREVRANGE"
		if part.high != lexLast {
			low, high = complement(part.high), lexLast
		}
	}
	reply, err := seekScript.Run(ctx, l.rdb, []string{l.view.keys.checkpoint(), l.view.keys.index(index)},
		command, low, high, skip).Slice()
	if err != nil {
		return part, false, err
	}
	if err := l.check(ctx, l.view, reply[0]); err != nil {
		return part, false, err
	}
	member, ok := reply[1].(string)
	if !ok {
		return part, false, nil
	}
	return part.from(member), true, nil
}

// complement turns the bound of a range into that of what the range leaves out.
func complement(bound string) string {
	if bound[0] == '[' {
		return "(" + bound[1:]
	}
	return "[" + bound[1:]
}

func newEntry(member string, value any) (entry, error) {
	if len(member) != memberLength {
		return entry{}, fmt.Errorf("an index member of %d bytes is not in the layout %s", len(member), layoutVersion)
	}
	text, ok := value.(string)
	if !ok {
		return entry{member: member}, nil
	}
	d, err := decodeDocument(text)
	return entry{member, d}, err
}

func texts(reply any) ([]string, error) {
	values, ok := reply.([]any)
	if !ok {
		return nil, fmt.Errorf("redis returned %T for members", reply)
	}
	all := make([]string, len(values))
	for i, v := range values {
		if all[i], ok = v.(string); !ok {
			return nil, fmt.Errorf("redis returned %T for a member", v)
		}
	}
	return all, nil
}
