package eventstore_test

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"

	"chatsessions/domain"
	"chatsessions/eventstore"
	"chatsessions/eventstore/envelope"
	"chatsessions/eventstore/natstest"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// shown is what Session hands over of a session: "17 v3", or "18 unreadable".
func shown(t *testing.T, l *eventstore.Log, id string) (all []string, batches int, err error) {
	t.Helper()
	err = l.Session(testContext(t), id, func(batch []domain.Entry) error {
		batches++
		for _, r := range batch {
			if r.Record.Event.Session.ID != id {
				t.Errorf("%d is of session %s", r.Record.Position, r.Record.Event.Session.ID)
			}
			text := fmt.Sprintf("%d v%d", r.Record.Position, r.Record.Event.Session.Version)
			if r.Err != nil {
				text = fmt.Sprintf("%d unreadable", r.Record.Position)
			}
			all = append(all, text)
		}
		return nil
	})
	return all, batches, err
}

func TestASessionIsReadInItsOrderWithEverythingOnItsSubject(t *testing.T) {
	t.Run("embedded", func(t *testing.T) {
		e := startEmbedded(t, t.TempDir())
		nc := connectEmbedded(t, e)
		testSession(t, openLog(t, nc, e), nc)
	})
	t.Run("server", func(t *testing.T) {
		nc := connect(t, natstest.Start(t, natstest.Config{}).URL())
		testSession(t, openLog(t, nc), nc)
	})
}

func testSession(t *testing.T, l *eventstore.Log, nc *nats.Conn) {
	id, other := newID(), newID()
	expect := func(id, want string, broken string) {
		t.Helper()
		got, _, err := shown(t, l, id)
		if strings.Join(got, ", ") != want {
			t.Errorf("%q, want %q", got, want)
		}
		var unreadable *envelope.UnreadableError
		if broken == "" && err != nil || broken != "" && (!errors.As(err, &unreadable) || !strings.Contains(err.Error(), broken)) {
			t.Errorf("%v, want %q", err, broken)
		}
	}
	write := func(id string, decide func(domain.Session) ([]domain.Event, error)) {
		t.Helper()
		if _, err := l.Transact(testContext(t), request(id, "pat"), decide); err != nil {
			t.Fatal(err)
		}
	}
	publish := func(m *nats.Msg) {
		t.Helper()
		if _, err := nc.RequestMsg(m, patience); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := shown(t, l, id); !errors.Is(err, domain.ErrNotFound) {
		t.Errorf("a session without events: %v", err)
	}
	write(id, imported(id, "pat")) // 1 to 4
	write(other, imported(other, "pat"))
	write(id, setRoom("later"))
	expect(id, "1 v1, 2 v2, 3 v3, 4 v4, 9 v5", "")
	failed := errors.New("no more")
	if err := l.Session(testContext(t), id, func([]domain.Entry) error { return failed }); !errors.Is(err, failed) {
		t.Errorf("%v", err)
	}
	// A message that is no event, as the newest and then in the middle.
	publish(&nats.Msg{Subject: "chat-sessions." + id, Data: []byte("nonsense")})
	expect(id, "1 v1, 2 v2, 3 v3, 4 v4, 9 v5, 10 unreadable", "")
	// The event at a position once more, with another ce-previous.
	again := func(position uint64, previous string) *nats.Msg {
		m := stored(t, nc, position)
		m.Header["ce-previous"] = []string{previous}
		for name := range m.Header {
			if strings.HasPrefix(name, "Nats-") {
				delete(m.Header, name)
			}
		}
		return m
	}
	publish(again(9, "9"))
	expect(id, "1 v1, 2 v2, 3 v3, 4 v4, 9 v5, 10 unreadable, 11 v5", "leads to event 9, and the event before is 10")
	// One that skips a message that could be read.
	third := newID()
	write(third, imported(third, "pat")) // 12 to 15
	publish(again(15, "14"))
	expect(third, "12 v1, 13 v2, 14 v3, 15 v4, 16 v4", "leads to event 14, and the event before is 15")
}

// stored is a message as the stream has it.
func stored(t *testing.T, nc *nats.Conn, position uint64) *nats.Msg {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(testContext(t), eventstore.StreamName)
	if err != nil {
		t.Fatal(err)
	}
	m, err := stream.GetMsg(testContext(t), position)
	if err != nil {
		t.Fatal(err)
	}
	return &nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Data}
}

