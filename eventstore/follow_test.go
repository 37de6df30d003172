package eventstore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"chatsessions/domain"
	"chatsessions/eventstore"
	"chatsessions/eventstore/natstest"
)

func testFollow(t *testing.T, one, other *eventstore.Log) {
	start := mustEnd(t, one)
	var writers sync.WaitGroup
	defer writers.Wait() // also where the test has failed
	for i := range 10 {
		writers.Go(func() {
			l := []*eventstore.Log{one, other}[i%2]
			for range 5 {
				id := newID()
				if _, err := l.Transact(testContext(t), request(id, "pat"), imported(id, "pat")); err != nil {
					t.Error(err)
				}
				if _, err := l.Transact(testContext(t), request(id, "pat"), setRoom("r")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	total := start + 10*5*(importedEvents+1)
	for _, limit := range []int{1, 3, 1000} {
		position, versions, done := start, map[string]uint64{}, errors.New("done")
		err := other.Follow(testContext(t), start, limit, func(batch []domain.Entry) error {
			checkOrder(t, position, batch, versions)
			if first := batch[0].Record.Event.Session.Version; first != 1 && first != importedEvents+1 {
				t.Errorf("limit %d: a batch starts within a write, at version %d", limit, first)
			}
			if last := batch[len(batch)-1].Record.Event.Session.Version; last < importedEvents {
				t.Errorf("limit %d: a batch ends within a write, at version %d", limit, last)
			}
			if len(batch) > limit+importedEvents {
				t.Errorf("limit %d: a batch of %d", limit, len(batch))
			}
			if position = batch[len(batch)-1].Record.Position; position >= total {
				return done
			}
			return nil
		})
		if !errors.Is(err, done) {
			t.Fatal(err)
		}
	}
}

func testFollowResumes(t *testing.T, one, other *eventstore.Log) {
	start := mustEnd(t, one)
	for range 6 {
		id := newID()
		mustTransact(t, one, request(id, "pat"), imported(id, "pat"))
	}
	all := everything(t, other, start)
	for i := range 6 {
		rest := everything(t, other, start+uint64(i)*importedEvents)
		if !slices.EqualFunc(rest, all[i*importedEvents:], sameEntry) {
			t.Errorf("after %d writes: %d events", i, len(rest))
		}
	}
}

func testFollowEnds(t *testing.T, one, other *eventstore.Log) {
	id := newID()
	start := mustEnd(t, one)
	mustTransact(t, one, request(id, "pat"), create(id, "pat"))

	ctx, cancel := context.WithCancel(testContext(t))
	err := one.Follow(ctx, start, 10, func([]domain.Entry) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	failure := fmt.Errorf("handler failed")
	if err := one.Follow(testContext(t), start, 10, func([]domain.Entry) error { return failure }); !errors.Is(err, failure) {
		t.Errorf("failed: %v", err)
	}
}

// TestFollowOverRestarts restarts the server under a feed.
func TestFollowOverRestarts(t *testing.T) {
	server := natstest.Start(t, natstest.Config{})
	l := openLog(t, connect(t, server.URL()))
	var position atomic.Uint64
	versions := map[string]uint64{}
	ctx, cancel := context.WithCancel(testContext(t))
	var follower sync.WaitGroup
	defer follower.Wait()
	defer cancel()
	follower.Go(func() {
		err := l.Follow(ctx, 0, 10, func(batch []domain.Entry) error {
			checkOrder(t, position.Load(), batch, versions)
			position.Store(batch[len(batch)-1].Record.Position)
			return nil
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("follow: %v", err)
		}
	})
	for _, stop := range []func(){func() {}, server.Stop, server.Kill} {
		stop()
		server.Restart()
		var last uint64
		for range 3 {
			id := newID()
			last = mustTransact(t, l, request(id, "pat"), imported(id, "pat")).Record.Position
		}
		eventually(t, "the feed catches up", func() bool { return position.Load() == last })
	}
}

func TestCloseEndsFeeds(t *testing.T) {
	l := openLog(t, connectEmbedded(t, startEmbedded(t, t.TempDir())))
	id := newID()
	mustTransact(t, l, request(id, "pat"), create(id, "pat"))
	ended, started := make(chan error, 1), make(chan struct{}, 1)
	go func() {
		ended <- l.Follow(testContext(t), 0, 1, func([]domain.Entry) error { started <- struct{}{}; return nil })
	}()
	<-started
	l.Close()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := l.Follow(testContext(t), 0, 1, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("after that: %v", err)
	}
}
