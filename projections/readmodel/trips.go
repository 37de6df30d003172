package readmodel

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Bounds of the trips to one partition.
const (
	maxTrips      = 2   // more would each carry less, and cost Redis and this process as much as a full one
	tripDocuments = 256 // so that who asks for a short document is not kept by very many long ones
	// tripTime is how long a trip may take, from when the first one joined. A GET asks
	// the log after that.
	tripTime = 500 * time.Millisecond
)

// trips carry those who ask for a document of a partition to Redis and back, all who
// ask at the same time together: one MGET of the checkpoint and of their documents.
// Who comes while enough trips are under way goes with the next one; so each carries
// more the more is asked, and nobody waits where little is.
type trips struct {
	rdb        redis.UniversalClient
	checkpoint string // its key

	mu      sync.Mutex
	running int
	next    []*trip // have not begun; all but the last one are full
}

// tripHead is how long the command of an empty trip is.
const tripHead = 2

// A trip is one MGET. It is not given up when somebody who shares it goes away.
type trip struct {
	command []any // with the keys of the checkpoint and of the documents
	until   time.Time
	done    chan struct{}
	values  []string
	err     error
}

// get reads a document, "" for none, and the checkpoint as it is at the same moment.
// Both are read after the call, which takes tripTime at most.
func (t *trips) get(key string) (checkpoint, document string, err error) {
	mine, seat := t.join(key)
	<-mine.done
	if mine.err != nil {
		return "", "", mine.err
	}
	return mine.values[0], mine.values[seat], nil
}

// join takes a seat in a trip that has not begun.
func (t *trips) join(key string) (mine *trip, seat int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.next); n > 0 && len(t.next[n-1].command) < tripHead+tripDocuments {
		mine = t.next[n-1]
	} else {
		mine = &trip{
			command: append(make([]any, 0, tripHead+16), "MGET", t.checkpoint),
			until:   time.Now().Add(tripTime), done: make(chan struct{}),
		}
		t.next = append(t.next, mine)
	}
	mine.command = append(mine.command, key)
	if t.running < maxTrips {
		t.running++
		go t.run()
	}
	return mine, len(mine.command) - 2
}

// run makes one trip after the other, until nobody waits for one.
func (t *trips) run() {
	for mine := t.begin(); mine != nil; mine = t.begin() {
		ctx, cancel := context.WithDeadline(context.Background(), mine.until)
		asked := redis.NewStringSliceCmd(ctx, mine.command...)
		mine.err = t.rdb.Process(ctx, asked)
		cancel()
		mine.values = asked.Val()
		close(mine.done)
	}
}

// begin returns the trip whose turn it is, nil where nobody waits.
func (t *trips) begin() *trip {
	runtime.Gosched() // whoever is just about to ask comes along: a trip costs much, a passenger little
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.next) == 0 {
		t.running--
		return nil
	}
	mine := t.next[0]
	t.next = slices.Delete(t.next, 0, 1)
	return mine
}
