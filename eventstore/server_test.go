package eventstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"chatsessions/domain"
	"chatsessions/eventstore/envelope"
	"chatsessions/eventstore/natstest"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
)

// These tests hold what the package takes for granted of the server.

func onEachServer(t *testing.T, test func(t *testing.T, l *Log, conflicts ...jetstream.ErrorCode)) {
	open := func(t *testing.T, nc *nats.Conn, err error) *Log {
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		l, err := Open(t.Context(), nc, Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(l.Close)
		return l
	}
	t.Run("server", func(t *testing.T) {
		s := natstest.Start(t, natstest.Config{})
		nc, err := Connect(t.Context(), ConnectOptions{URL: s.URL()})
		test(t, open(t, nc, err), codeWrongLast)
	})
	t.Run("cluster", func(t *testing.T) {
		c := natstest.StartCluster(t, make([]natstest.Config, 3)...)
		nc, err := Connect(t.Context(), ConnectOptions{URL: c.URL()})
		test(t, open(t, nc, err), codeWrongLast, codeWrongLastConstant)
	})
}

// rawBatch are n messages on a subject that are no events.
func rawBatch(subject string, expected uint64, n int) []*nats.Msg {
	var msgs []*nats.Msg
	for range n {
		msgs = append(msgs, &nats.Msg{Subject: subject, Header: nats.Header{}, Data: []byte("x")})
	}
	msgs[0].Header.Set(jetstream.ExpectedLastSubjSeqHeader, fmt.Sprint(expected))
	return msgs
}

// TestServerStoresBatchHeaders: by them the feed keeps atomic writes together.
func TestServerStoresBatchHeaders(t *testing.T) {
	onEachServer(t, func(t *testing.T, l *Log, _ ...jetstream.ErrorCode) {
		last, outcome, err := l.publish(t.Context(), rawBatch("chat-sessions.raw", 0, 3))
		if outcome != acknowledged || last != 3 {
			t.Fatalf("%d, %v, %v", last, outcome, err)
		}
		for sequence := range uint64(3) {
			m, err := l.get(t.Context(), leader, apiRequest{Sequence: sequence + 1})
			if err != nil {
				t.Fatal(err)
			}
			commit := m.Header.Get(jetstreamext.BatchCommitHeader)
			if m.Header.Get(jetstreamext.BatchIDHeader) == "" || m.Header.Get(jetstreamext.BatchSeqHeader) != fmt.Sprint(sequence+1) || (commit == "1") != (sequence == 2) {
				t.Errorf("message %d is stored with %v", sequence+1, m.Header)
			}
			if m.WriteContinues() != (sequence < 2) {
				t.Errorf("message %d: continues: %v", sequence+1, m.WriteContinues())
			}
		}
	})
}

// TestServerConflicts: of writes with one expectation one is taken; the others
// get one of the codes that we know.
func TestServerConflicts(t *testing.T) {
	onEachServer(t, func(t *testing.T, l *Log, known ...jetstream.ErrorCode) {
		seen := map[jetstream.ErrorCode]int{}
		for round := range 20 {
			subject := fmt.Sprintf("chat-sessions.raw-%d", round)
			var mu sync.Mutex
			var writers sync.WaitGroup
			taken := 0
			for i := range 20 {
				writers.Go(func() {
					_, outcome, err := l.publish(t.Context(), rawBatch(subject, 0, 1+i%3))
					mu.Lock()
					defer mu.Unlock()
					if outcome == acknowledged {
						taken++
						return
					}
					var api *jetstream.APIError
					if outcome != conflict || !errors.As(err, &api) {
						t.Errorf("outcome %v: %v", outcome, err)
						return
					}
					seen[api.ErrorCode]++
				})
			}
			writers.Wait()
			if taken != 1 {
				t.Errorf("round %d: %d writes were taken", round, taken)
			}
		}
		for code := range seen {
			if !hasCode(&jetstream.APIError{ErrorCode: code}, known...) {
				t.Errorf("conflict with code %d", code)
			}
		}
		t.Logf("codes of conflicts: %v", seen)
	})
}

// TestServerIsFullOfBatches: 50 unfinished ones block the stream for others; that
// passes, and nothing is written meanwhile.
func TestServerIsFullOfBatches(t *testing.T) {
	onEachServer(t, func(t *testing.T, l *Log, _ ...jetstream.ErrorCode) {
		var ids []string
		for range 50 {
			m := rawBatch("chat-sessions.raw", 0, 1)[0]
			ids = append(ids, uuid.NewString())
			m.Header.Set(jetstreamext.BatchIDHeader, ids[len(ids)-1])
			m.Header.Set(jetstreamext.BatchSeqHeader, "1")
			if _, err := l.nc.RequestMsgWithContext(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		}
		// Its own answer to one too many, and what a batch without it comes to.
		first := rawBatch("chat-sessions.raw", 0, 1)[0]
		first.Header.Set(jetstreamext.BatchIDHeader, "one too many")
		first.Header.Set(jetstreamext.BatchSeqHeader, "1")
		answer, err := l.nc.RequestMsgWithContext(t.Context(), first)
		if err != nil {
			t.Fatal(err)
		}
		if _, outcome, err := parseAck(answer.Data, 1); outcome != busy || !hasCode(err, codeTooManyBatches) {
			t.Errorf("first message: %v, %v", outcome, err)
		}
		if _, outcome, err := l.publish(t.Context(), rawBatch("chat-sessions.raw", 0, 2)); outcome != busy || !hasCode(err, codeBatchIncomplete) {
			t.Errorf("batch: %v, %v", outcome, err)
		}

		id := uuid.NewString()
		decide := func(s domain.Session) ([]domain.Event, error) {
			at := int64(1)
			c := domain.Create{ID: id, By: domain.Caller{Account: "pat"}, Now: 2, Values: domain.Values{CreatedAt: &at}}
			c.Values.Stamps[domain.Start].At = &at
			return domain.Decide(s, c)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err = l.Transact(ctx, domain.Request{SessionID: id, Actor: "pat"}, decide)
		// The last attempt may be cut by the deadline.
		if !errors.Is(err, domain.ErrUnavailable) && !errors.Is(err, domain.ErrOutcomeUnknown) {
			t.Errorf("%v", err)
		}
		// A gap makes the server drop a batch.
		for _, batch := range ids {
			m := rawBatch("chat-sessions.raw", 0, 1)[0]
			m.Header.Set(jetstreamext.BatchIDHeader, batch)
			m.Header.Set(jetstreamext.BatchSeqHeader, "3")
			if _, err := l.nc.RequestMsgWithContext(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := l.Transact(t.Context(), domain.Request{SessionID: id, Actor: "pat"}, decide); err != nil || got.Record.Position != 2 {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

// TestUnreadableMessages: what is on a session's subject and no event is named by
// whatever would have to read it, and stops nothing else.
func TestUnreadableMessages(t *testing.T) {
	onEachServer(t, func(t *testing.T, l *Log, _ ...jetstream.ErrorCode) {
		id := uuid.NewString()
		req := domain.Request{SessionID: id, Actor: "pat"}
		created, err := l.Transact(t.Context(), req, func(s domain.Session) ([]domain.Event, error) {
			return domain.Decide(s, domain.Create{ID: id, By: domain.Caller{Account: "pat"}, Now: 1})
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, outcome, err := l.publish(t.Context(), rawBatch(envelope.Subject(id), created.Record.Position, 1)); outcome != acknowledged {
			t.Fatal(err)
		}
		check := func(what string, err error) {
			t.Helper()
			var unreadable *envelope.UnreadableError
			if !errors.As(err, &unreadable) || unreadable.Position != created.Record.Position+1 || unreadable.SessionID != id || errors.Is(err, domain.ErrUnavailable) {
				t.Errorf("%s: %v", what, err)
			}
		}
		_, err = l.Load(t.Context(), id)
		check("load", err)
		_, err = l.Transact(t.Context(), req, func(domain.Session) ([]domain.Event, error) { return nil, nil })
		check("transact", err)
		for _, err := range l.History(t.Context(), id) {
			check("history", err)
		}
		done := errors.New("that was all")
		for name, read := range map[string]func(handle func([]domain.Entry) error) error{
			"follow": func(handle func([]domain.Entry) error) error { return l.Follow(t.Context(), 0, 10, handle) },
			"newest": func(handle func([]domain.Entry) error) error {
				_, err := l.Newest(t.Context(), 10, handle)
				return err
			},
		} {
			var last domain.Entry
			err := read(func(batch []domain.Entry) error {
				last = batch[len(batch)-1]
				if last.Record.Position > created.Record.Position {
					return done
				}
				return nil
			})
			if !errors.Is(err, done) || last.Record.Event.Session.ID != id {
				t.Errorf("%s: %v, %+v", name, err, last)
			}
			check(name, last.Err)
		}
	})
}

// TestAcknowledgements classifies what a publish can be answered with.
func TestAcknowledgements(t *testing.T) {
	fail := func(code int) string {
		b, _ := json.Marshal(map[string]any{"stream": StreamName, "seq": 0, "error": map[string]any{"code": 400, "err_code": code, "description": "d"}})
		return string(b)
	}
	for _, test := range []struct {
		answer   string
		messages int
		want     outcome
	}{
		{`{"stream":"CHAT_SESSIONS","seq":7}`, 1, acknowledged},
		{`{"stream":"CHAT_SESSIONS","seq":7,"batch":"b","count":2}`, 2, acknowledged},
		{`{"stream":"CHAT_SESSIONS","seq":7,"batch":"b","count":1}`, 2, unknown},
		{`{"stream":"OTHER","seq":7}`, 1, unknown},
		{`{"stream":"CHAT_SESSIONS"}`, 1, unknown},
		{``, 1, unknown},
		{`x`, 1, unknown},
		{fail(10071), 1, conflict},
		{fail(10164), 1, conflict},
		{fail(10077), 1, broken},
		{fail(10210), 2, busy},
		{fail(10176), 2, busy},
		{fail(10008), 1, busy},
		{fail(10009), 1, busy},
		{fail(10076), 1, busy},
		{fail(10023), 1, refused},
		{fail(10054), 1, refused},
		{fail(10060), 1, refused},
		{fail(10109), 1, refused},
	} {
		if _, got, err := parseAck([]byte(test.answer), test.messages); got != test.want || (err == nil) != (got == acknowledged) {
			t.Errorf("%s: %v, %v; want %v", test.answer, got, err, test.want)
		}
	}
	for err, want := range map[error]outcome{
		nats.ErrReconnectBufExceeded: busy,
		nats.ErrNoResponders:         busy,
		nats.ErrMaxPayload:           refused,
		context.DeadlineExceeded:     unknown,
		nats.ErrConnectionClosed:     unknown,
		nats.ErrDisconnected:         unknown,
		errors.New("broken pipe"):    unknown,
	} {
		if got := classifyRequest(err); got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
}