func TestALongHistoryIsReadInParts(t *testing.T) {
	e := startEmbedded(t, t.TempDir())
	l := openLog(t, connectEmbedded(t, e), e)
	id := newID()
	if _, err := l.Transact(testContext(t), request(id, "pat"), create(id, "pat")); err != nil {
		t.Fatal(err)
	}
	for range 21 {
		if _, err := l.Transact(testContext(t), request(id, "pat"), setRooms(500)); err != nil {
			t.Fatal(err)
		}
	}
	got, batches, err := shown(t, l, id)
	if err != nil || len(got) != 10_501 || batches < 10 {
		t.Fatalf("%d events in %d batches, %v", len(got), batches, err)
	}
	for i, text := range got {
		if want := fmt.Sprintf("%d v%d", i+1, i+1); text != want {
			t.Fatalf("%s, want %s", text, want)
		}
	}
}

// Whether its events lie side by side or far apart decides how a history is read, and not
// what of it.
func TestAHistoryIsReadWholeHoweverFarItsEventsLieApart(t *testing.T) {
	e := startEmbedded(t, t.TempDir())
	l := openLog(t, connectEmbedded(t, e), e)
	write := func(id string, decide func(domain.Session) ([]domain.Event, error)) {
		t.Helper()
		mustTransact(t, l, request(id, "pat"), decide)
	}
	dense, sparse, other := newID(), newID(), newID()
	write(sparse, create(sparse, "pat"))
	write(other, create(other, "pat"))
	for range 10 {
		write(other, setRooms(500))
	}
	write(sparse, setRooms(29))
	write(dense, create(dense, "pat"))
	write(dense, setRooms(29))
	for _, c := range []struct {
		id    string
		walks bool
	}{{dense, false}, {sparse, true}} {
		nc := connectEmbedded(t, e)
		forgetful := openLog(t, nc, e)
		before := nc.Stats().OutMsgs
		got, _, err := shown(t, forgetful, c.id)
		if err != nil || len(got) != 30 {
			t.Errorf("%d events, %v", len(got), err)
		}
		for i, text := range got {
			if want := fmt.Sprintf(" v%d", i+1); !strings.HasSuffix(text, want) {
				t.Errorf("event %d is %s", i+1, text)
			}
		}
		if asked := nc.Stats().OutMsgs - before; (asked >= 30) != c.walks {
			t.Errorf("%d requests to the server; one by one: %v", asked, c.walks)
		}
	}
}

// A message whose headers cannot be read is one that is no event, wherever it lies. No
// client library sends one.
func TestAMessageWithHeadersThatCannotBeReadIsNoEvent(t *testing.T) {
	server := natstest.Start(t, natstest.Config{})
	nc := connect(t, server.URL())
	l := openLog(t, nc)
	id := newID()
	mustTransact(t, l, request(id, "pat"), create(id, "pat"))
	mustTransact(t, l, request(id, "pat"), setRooms(20))

	user, err := url.Parse(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	password, _ := user.User.Password()
	raw, err := net.Dial("tcp", server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	const headers, data = "NATS/1.0\r\nno header\r\n\r\n", "{}"
	fmt.Fprintf(raw, "CONNECT {\"headers\":true,\"user\":%q,\"pass\":%q}\r\nHPUB chat-sessions.%s %d %d\r\n%s%s\r\n",
		user.User.Username(), password, id, len(headers), len(headers+data), headers, data)
	eventually(t, "it is in the log", func() bool {
		end, err := l.End(testContext(t))
		return err == nil && end == 22
	})

	for what, err := range map[string]error{
		"as the newest":    second(l.Load(testContext(t), id)),
		"at its position":  second(l.Event(testContext(t), 22)),
		"beneath a change": second(l.Transact(testContext(t), request(id, "pat"), setRoom("later"))),
	} {
		if !errors.Is(err, domain.ErrUnreadable) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got, _, err := shown(t, l, id); err != nil || len(got) != 22 || got[21] != "22 unreadable" {
		t.Errorf("%q, %v", got, err)
	}
}

func second[T any](_ T, err error) error { return err }
