package projections

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"chatsessions/domain"
)

// A fakeLog is a log in memory. It stands at the boundary of this package.
type fakeLog struct {
	mu       sync.Mutex
	identity string
	events   []domain.Entry // event i is at position i+1
	written  int            // how many there have ever been
	ends     int            // how often the end was asked for
	trouble  error          // what End and Follow answer instead
	grown    chan struct{}  // closed and replaced when anything changes
	holds    uint64         // events from here on are not durable; 0 for none
	cut      int            // batches hold at most so many events; 0 for the projector's limit
}

func newFakeLog(identity string) *fakeLog {
	return &fakeLog{identity: identity, grown: make(chan struct{})}
}

func (l *fakeLog) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	close(l.grown)
	l.grown = make(chan struct{})
}

// append records sessions, each as one event, and returns the last position.
func (l *fakeLog) append(sessions ...domain.Session) uint64 {
	events := make([]domain.Entry, len(sessions))
	for i, s := range sessions {
		events[i].Record = &domain.Record{Event: domain.Event{Session: s}}
	}
	return l.record(events...)
}

// record records events, gives them their positions, and returns the last one.
func (l *fakeLog) record(events ...domain.Entry) uint64 {
	var last uint64
	l.change(func() {
		for _, e := range events {
			e.Record = new(*e.Record)
			e.Record.Position = uint64(len(l.events) + 1)
			last = e.Record.Position
			if l.written++; e.Err == nil {
				e.Record.ID = fmt.Sprint("event-", l.written)
			}
			l.events = append(l.events, e)
		}
	})
	return last
}

// recordUnreadable records a message of the n-th session that is no event.
func (l *fakeLog) recordUnreadable(n int) uint64 {
	return l.record(domain.Entry{Record: &domain.Record{Event: domain.Event{Session: domain.Session{ID: id(n)}}}, Err: errNoEvent})
}

func (l *fakeLog) truncate(n int) { l.change(func() { l.events = l.events[:n:n] }) }

func (l *fakeLog) fail(err error) { l.change(func() { l.trouble = err }) }

// newest returns the newest state of every session.
func (l *fakeLog) newest() map[string]domain.Session {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := map[string]domain.Session{}
	for _, e := range l.events {
		all[e.Record.Event.Session.ID] = e.Record.Event.Session
	}
	return all
}

// load returns the newest event of a session.
func (l *fakeLog) load(_ context.Context, id string) (*domain.Record, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range slices.Backward(l.events) {
		if e.Record.Event.Session.ID == id {
			return e.Record, e.Err
		}
	}
	return nil, domain.ErrNotFound
}

func (l *fakeLog) Identity() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.identity
}

func (l *fakeLog) End(context.Context) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ends++
	return uint64(len(l.events)), l.trouble
}

// Durable returns when everything up to a position has been called durable.
func (l *fakeLog) Durable(ctx context.Context, position uint64) error {
	for {
		l.mu.Lock()
		waits, grown := l.holds > 0 && position >= l.holds, l.grown
		l.mu.Unlock()
		if !waits {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-grown:
		}
	}
}

// hold keeps what comes from a position on from being durable; 0 for nothing.
func (l *fakeLog) hold(position uint64) { l.change(func() { l.holds = position }) }

func (l *fakeLog) EventID(_ context.Context, position uint64) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if position == 0 || position > uint64(len(l.events)) {
		return "", l.trouble
	}
	return l.events[position-1].Record.ID, l.trouble
}

func (l *fakeLog) Follow(ctx context.Context, after uint64, limit int, handle func([]domain.Entry) error) error {
	for {
		l.mu.Lock()
		trouble, grown := l.trouble, l.grown
		if l.cut > 0 {
			limit = l.cut
		}
		var batch []domain.Entry
		if after < uint64(len(l.events)) {
			batch = l.events[after:min(int(after)+limit, len(l.events))]
		}
		l.mu.Unlock()
		if trouble != nil {
			return trouble
		}
		if len(batch) > 0 {
			if err := handle(batch); err != nil {
				return err
			}
			after = batch[len(batch)-1].Record.Position
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-grown:
		}
	}
}

// Newest hands over what was the newest of its session when half of the log was there,
// and then the other half: as if that had been written meanwhile.
func (l *fakeLog) Newest(_ context.Context, limit int, handle func([]domain.Entry) error) (uint64, error) {
	l.mu.Lock()
	end, trouble := uint64(len(l.events)), l.trouble
	begun := len(l.events) - len(l.events)/2
	last := map[string]uint64{}
	for _, e := range l.events[:begun] {
		last[e.Record.Event.Session.ID] = e.Record.Position
	}
	var newest []domain.Entry
	for i, e := range l.events {
		if i >= begun || last[e.Record.Event.Session.ID] == e.Record.Position {
			newest = append(newest, e)
		}
	}
	l.mu.Unlock()
	for batch := range slices.Chunk(newest, limit) {
		if err := handle(batch); err != nil {
			return 0, err
		}
	}
	return end, trouble
}

var (
	errLogDown = errors.New("the log is down")
	errNoEvent = errors.New("this is no event")
)

// id returns the n-th of a row of valid session ids.
func id(n int) string { return fmt.Sprintf("01890000-0000-7000-8000-%012x", n) }

// session returns a session as its n-th event might leave it.
func session(n int, createdAt int64, change ...func(*domain.Session)) domain.Session {
	s := domain.Session{
		ID: id(n), CreatedAt: createdAt, CreatedBy: "alice", State: domain.StateCreated,
		Version: 1, UpdatedAt: createdAt,
	}
	for _, c := range change {
		c(&s)
	}
	return s
}

func by(account string) func(*domain.Session) {
	return func(s *domain.Session) { s.CreatedBy = account }
}

func with(participants ...string) func(*domain.Session) {
	return func(s *domain.Session) { s.Participants = participants }
}

func in(state domain.State) func(*domain.Session) {
	return func(s *domain.Session) { s.State = state }
}

func room(name string) func(*domain.Session) {
	return func(s *domain.Session) { s.Room = name }
}

func version(n uint64) func(*domain.Session) {
	return func(s *domain.Session) { s.Version = n }
}

func jsonOf(s domain.Session) string { return string(s.AppendJSON(nil)) }

func mustRun(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
