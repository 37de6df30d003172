package http

import (
	"context"
	"errors"
	"iter"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chatsessions/domain"
	"chatsessions/http/problem"
)

// A slowLog has one session of endless history, and counts how many have read more than
// what is short of it.
type slowLog struct {
	Log
	reading, most atomic.Int64
	goOn          chan struct{}
}

func (l *slowLog) History(ctx context.Context, id string) iter.Seq2[domain.Record, error] {
	return func(yield func(domain.Record, error) bool) {
		for n := range shortHistory + 2 {
			r := domain.Record{Position: uint64(1000 - n), Event: domain.Event{Session: domain.Session{ID: id, CreatedBy: "alice", Version: uint64(1000 - n)}}}
			if !yield(r, nil) {
				return
			}
		}
		now := l.reading.Add(1)
		defer l.reading.Add(-1)
		for most := l.most.Load(); now > most && !l.most.CompareAndSwap(most, now); most = l.most.Load() {
		}
		select {
		case <-l.goOn:
			yield(domain.Record{}, errEnough)
		case <-ctx.Done():
			yield(domain.Record{}, ctx.Err())
		}
	}
}

var errEnough = errors.New("enough")

// shown is a read model that shows everything already.
type shown struct{ ReadModel }

func (shown) AwaitEverywhere(context.Context, uint64) error { return nil }
func (shown) Observe(uint64)                                {}

func TestFewLongHistoriesAreReadAtATime(t *testing.T) {
	log := &slowLog{goOn: make(chan struct{})}
	s := NewServer(Config{Log: log, Reads: shown{}, Now: time.Now})
	read := func(ctx context.Context, most int) (n int, err error) {
		for _, err = range s.past(ctx, domain.Caller{Account: "alice", Role: domain.RoleAccount}, "s1") {
			if n++; err != nil || n == most {
				break
			}
		}
		return n, err
	}
	var all sync.WaitGroup
	for range 5 * longHistories {
		all.Go(func() {
			if n, err := read(t.Context(), -1); !errors.Is(err, errEnough) {
				t.Errorf("after %d events: %v", n, err)
			}
		})
	}
	for log.reading.Load() < longHistories {
		<-time.After(time.Millisecond)
	}
	if n, err := read(t.Context(), shortHistory); n != shortHistory || err != nil {
		t.Errorf("a short one is told with %d events: %v", n, err)
	}
	soon, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := read(soon, -1)
	if p := problem.Of(err); p.Status != 503 || !strings.Contains(p.Detail, "/chat-sessions/s1/events?after=968") {
		t.Errorf("who has waited in vain is told %v", err)
	}
	close(log.goOn)
	all.Wait()
	if most := log.most.Load(); most != longHistories {
		t.Errorf("%d were read at a time, want %d", most, longHistories)
	}
}
