// Package logtest provides a log in memory, sessions to write to it, and small helpers for
// tests of projections. Only tests import it.
//
//	log.go  Log, and what can go wrong with it
//	run.go  runs what has a Run method; waits
package logtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"chatsessions/domain"

	"pgregory.net/rapid"
)

// A Log is a log in memory. It implements projections.Log.
type Log struct {
	mu       sync.Mutex
	identity string
	Events   []domain.Entry // event i is at position i+1
	written  int            // events ever written
	ends     int            // calls of End
	trouble  error          // returned by End, Follow, and Newest instead
	grown    chan struct{}  // closed and replaced when anything changes
	holds    uint64         // events from here on are not durable; 0 for none
	Batch    int            // events that Follow passes at once; 0 for the caller's limit
}

// New returns an empty log.
func New(identity string) *Log {
	return &Log{identity: identity, grown: make(chan struct{})}
}

// Change changes the log, and wakes who waits for that.
func (l *Log) Change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	close(l.grown)
	l.grown = make(chan struct{})
}

// Append writes one event for each session and returns the last position.
func (l *Log) Append(sessions ...domain.Session) uint64 {
	events := make([]domain.Entry, len(sessions))
	for i, s := range sessions {
		events[i].Record = &domain.Record{Event: domain.Event{Session: s}}
	}
	return l.Record(events...)
}

// Record writes events, assigns their positions, and returns the last one.
func (l *Log) Record(events ...domain.Entry) (last uint64) {
	l.Change(func() {
		for _, e := range events {
			e.Record = new(*e.Record)
			e.Record.Position = uint64(len(l.Events) + 1)
			last = e.Record.Position
			if l.written++; e.Err == nil {
				e.Record.ID = fmt.Sprint("event-", l.written)
			}
			l.Events = append(l.Events, e)
		}
	})
	return last
}

// RecordUnreadable writes a message of the n-th session that is not an event.
func (l *Log) RecordUnreadable(n int) uint64 {
	return l.Record(domain.Entry{Record: &domain.Record{Event: domain.Event{Session: domain.Session{ID: ID(n)}}}, Err: ErrNoEvent})
}

// All returns all events.
func (l *Log) All() []domain.Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.Events)
}

// Length returns the position of the last event.
func (l *Log) Length() uint64 { return uint64(len(l.All())) }

// Asked returns how often the end was requested.
func (l *Log) Asked() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ends
}

// Truncate removes all events but the first n.
func (l *Log) Truncate(n int) { l.Change(func() { l.Events = l.Events[:n:n] }) }

// Fail makes the log fail with err; nil ends that.
func (l *Log) Fail(err error) { l.Change(func() { l.trouble = err }) }

// Sessions returns the newest state of every session.
func (l *Log) Sessions() map[string]domain.Session {
	all := map[string]domain.Session{}
	for _, e := range l.All() {
		all[e.Record.Event.Session.ID] = e.Record.Event.Session
	}
	return all
}

// Load returns the newest event of a session.
func (l *Log) Load(_ context.Context, id string) (*domain.Record, error) {
	for _, e := range slices.Backward(l.All()) {
		if e.Record.Event.Session.ID != id {
			continue
		}
		if errors.Is(e.Err, ErrNoEvent) {
			return nil, fmt.Errorf("%w: %w", domain.ErrUnreadable, e.Err)
		}
		return e.Record, e.Err
	}
	return nil, domain.ErrNotFound
}

// Identity implements projections.Log.
func (l *Log) Identity() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.identity
}

// End implements projections.Log.
func (l *Log) End(context.Context) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ends++
	return uint64(len(l.Events)), l.trouble
}

// Durable waits while the position is held.
func (l *Log) Durable(ctx context.Context, position uint64) error {
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

// Hold keeps events from a position on from being durable; 0 releases them.
func (l *Log) Hold(position uint64) { l.Change(func() { l.holds = position }) }

// EventID implements projections.Log.
func (l *Log) EventID(_ context.Context, position uint64) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if position == 0 || position > uint64(len(l.Events)) {
		return "", l.trouble
	}
	return l.Events[position-1].Record.ID, l.trouble
}

