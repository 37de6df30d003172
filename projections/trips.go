package projections

import (
	"context"
	"slices"
	"sync"

	"github.com/redis/go-redis/v9"
)

// Bounds of the trips to one partition.
const (
	tripsUnderway = 2   // more would each carry less, and cost Redis and this process as much as a full one
	tripDocuments = 256 // so that who asks for a short document is not kept by very many long ones
)

// trips carry those who ask for a document of a partition to Redis and back, all who
// ask at the same time together: one MGET of the checkpoint and of their documents.
// Who comes while enough trips are under way goes with the next one; so each carries
// more the more is asked, and nobody waits where little is.
type trips struct {
	rdb        redis.UniversalClient
	checkpoint string // its key

	mu       sync.Mutex
	underway int
	next     []*trip // have not begun; all but the last one are full
}

// A trip is one MGET.
type trip struct {
	keys    []string // the checkpoint's, and the documents'
	waiting int      // how many have not given up
	done    chan struct{}
	values  []string
	err     error
}

// get reads a document, "" for none, and the checkpoint as it is at the same moment.
// Both are read after the call. It returns ctx's error when that ends earlier.
func (t *trips) get(ctx context.Context, key string) (checkpoint, document string, err error) {
	mine, seat := t.join(key)
	select {
	case <-mine.done:
	case <-ctx.Done():
		t.leave(mine)
		return "", "", ctx.Err()
	}
	if mine.err != nil {
		return "", "", mine.err
	}
	return mine.values[0], mine.values[seat], nil
}

// join takes a seat in a trip that has not begun.
func (t *trips) join(key string) (mine *trip, seat int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.next); n > 0 && len(t.next[n-1].keys) <= tripDocuments {
		mine = t.next[n-1]
	} else {
		mine = &trip{keys: append(make([]string, 0, 16), t.checkpoint), done: make(chan struct{})}
		t.next = append(t.next, mine)
	}
	seat = len(mine.keys)
	mine.keys = append(mine.keys, key)
	mine.waiting++
	if t.underway < tripsUnderway {
		t.underway++
		go t.run()
	}
	return mine, seat
}

// leave is for who waits no longer. A trip for nobody does not take place.
func (t *trips) leave(mine *trip) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if mine.waiting--; mine.waiting > 0 {
		return
	}
	if i := slices.Index(t.next, mine); i >= 0 {
		t.next = slices.Delete(t.next, i, i+1)
	}
}

// run makes one trip after the other, until nobody waits for one. What bounds a trip
// are the client's deadlines: those who share it have different ones.
func (t *trips) run() {
	for mine := t.begin(); mine != nil; mine = t.begin() {
		args := make([]any, 0, 1+len(mine.keys))
		args = append(args, "MGET")
		for _, key := range mine.keys {
			args = append(args, key)
		}
		asked := redis.NewStringSliceCmd(context.Background(), args...)
		mine.err = t.rdb.Process(context.Background(), asked)
		mine.values = asked.Val()
		close(mine.done)
	}
}

// begin returns the trip whose turn it is, nil where nobody waits.
func (t *trips) begin() *trip {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.next) == 0 {
		t.underway--
		return nil
	}
	mine := t.next[0]
	t.next = slices.Delete(t.next, 0, 1)
	return mine
}
