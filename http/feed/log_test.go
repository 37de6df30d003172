package feed

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chatsessions/domain"
)

// A scriptedLog is a log in memory whose every step a test can hold up: the
// interleavings that matter to the hub do not happen by themselves. The feed on the real
// log is tested where the service is.
type scriptedLog struct {
	mu     sync.Mutex
	more   *sync.Cond
	events []domain.Entry
	lost   error         // Follow returns it
	gate   chan struct{} // where it is set, Durable waits for its end

	follows, reads, histories atomic.Int64
	readers, mostReaders      int // of Read, at once
	meet                      int // Read goes on when so many have been reading at once
}

func newScriptedLog() *scriptedLog {
	l := &scriptedLog{}
	l.more = sync.NewCond(&l.mu)
	return l
}

// append adds one event of a session with its participants.
func (l *scriptedLog) append(id, actor string, participants ...string) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	position, version := uint64(len(l.events)+1), uint64(1)
	for i := range l.events {
		if l.events[i].Record.Event.Session.ID == id {
			version++
		}
	}
	typ := domain.EventCreated
	if version > 1 {
		typ = domain.EventUpdated
	}
	s := domain.Session{ID: id, CreatedBy: "creator", Participants: participants, State: domain.StateCreated, Version: version, Room: "room"}
	r := &domain.Record{
		Position: position, ID: fmt.Sprint("event-", position), Time: time.UnixMilli(int64(position)),
		Event: domain.Event{Type: typ, Changes: []byte(`{}`), Session: s}, Request: domain.Request{SessionID: id, Actor: actor},
	}
	l.events = append(l.events, domain.Entry{Record: r})
	l.more.Broadcast()
	return position
}

// park adds something that is no event.
func (l *scriptedLog) park(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, domain.Entry{Record: &domain.Record{Event: domain.Event{Session: domain.Session{ID: id}}, Position: uint64(len(l.events) + 1)}, Err: errors.New("not an event")})
	l.more.Broadcast()
}

// lose has all who follow fail.
func (l *scriptedLog) lose(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost = err
	l.more.Broadcast()
}

func (l *scriptedLog) snapshot() []domain.Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.events)
}

func (l *scriptedLog) End(context.Context) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return uint64(len(l.events)), l.lost
}

func (l *scriptedLog) Durable(ctx context.Context, _ uint64) error {
	l.mu.Lock()
	gate := l.gate
	l.mu.Unlock()
	if gate == nil {
		return nil
	}
	select {
	case <-gate:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *scriptedLog) Follow(ctx context.Context, after uint64, limit int, handle func([]domain.Entry) error) error {
	l.follows.Add(1)
	return l.follow(ctx, after, limit, handle)
}

func (l *scriptedLog) follow(ctx context.Context, after uint64, limit int, handle func([]domain.Entry) error) error {
	defer l.broadcastWhenEnded(ctx)()
	for {
		l.mu.Lock()
		for l.lost == nil && ctx.Err() == nil && uint64(len(l.events)) <= after {
			l.more.Wait()
		}
		err := l.lost
		batch := slices.Clone(l.events[min(int(after), len(l.events)):min(int(after)+limit, len(l.events))])
		l.mu.Unlock()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return err
		}
		if err := handle(batch); err != nil {
			return fmt.Errorf("follow: %w", err)
		}
		after += uint64(len(batch))
	}
}

// broadcastWhenEnded wakes all who wait for more when ctx ends, unless it is told to stop.
func (l *scriptedLog) broadcastWhenEnded(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.more.Broadcast()
	})
}

func (l *scriptedLog) Read(ctx context.Context, after, upTo uint64, limit int, handle func([]domain.Entry) error) error {
	l.reads.Add(1)
	l.enter(ctx)
	defer l.leave()
	done := errors.New("done")
	err := l.follow(ctx, after, limit, func(batch []domain.Entry) error {
		for len(batch) > 0 && batch[len(batch)-1].Record.Position > upTo {
			batch = batch[:len(batch)-1]
		}
		if len(batch) > 0 {
			if err := handle(batch); err != nil {
				return err
			}
		}
		if len(batch) == 0 || batch[len(batch)-1].Record.Position == upTo {
			return done
		}
		return nil
	})
	if errors.Is(err, done) {
		return nil
	}
	return err
}

func (l *scriptedLog) enter(ctx context.Context) {
	defer l.broadcastWhenEnded(ctx)()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.readers++
	l.mostReaders = max(l.mostReaders, l.readers)
	l.more.Broadcast()
	for l.mostReaders < l.meet && ctx.Err() == nil {
		l.more.Wait()
	}
}

func (l *scriptedLog) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.readers--
}

func (l *scriptedLog) History(_ context.Context, id string) iter.Seq2[domain.Record, error] {
	return func(yield func(domain.Record, error) bool) {
		l.histories.Add(1)
		none := true
		for _, r := range slices.Backward(l.snapshot()) {
			if r.Record.Event.Session.ID != id {
				continue
			}
			none = false
			if r.Err != nil {
				yield(domain.Record{}, domain.ErrUnreadable)
				return
			}
			if !yield(*r.Record, nil) {
				return
			}
		}
		if none {
			yield(domain.Record{}, domain.ErrNotFound)
		}
	}
}

// tokens are those that stand for somebody.
type tokens struct{ sync.Map }

func (v *tokens) Verify(token string) (domain.Caller, bool) {
	c, ok := v.Load(token)
	if !ok {
		return domain.Caller{}, false
	}
	return c.(domain.Caller), true
}

// eventually waits for what has to come.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not in time: " + what)
		}
	}
}
