package audit_test

import (
	"chatsessions/domain"
	"chatsessions/eventstore/audit"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func TestTheLogIsNeverPublishedToItself(t *testing.T) {
	nc, l := startLog(t)
	id := newID()
	create(t, l, domain.Request{SessionID: id, Actor: "pat"}, time.Now())
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(testContext(t), jetstream.StreamConfig{
		Name: "LOOP", Subjects: []string{"loop.>"}, RePublish: &jetstream.RePublish{Source: "loop.>", Destination: "chat-sessions.>"},
	}); err != nil {
		t.Fatal(err)
	}
	for subject, reason := range map[string]string{
		"chat-sessions." + id: "belong to the log", "chat-sessions.>": "wildcard", "chat-sessions.*": "wildcard", "chat-sessions": "belong to the log",
		"chat-sessions.a.b": "belong to the log", "*." + id: "wildcard", ">": "wildcard", "audit.>": "wildcard", "audit.*.x": "wildcard",
		"": "empty", "audit.": "empty", ".audit": "empty", "audit..x": "empty", "audit x": "space", "audit\r\nPUB": "control",
		"$JS.API.STREAM.DELETE.CHAT_SESSIONS": "the server", "$SYS.REQ.SERVER.PING": "the server", "_INBOX.x": "the server", "$KV.a": "the server",
		"loop." + id: "stream LOOP",
	} {
		_, err := audit.Republish(testContext(t), l, subject)
		var unfit *audit.SubjectError
		if !errors.As(err, &unfit) || !strings.Contains(unfit.Reason, reason) {
			t.Errorf("%q: %v, want %q", subject, err, reason)
		}
	}
	if end := mustEnd(t, l); end != 1 {
		t.Errorf("the log goes to %d", end)
	}
}

func TestEventsArePublishedAsTheyAre(t *testing.T) {
	for _, kept := range []bool{false, true} {
		t.Run(fmt.Sprintf("kept by another stream: %v", kept), func(t *testing.T) {
			nc, l := startLog(t)
			id := newID()
			create(t, l, domain.Request{
				SessionID: id, Actor: "Zoë of the desk", CorrelationID: "c", Key: strings.Repeat("k", 64), Digest: strings.Repeat("d", 64),
				TraceParent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
			}, time.Now())
			finish(t, l, id)
			js, err := jetstream.New(nc)
			if err != nil {
				t.Fatal(err)
			}
			if kept {
				if _, err := js.CreateStream(testContext(t), jetstream.StreamConfig{Name: "COPY", Subjects: []string{"audit.*"}}); err != nil {
					t.Fatal(err)
				}
			}
			subscription, err := nc.SubscribeSync("audit.copy")
			if err != nil {
				t.Fatal(err)
			}
			r, err := audit.Republish(testContext(t), l, "audit.copy")
			if err != nil {
				t.Fatal(err)
			}
			end := mustEnd(t, l)
			for position := range end {
				if err := r.Publish(testContext(t), position+1); err != nil {
					t.Fatal(err)
				}
			}
			if n, err := r.Confirm(testContext(t)); n != int(end) || err != nil {
				t.Errorf("%d are confirmed, %v", n, err)
			}
			if n, err := r.Confirm(testContext(t)); n != 0 || err != nil {
				t.Errorf("%d more are confirmed, %v", n, err)
			}
			for position := uint64(1); position <= end; position++ {
				got, err := subscription.NextMsg(patience)
				if err != nil {
					t.Fatal(err)
				}
				original, err := l.Message(testContext(t), position)
				if err != nil {
					t.Fatal(err)
				}
				want := nats.Header{"Chat-Sessions-Position": {strconv.FormatUint(position, 10)}, "Chat-Sessions-Subject": {"chat-sessions." + id}}
				for name, values := range original.Header {
					if !strings.HasPrefix(name, "Nats-") {
						want[name] = values
					}
				}
				want["Nats-Expected-Stream"] = []string{"no.stream"} // the only one of the server's
				if kept {                                            // into that stream, or none
					want["Nats-Expected-Stream"] = []string{"COPY"}
				}
				if !maps.EqualFunc(got.Header, want, slices.Equal) || string(got.Data) != string(original.Data) {
					t.Errorf("%v %s\nwant %v %s", got.Header, got.Data, want, original.Data)
				}
			}
			if after := mustEnd(t, l); after != end {
				t.Errorf("the log went from %d to %d", end, after)
			}
			if kept {
				copied, err := js.Stream(testContext(t), "COPY")
				if err != nil || r.Stream() != "COPY" || copied.CachedInfo().State.Msgs != end {
					t.Errorf("stream %q has %+v, %v", r.Stream(), copied.CachedInfo().State, err)
				}
			}
		})
	}
}

// TestWhatTheServerRefusesIsNotConfirmed: a stream that is full.
func TestWhatTheServerRefusesIsNotConfirmed(t *testing.T) {
	nc, l := startLog(t)
	id := newID()
	create(t, l, domain.Request{SessionID: id, Actor: "pat"}, time.Now())
	finish(t, l, id)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(testContext(t), jetstream.StreamConfig{Name: "SMALL", Subjects: []string{"small"}, MaxMsgs: 3, Discard: jetstream.DiscardNew}); err != nil {
		t.Fatal(err)
	}
	r, err := audit.Republish(testContext(t), l, "small")
	if err != nil {
		t.Fatal(err)
	}
	for position := range uint64(4) {
		if err := r.Publish(testContext(t), position+1); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := r.Confirm(testContext(t)); n != 3 || err == nil || !strings.Contains(err.Error(), "SMALL") {
		t.Errorf("%d are confirmed, %v", n, err)
	}
}

// TestNoStreamTakesWhatIsForNone, be it made when the publishing has begun.
func TestNoStreamTakesWhatIsForNone(t *testing.T) {
	nc, l := startLog(t)
	id := newID()
	create(t, l, domain.Request{SessionID: id, Actor: "pat"}, time.Now())
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	r, err := audit.Republish(testContext(t), l, "audit.copy")
	if err != nil {
		t.Fatal(err)
	}
	late, err := js.CreateStream(testContext(t), jetstream.StreamConfig{Name: "LATE", Subjects: []string{"audit.>"}})
	if err != nil {
		t.Fatal(err)
	}
	subscription, err := nc.SubscribeSync("audit.copy")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Publish(testContext(t), 1); err != nil {
		t.Fatal(err)
	}
	if n, err := r.Confirm(testContext(t)); n != 1 || err != nil {
		t.Errorf("%d are confirmed, %v", n, err)
	}
	if _, err := subscription.NextMsg(patience); err != nil {
		t.Errorf("who listens does not get it: %v", err)
	}
	// What comes after it is there, so it was refused.
	if _, err := js.Publish(testContext(t), "audit.other", nil); err != nil {
		t.Fatal(err)
	}
	if info, err := late.Info(testContext(t)); err != nil || info.State.Msgs != 1 {
		t.Errorf("the stream has %d messages, want the other one, %v", info.State.Msgs, err)
	}
}
