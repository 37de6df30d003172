package eventstore_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"chatsessions/domain"
	"chatsessions/eventstore"
	"chatsessions/eventstore/embedded"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
)

// patience bounds what has to happen in the end.
const patience = 60 * time.Second

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// eventually polls until the condition holds.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still waiting: %s", what)
		}
	}
}

func testLogger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func connect(t testing.TB, url string) *nats.Conn {
	t.Helper()
	nc, err := eventstore.Connect(testContext(t), eventstore.ConnectOptions{URL: url, Name: t.Name(), Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// openLog opens the log over a connection, with the embedded server to which it leads.
func openLog(t testing.TB, nc *nats.Conn, e ...*embedded.Server) *eventstore.Log {
	t.Helper()
	o := eventstore.Options{Logger: testLogger(t)}
	if len(e) > 0 {
		o.Durability, o.OnlyWriter = e[0], true
	}
	l, err := eventstore.Open(testContext(t), nc, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func newID() string { return uuid.Must(uuid.NewV7()).String() }

// request is a write of a session by an account, without a key.
func request(id, actor string) domain.Request {
	return domain.Request{SessionID: id, Actor: actor, CorrelationID: uuid.NewString()}
}

// keyed is a write with a key and a body.
func keyed(id, actor, key, body string) domain.Request {
	hash := func(s string) string { sum := sha256.Sum256([]byte(s)); return hex.EncodeToString(sum[:]) }
	r := request(id, actor)
	r.Key, r.Digest = hash(actor+id+key), hash(body)
	return r
}

func by(account string) domain.Caller {
	return domain.Caller{Account: account, Role: domain.RoleService}
}

func now() int64 { return time.Now().UnixMilli() }

// create decides to open a session.
func create(id, account string) func(domain.Session) ([]domain.Event, error) {
	return func(s domain.Session) ([]domain.Event, error) {
		return domain.Decide(s, domain.Create{ID: id, By: by(account), Now: now()})
	}
}

// imported decides to open a session with its whole history: four events.
func imported(id, account string) func(domain.Session) ([]domain.Event, error) {
	return func(s domain.Session) ([]domain.Event, error) {
		at := now() - 1000
		c := domain.Create{ID: id, By: by(account), Now: now(), Values: domain.Values{CreatedAt: &at}}
		for _, tr := range []domain.Transition{domain.Start, domain.Accept, domain.Finish} {
			c.Values.Stamps[tr].At = &at
		}
		return domain.Decide(s, c)
	}
}

const importedEvents = 4

// change decides on directives, in the name of the account.
func change(account string, directives ...domain.Transition) func(domain.Session) ([]domain.Event, error) {
	return func(s domain.Session) ([]domain.Event, error) {
		c := domain.Change{By: by(account), Now: now()}
		for _, d := range directives {
			c.Directives[d].Asked = true
		}
		return domain.Decide(s, c)
	}
}

// setRoom decides to change the room: as many events of one session as one likes.
func setRoom(room string) func(domain.Session) ([]domain.Event, error) {
	return func(s domain.Session) ([]domain.Event, error) {
		return domain.Decide(s, domain.Change{By: by("doc"), Now: now(), Values: domain.Values{Room: &room}})
	}
}

// setRooms decides on so many events at once, so that a long history is soon made.
func setRooms(events int) func(domain.Session) ([]domain.Event, error) {
	return func(s domain.Session) ([]domain.Event, error) {
		var all []domain.Event
		for i := range events {
			next, err := setRoom(fmt.Sprint("room ", i))(s)
			if err != nil {
				return nil, err
			}
			all, s = append(all, next...), next[0].Session
		}
		return all, nil
	}
}

// mustTransact writes, or fails the test.
func mustTransact(t testing.TB, l *eventstore.Log, req domain.Request, decide func(domain.Session) ([]domain.Event, error)) domain.Result {
	t.Helper()
	r, err := l.Transact(testContext(t), req, decide)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mustLoad(t testing.TB, l *eventstore.Log, id string) *domain.Record {
	t.Helper()
	r, err := l.Load(testContext(t), id)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mustEnd(t testing.TB, l *eventstore.Log) uint64 {
	t.Helper()
	end, err := l.End(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	return end
}

// history returns a session's events, the oldest first.
func history(t testing.TB, l *eventstore.Log, id string) []domain.Record {
	t.Helper()
	var records []domain.Record
	for r, err := range l.History(testContext(t), id) {
		if err != nil {
			t.Fatal(err)
		}
		records = append([]domain.Record{r}, records...)
	}
	return records
}

// sameRecord reports whether two records are of the same event.
func sameRecord(a, b *domain.Record) bool {
	return a.Position == b.Position && string(a.Event.Session.AppendJSON(nil)) == string(b.Event.Session.AppendJSON(nil))
}

func sameEntry(a, b domain.Entry) bool { return sameRecord(a.Record, b.Record) }

// everything follows the log from a position to its present end.
func everything(t testing.TB, l *eventstore.Log, after uint64) []domain.Entry {
	t.Helper()
	end := mustEnd(t, l)
	var all []domain.Entry
	if after >= end {
		return nil
	}
	done := errors.New("done")
	err := l.Follow(testContext(t), after, 100, func(batch []domain.Entry) error {
		all = append(all, batch...)
		if batch[len(batch)-1].Record.Position >= end {
			return done
		}
		return nil
	})
	if !errors.Is(err, done) {
		t.Fatalf("follow: %v", err)
	}
	return all
}

// checkOrder checks that positions rise without a gap, and that each session's
// versions do.
func checkOrder(t testing.TB, after uint64, all []domain.Entry, versions map[string]uint64) {
	t.Helper()
	for _, r := range all {
		if r.Record.Position != after+1 {
			t.Fatalf("position %d came after %d", r.Record.Position, after)
		}
		after = r.Record.Position
		if v := versions[r.Record.Event.Session.ID]; v != 0 && r.Record.Event.Session.Version != v+1 {
			t.Fatalf("session %s: version %d came after %d", r.Record.Event.Session.ID, r.Record.Event.Session.Version, v)
		}
		versions[r.Record.Event.Session.ID] = r.Record.Event.Session.Version
	}
}
