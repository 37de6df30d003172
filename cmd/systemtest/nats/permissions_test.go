package nats

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chatsessions/cmd/systemtest/rig"
	"chatsessions/eventstore/natstest"
)

const stream = "CHAT_SESSIONS"

// A log with two subscribers, and a service that writes to it.
type subscribedLog struct {
	t        *testing.T
	service  *rig.Service
	server   *natstest.Server
	operator *nats.Conn // with the rights of the service
	billing  *nats.Conn // the one that tries things
	events   int        // that are in the log
}

func TestASubscriberConsumesAndDoesNothingElse(t *testing.T) {
	l := startSubscribedLog(t)
	t.Run("consumes", l.consumes)
	t.Run("requests", l.requests)
	t.Run("publishes", l.publishes)
	t.Run("has events delivered elsewhere", l.deliversElsewhere)
	t.Run("has answers delivered elsewhere", l.answersElsewhere)
	t.Run("has itself traced into the log", l.tracesIntoTheLog)
	t.Run("listens", l.listens)
	t.Run("logs in as somebody else", l.logsIn)
	t.Run("and still consumes", l.consumes)
}

func startSubscribedLog(t *testing.T) *subscribedLog {
	t.Helper()
	server := startNATSFor(t, "billing", "crm")
	l := &subscribedLog{t: t, server: server, service: rig.Start(t, "--dev", "--nats-url", server.URL())}
	l.operator = connect(t, server.URL())
	l.write()
	addConsumer(t, l.operator, "billing")
	addConsumer(t, l.operator, "crm")
	l.billing = connect(t, subscriberURL(server, "billing"))
	return l
}

// write has the service write four events.
func (l *subscribedLog) write() {
	l.t.Helper()
	alice := l.service.As("account-alice")
	path := alice.Create(`{"room": "4"}`)
	alice.Expect(200, "PATCH", path, `{"start": true, "accept": true}`)
	alice.Expect(200, "PATCH", path, `{"finish": "done"}`)
	alice.Expect(200, "GET", path, "")
	l.events += 4
}

