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
	maxTrips      = 2   // more would carry fewer documents each, at the same cost for Redis and this process
	tripDocuments = 256 // so that a short document does not wait for very many long ones
	// tripTime bounds a trip from its first passenger on; then a GET asks the log.
	tripTime = 500 * time.Millisecond
)

// trips combine concurrent requests for documents of a partition: one MGET of the
// checkpoint and of all their documents. While enough trips are running, new requests
// join the next one. Batches grow with load; an idle system adds no wait.
type trips struct {
	rdb        redis.UniversalClient
	checkpoint string // its key

	mu      sync.Mutex
	running int
	next    []*trip // not started; all but the last are full
}

// tripHead is the length of an empty trip's command.
const tripHead = 2

// A trip is one MGET. It continues when one of its passengers leaves.
type trip struct {
	command []any // MGET, the checkpoint's key, and the documents' keys
	until   time.Time
	done    chan struct{}
	values  []string
	err     error
}

// get reads a document, "" for none, and the checkpoint as of the same moment. Both are
// read after the call, within tripTime.
func (t *trips) get(key string) (checkpoint, document string, err error) {
	mine, seat := t.join(key)
	<-mine.done
	if mine.err != nil {
		return "", "", mine.err
	}
	return mine.values[0], mine.values[seat], nil
}

// join adds a key to a trip that has not started.
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

// run makes one trip after another until no request waits.
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

// begin returns the next trip, nil if no request waits.
func (t *trips) begin() *trip {
	runtime.Gosched() // lets requests that are about to join do so: a trip is expensive, a passenger cheap
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
