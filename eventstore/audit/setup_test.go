package audit_test

import (
	"context"
	"testing"
	"time"

	"chatsessions/domain"
	"chatsessions/eventstore"
	"chatsessions/eventstore/natstest"

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

// startLog opens the log of a server of its own.
func startLog(t testing.TB) (*nats.Conn, *eventstore.Log) {
	t.Helper()
	nc, err := eventstore.Connect(testContext(t), eventstore.ConnectOptions{URL: natstest.Start(t, natstest.Config{}).URL()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	l, err := eventstore.Open(testContext(t), nc, eventstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return nc, l
}

func newID() string { return uuid.Must(uuid.NewV7()).String() }

// create opens a session at a time, and returns its first event.
func create(t testing.TB, l *eventstore.Log, req domain.Request, at time.Time) *domain.Record {
	t.Helper()
	r, err := l.Transact(testContext(t), req, func(s domain.Session) ([]domain.Event, error) {
		return domain.Decide(s, domain.Create{ID: req.SessionID, By: domain.Caller{Account: "pat"}, Now: at.UnixMilli()})
	})
	if err != nil {
		t.Fatal(err)
	}
	return r.Record
}

// finish starts, accepts, and finishes a session in one write.
func finish(t testing.TB, l *eventstore.Log, id string) {
	t.Helper()
	_, err := l.Transact(testContext(t), domain.Request{SessionID: id, Actor: "Zoë of the desk"}, func(s domain.Session) ([]domain.Event, error) {
		c := domain.Change{By: domain.Caller{Account: "doc", Role: domain.RoleService}, Now: time.Now().UnixMilli()}
		for _, tr := range []domain.Transition{domain.Start, domain.Accept, domain.Finish} {
			c.Directives[tr].Asked = true
		}
		return domain.Decide(s, c)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func mustEnd(t testing.TB, l *eventstore.Log) uint64 {
	t.Helper()
	end, err := l.End(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	return end
}