// Follow implements projections.Log.
func (l *Log) Follow(ctx context.Context, after uint64, limit int, handle func([]domain.Entry) error) error {
	for {
		l.mu.Lock()
		trouble, grown := l.trouble, l.grown
		limit = cmp.Or(l.Batch, limit)
		var batch []domain.Entry
		if after < uint64(len(l.Events)) {
			batch = l.Events[after:min(int(after)+limit, len(l.Events))]
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

// Newest passes the newest events as of half of the log, and then the other half, as if
// that had been written during the call.
func (l *Log) Newest(_ context.Context, limit int, handle func([]domain.Entry) error) (uint64, error) {
	l.mu.Lock()
	end, trouble := uint64(len(l.Events)), l.trouble
	begun := len(l.Events) - len(l.Events)/2
	last := map[string]uint64{}
	for _, e := range l.Events[:begun] {
		last[e.Record.Event.Session.ID] = e.Record.Position
	}
	var newest []domain.Entry
	for i, e := range l.Events {
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

// Errors of the log in tests.
var (
	ErrDown    = errors.New("the log is down")
	ErrNoEvent = errors.New("this is no event")
)

// ID returns the n-th of a series of valid session ids.
func ID(n int) string { return fmt.Sprintf("01890000-0000-7000-8000-%012x", n) }

// Session returns a session that an event might have left.
func Session(n int, createdAt int64, change ...func(*domain.Session)) domain.Session {
	s := domain.Session{
		ID: ID(n), CreatedAt: createdAt, CreatedBy: "alice", State: domain.StateCreated,
		Version: 1, UpdatedAt: createdAt,
	}
	for _, c := range change {
		c(&s)
	}
	return s
}

// By sets the creator.
func By(account string) func(*domain.Session) {
	return func(s *domain.Session) { s.CreatedBy = account }
}

// With sets the participants.
func With(participants ...string) func(*domain.Session) {
	return func(s *domain.Session) { s.Participants = participants }
}

// In sets the state.
func In(state domain.State) func(*domain.Session) {
	return func(s *domain.Session) { s.State = state }
}

// Room sets the room.
func Room(name string) func(*domain.Session) {
	return func(s *domain.Session) { s.Room = name }
}

// Version sets the version.
func Version(n uint64) func(*domain.Session) {
	return func(s *domain.Session) { s.Version = n }
}

// JSON returns a session as clients see it.
func JSON(s domain.Session) string { return string(s.AppendJSON(nil)) }

// MustRun fails the test on an error.
func MustRun(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Histories draws events of a few sessions, in some order.
func Histories(rt *rapid.T) []domain.Session {
	account := rapid.SampledFrom([]string{"alice", "bob", "carol", "dave of the\nsecond line", strings.Repeat("long", 32), "~tilde", "ünïcode"})
	var events []domain.Session
	versions := map[int]uint64{}
	for range rapid.IntRange(1, 40).Draw(rt, "events") {
		n := rapid.IntRange(1, 5).Draw(rt, "session")
		versions[n]++
		s := Session(n, rapid.Int64Range(0, 3).Draw(rt, "createdAt"), Version(versions[n]),
			By(account.Draw(rt, "createdBy")),
			With(rapid.SliceOfNDistinct(account, 0, 3, rapid.ID).Draw(rt, "participants")...),
			Room(rapid.SampledFrom([]string{"", "r1", "r 2"}).Draw(rt, "room")),
			In(rapid.SampledFrom([]domain.State{domain.StateCreated, domain.StateStarted, domain.StateFinished}).Draw(rt, "state")))
		for _, transition := range domain.Transitions() {
			if rapid.Bool().Draw(rt, transition.String()) {
				s.Stamps[transition] = &domain.Stamp{At: 5, By: account.Draw(rt, "by")}
			}
		}
		events = append(events, s)
	}
	return events
}
