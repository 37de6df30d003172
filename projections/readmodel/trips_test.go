package readmodel

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"chatsessions/projections/logtest"
	"chatsessions/projections/modeltest"
	"chatsessions/projections/redistest"
)

// tripsOver returns trips to documents that were written, "value n" at "key n".
func tripsOver(t *testing.T, rdb redis.UniversalClient, documents int) *trips {
	t.Helper()
	logtest.MustRun(t, rdb.Set(t.Context(), "checkpoint", "here", 0).Err())
	for n := range documents {
		logtest.MustRun(t, rdb.Set(t.Context(), fmt.Sprint("key ", n), fmt.Sprint("value ", n), 0).Err())
	}
	return &trips{rdb: rdb, checkpoint: "checkpoint"}
}

// Concurrent reads each return the document that was asked for, with far fewer Redis
// commands than reads.
func TestConcurrentReadsShareTrips(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		const many = 4 * tripDocuments
		counted := &counter{}
		rdb.AddHook(counted)
		all := tripsOver(t, rdb, many)
		counted.reset()
		var asking sync.WaitGroup
		for n := range many {
			asking.Go(func() {
				checkpoint, document, err := all.get(fmt.Sprint("key ", n))
				if err != nil || checkpoint != "here" || document != fmt.Sprint("value ", n) {
					t.Errorf("key %d: got %q, %q, %v", n, checkpoint, document, err)
				}
			})
		}
		asking.Wait()
		if commands, longest := counted.read(); commands > many/8 || longest > tripDocuments+tripHead {
			t.Errorf("%d commands for %d documents, the longest of %d parts", commands, many, longest)
		}
		logtest.Eventually(t, "no trip is under way when nobody asks", func() bool {
			all.mu.Lock()
			defer all.mu.Unlock()
			return all.running == 0 && len(all.next) == 0
		})
	})
}

func TestADocumentThatIsNotThereIsEmpty(t *testing.T) {
	modeltest.OnEveryRedis(t, func(t *testing.T, rdb redis.UniversalClient) {
		all := tripsOver(t, rdb, 1)
		logtest.MustRun(t, rdb.HSet(t.Context(), "key 1", "field", "value").Err()) // nor is one of another kind
		for _, key := range []string{"key 1", "key 2"} {
			if checkpoint, document, err := all.get(key); err != nil || checkpoint != "here" || document != "" {
				t.Errorf("%s: got %q, %q, %v", key, checkpoint, document, err)
			}
		}
	})
}

// No read waits much longer than one trip may take, even if it could not start because
// earlier trips hang. When Redis is back, reads succeed again.
func TestTripsToARedisThatHangsEndInTime(t *testing.T) {
	server := redistest.Start(t, redistest.Config{Password: "secret"})
	all := tripsOver(t, modeltest.Connect(t, server), 100)
	server.Pause()
	began := time.Now()
	var asking sync.WaitGroup
	for n := range 100 {
		asking.Go(func() {
			time.Sleep(time.Duration(n) * time.Millisecond)
			if _, _, err := all.get(fmt.Sprint("key ", n)); err == nil {
				t.Errorf("key %d: got an answer of a Redis that hangs", n)
			}
		})
	}
	asking.Wait()
	if took := time.Since(began); took > 10*tripTime {
		t.Errorf("it took %v", took)
	}
	server.Resume()
	if _, document, err := all.get("key 1"); err != nil || document != "value 1" {
		t.Errorf("got %q, %v", document, err)
	}
}

// A counter counts the commands MGET that a client sends.
type counter struct {
	mu                sync.Mutex
	commands, longest int
}

func (c *counter) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.commands, c.longest = 0, 0
}

func (c *counter) read() (commands, longest int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.commands, c.longest
}

func (*counter) DialHook(next redis.DialHook) redis.DialHook { return next }

func (*counter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (c *counter) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if strings.EqualFold(cmd.Name(), "mget") {
			c.mu.Lock()
			c.commands, c.longest = c.commands+1, max(c.longest, len(cmd.Args()))
			c.mu.Unlock()
		}
		return next(ctx, cmd)
	}
}