// consumes reads everything that is there, and what is written meanwhile.
func (l *subscribedLog) consumes(t *testing.T) {
	consumer := consumerOf(t, l.billing, "billing")
	at := consumer.CachedInfo().Delivered.Stream
	l.write()
	for at++; at <= uint64(l.events); at++ {
		msg, err := consumer.Next(jetstream.FetchMaxWait(rig.Patience))
		if err != nil {
			t.Fatal(err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			t.Fatal(err)
		}
		if meta.Sequence.Stream != at || msg.Subject() != "chat-sessions."+msg.Headers().Get("ce-subject") {
			t.Fatalf("event %d on %s, want %d on its session's subject", meta.Sequence.Stream, msg.Subject(), at)
		}
		if err := msg.DoubleAck(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	info, err := consumer.Info(t.Context())
	if err != nil || info.NumAckPending != 0 || info.NumPending != 0 {
		t.Errorf("%+v %v, want everything acknowledged", info, err)
	}
}

// requests tries each of them, while another subscriber has an event in hand.
func (l *subscribedLog) requests(t *testing.T) {
	crm := connect(t, subscriberURL(l.server, "crm"))
	if _, err := consumerOf(t, crm, "crm").Next(jetstream.FetchMaxWait(rig.Patience)); err != nil {
		t.Fatal(err)
	}
	for _, request := range forbiddenRequests {
		t.Run(request.subject, func(t *testing.T) {
			l.unchangedBy(t, func() { l.isRefused(t, request.subject, request.body) })
		})
	}
}

// isRefused sends a request that must not be carried out: there is nobody to take it,
// or the server says that the subscriber's account has no JetStream (10039) and no such
// stream (10059), or that it is no cluster (10010).
func (l *subscribedLog) isRefused(t *testing.T, subject, body string) {
	refusal := regexp.MustCompile(`"err_code":(10039|10059|10010),`)
	for _, subject := range []string{subject, strings.Replace(subject, "$JS.API.", "$JS.CHAT_SESSIONS.API.", 1)} {
		answer, err := l.billing.Request(subject, []byte(body), 200*time.Millisecond)
		switch {
		case errors.Is(err, nats.ErrNoResponders), errors.Is(err, nats.ErrTimeout):
		case err != nil:
			t.Errorf("%s: %v", subject, err)
		case !refusal.Match(answer.Data):
			t.Errorf("%s was answered %v %s", subject, answer.Header, answer.Data)
		}
	}
}

// unchangedBy checks that the log and all consumers are after an attempt as they were
// before. What its own consumer has delivered is the subscriber's affair.
func (l *subscribedLog) unchangedBy(t *testing.T, attempt func()) {
	t.Helper()
	before := l.state(t)
	attempt()
	if err := l.billing.Flush(); err != nil {
		t.Fatal(err)
	}
	<-time.After(20 * time.Millisecond) // of what comes later, the end of the test tells
	if after := l.state(t); after != before {
		t.Errorf("now it is\n%s\nand was\n%s", after, before)
	}
}

// state is everything that the operator sees of the log and its consumers.
func (l *subscribedLog) state(t *testing.T) string {
	t.Helper()
	js, err := jetstream.New(l.operator)
	if err != nil {
		t.Fatal(err)
	}
	var state []any
	streams := js.ListStreams(t.Context())
	for info := range streams.Info() {
		info.TimeStamp, info.Cluster = time.Time{}, nil
		state = append(state, info)
	}
	log, err := js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	consumers := log.ListConsumers(t.Context())
	for info := range consumers.Info() {
		info.TimeStamp, info.Cluster, info.NumPending = time.Time{}, nil, 0 // which may lag behind the log
		if info.Name == "billing" {
			info = &jetstream.ConsumerInfo{Name: info.Name, Created: info.Created, Config: info.Config, Paused: info.Paused}
		}
		state = append(state, info)
	}
	text, err := json.Marshal(state)
	if err := errors.Join(err, streams.Err(), consumers.Err()); err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// publishes tries the ways to publish that need no answer.
func (l *subscribedLog) publishes(t *testing.T) {
	batch := nats.NewMsg("chat-sessions.x")
	batch.Header = nats.Header{"Nats-Batch-Id": {"b"}, "Nats-Batch-Sequence": {"1"}, "Nats-Batch-Commit": {"1"}}
	for _, msg := range []*nats.Msg{{Subject: "chat-sessions.x"}, {Subject: "chat-sessions.x", Reply: "chat-sessions.x"}, batch} {
		l.unchangedBy(t, func() {
			if err := l.billing.PublishMsg(msg); err != nil {
				t.Error(err)
			}
		})
	}
}

const (
	ownNext = "$JS.CHAT_SESSIONS.API.CONSUMER.MSG.NEXT.CHAT_SESSIONS.billing"
	ownAck  = "$JS.ACK.CHAT_SESSIONS.billing."
)

// deliversElsewhere has the own consumer deliver to subjects that are not the
// subscriber's: they are taken for those of its own account.
func (l *subscribedLog) deliversElsewhere(t *testing.T) {
	crm := connect(t, subscriberURL(l.server, "crm"))
	for _, target := range []string{"chat-sessions.x", "elsewhere", crm.NewInbox(), "$JS.API.STREAM.PURGE.CHAT_SESSIONS", "$JS.ACK.x", ownNext} {
		t.Run(target, func(t *testing.T) {
			l.write()
			own, log, other := listen(t, l.billing, target), listen(t, l.operator, target), listen(t, crm, target)
			l.unchangedBy(t, func() {
				if err := l.billing.PublishRequest(ownNext, target, []byte("1")); err != nil {
					t.Error(err)
				}
			})
			if n := len(log) + len(other); n != 0 {
				t.Errorf("%d messages left the subscriber's account", n)
			}
			if target == "$JS.ACK.x" { // or one could acknowledge for others
				if len(own) != 0 {
					t.Error("something was delivered to a subject that is reserved")
				}
				return
			}
			l.acknowledge(t, own)
		})
	}
}

// listen collects what comes in on a subject.
func listen(t *testing.T, nc *nats.Conn, subject string) chan *nats.Msg {
	t.Helper()
	messages := make(chan *nats.Msg, 1000)
	if _, err := nc.ChanSubscribe(subject, messages); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return messages
}

// acknowledge acknowledges the event among messages, so that the next one can come.
func (l *subscribedLog) acknowledge(t *testing.T, messages chan *nats.Msg) {
	t.Helper()
	for {
		select {
		case msg := <-messages:
			if !strings.HasPrefix(msg.Reply, ownAck) {
				continue // the request itself
			}
			if _, err := l.billing.Request(msg.Reply, nil, rig.Patience); err != nil {
				t.Errorf("%s: %v", msg.Reply, err)
			}
			return
		case <-time.After(rig.Patience):
			t.Fatal("nothing was delivered: the attempt was none")
		}
	}
}

// answersElsewhere has the answer to an acknowledgement, and the next event that
// it may ask for, delivered elsewhere.
func (l *subscribedLog) answersElsewhere(t *testing.T) {
	for _, body := range []string{"+ACK", "+NXT"} {
		t.Run(body, func(t *testing.T) {
			l.write()
			msg, err := consumerOf(t, l.billing, "billing").Next(jetstream.FetchMaxWait(rig.Patience))
			if err != nil {
				t.Fatal(err)
			}
			own := listen(t, l.billing, "chat-sessions.x")
			l.unchangedBy(t, func() {
				if err := l.billing.PublishRequest(msg.Reply(), "chat-sessions.x", []byte(body)); err != nil {
					t.Error(err)
				}
			})
			if body == "+NXT" {
				l.acknowledge(t, own)
			}
		})
	}
}

// tracesIntoTheLog has the server report the way of a message to a subject of the log.
func (l *subscribedLog) tracesIntoTheLog(t *testing.T) {
	for _, subject := range []string{ownNext, ownAck + "1.1.1.0.0", "chat-sessions.x"} {
		msg := nats.NewMsg(subject)
		msg.Reply = l.billing.NewInbox()
		msg.Header = nats.Header{server.MsgTraceDest: {"chat-sessions.x"}, server.MsgTraceOnly: {"true"}}
		l.unchangedBy(t, func() {
			if err := l.billing.PublishMsg(msg); err != nil {
				t.Error(err)
			}
		})
	}
}

// listens subscribes to everything, and hears nothing of what others do.
func (l *subscribedLog) listens(t *testing.T) {
	heard := make(chan *nats.Msg, 1000)
	for _, subject := range []string{">", "chat-sessions.>", "$JS.>", "$SYS.>", "_INBOX.>", "_R_.>"} {
		if _, err := l.billing.ChanSubscribe(subject, heard); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.billing.Flush(); err != nil {
		t.Fatal(err)
	}
	l.write()
	addConsumer(t, l.operator, "noise") // which the server announces
	l.state(t)
	if err := l.billing.Flush(); err != nil {
		t.Fatal(err)
	}
	select {
	case msg := <-heard:
		t.Errorf("heard %s %v %s", msg.Subject, msg.Header, msg.Data)
	case <-time.After(100 * time.Millisecond):
	}
}

// logsIn tries to connect without the right to.
func (l *subscribedLog) logsIn(t *testing.T) {
	for _, login := range [][2]string{{"", ""}, {"billing", ""}, {"billing", "guess"}, {"chatsessions", subscriberPassword}, {"$SYS", ""}} {
		if nc, err := nats.Connect("nats://"+l.server.Addr(), nats.UserInfo(login[0], login[1])); !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("as %q with %q: %v", login[0], login[1], err)
			if nc != nil {
				nc.Close()
			}
		}
	}
}

// Why a subscriber has an account of its own: as a user of the log's account, with
// permissions for nothing but to ask its consumer for events and to acknowledge, it
// writes to the log. The server checks what is published, and delivers, with its own
// rights, to whatever subject a request names for the answer.
func TestInTheAccountOfTheLogASubscriberCouldWriteToIt(t *testing.T) {
	config := filepath.Join(t.TempDir(), "nats-server.conf")
	users := fmt.Sprintf(`users: [ { user: $NATS_USER, password: $NATS_PASSWORD }, { user: billing, password: %q, permissions: {
		publish: [ "$JS.API.CONSUMER.MSG.NEXT.CHAT_SESSIONS.billing", "$JS.ACK.CHAT_SESSIONS.billing.>" ], subscribe: [ "_INBOX.>" ] } } ]`, subscriberPassword)
	content := strings.NewReplacer("users: [ { user: $NATS_USER, password: $NATS_PASSWORD } ]", users, "include subscribers.conf", "").
		Replace(readDeployed(t, "nats-server.conf"))
	if err := os.WriteFile(config, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	server := natstest.Start(t, natstest.Config{File: config})
	operator := connect(t, server.URL())
	js, err := jetstream.New(operator)
	if err != nil {
		t.Fatal(err)
	}
	log, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: stream, Subjects: []string{"chat-sessions.*"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "chat-sessions.a", []byte("an event")); err != nil {
		t.Fatal(err)
	}
	addConsumer(t, operator, "billing")
	billing := connect(t, subscriberURL(server, "billing"))
	if err := billing.PublishRequest("$JS.API.CONSUMER.MSG.NEXT.CHAT_SESSIONS.billing", "chat-sessions.b", []byte("1")); err != nil {
		t.Fatal(err)
	}
	rig.Eventually(t, func() error {
		forged, err := log.GetMsg(t.Context(), 2)
		if err == nil && (forged.Subject != "chat-sessions.a" || string(forged.Data) != "an event") {
			t.Errorf("%+v, want the event a second time", forged)
		}
		return err
	})
}

func TestASubscriberOfAClusterConsumesFromEachServerAndDoesNothingElse(t *testing.T) {
	config := natstest.Config{File: filepath.Join(configureSubscribers(t, "billing", "crm"), "cluster.conf")}
	cluster := natstest.StartCluster(t, config, config, config)
	l := &subscribedLog{t: t, service: rig.Start(t, "--dev", "--nats-url", cluster.URL()), operator: connect(t, cluster.URL())}
	l.write()
	addConsumer(t, l.operator, "billing")
	addConsumer(t, l.operator, "crm")
	for _, l.server = range cluster.Servers {
		l.billing = connect(t, subscriberURL(l.server, "billing"))
		l.consumes(t)
		l.deliversElsewhere(t)
	}
	l.requests(t)
	l.consumes(t)
}
