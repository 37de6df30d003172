package main

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// An event is a message of the log, as a subscriber gets it.
type event struct {
	subject  string
	sequence uint64
	header   nats.Header
	data     []byte
	changes  map[string]any
	session  map[string]any
}

// log returns everything that is in the service's log.
func (s *service) log() []event {
	s.t.Helper()
	url := s.flag("--nats-url")
	if url == "" {
		url = s.connection().NATSURL
	}
	nc, err := nats.Connect(url)
	if err != nil {
		s.t.Fatal(err)
	}
	defer nc.Close()
	events, err := readLog(s.t.Context(), nc)
	if err != nil {
		s.t.Fatal(err)
	}
	return events
}

// settledLog reads the log when nothing has come to it for a second: a server that
// was frozen goes on with what it had received, and nothing else tells when that is
// done.
func (s *service) settledLog() []event {
	s.t.Helper()
	for events := s.log(); ; {
		<-time.After(time.Second)
		again := s.log()
		if len(again) == len(events) {
			return again
		}
		events = again
	}
}

// readLog reads the stream by name, as any subscriber can.
func readLog(ctx context.Context, nc *nats.Conn) ([]event, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	stream, err := js.Stream(ctx, "CHAT_SESSIONS")
	if err != nil {
		return nil, err
	}
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{FilterSubjects: []string{"chat-sessions.>"}})
	if err != nil {
		return nil, err
	}
	messages, err := consumer.Messages()
	if err != nil {
		return nil, err
	}
	defer messages.Stop()
	var events []event
	for last := stream.CachedInfo().State.LastSeq; uint64(len(events)) < last; {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return nil, fmt.Errorf("after %d of %d events: %w", len(events), last, err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return nil, err
		}
		e := event{subject: m.Subject(), sequence: meta.Sequence.Stream, header: m.Headers(), data: m.Data()}
		var data struct{ Changes, Session map[string]any }
		if err := json.Unmarshal(e.data, &data); err != nil {
			return nil, fmt.Errorf("event %d: %w", e.sequence, err)
		}
		e.changes, e.session = data.Changes, data.Session
		events = append(events, e)
	}
	return events, nil
}

// publish puts a message into the service's log, past the service, and returns its
// position.
func (s *service) publish(m *nats.Msg) uint64 {
	s.t.Helper()
	js, err := jetstream.New(connectNATS(s.t, s.natsURL()))
	if err != nil {
		s.t.Fatal(err)
	}
	ack, err := js.PublishMsg(s.t.Context(), m)
	if err != nil {
		s.t.Fatal(err)
	}
	return ack.Sequence
}

// newestOn is the position of the newest message on a subject.
func (s *service) newestOn(subject string) uint64 {
	s.t.Helper()
	js, err := jetstream.New(connectNATS(s.t, s.natsURL()))
	if err != nil {
		s.t.Fatal(err)
	}
	stream, err := js.Stream(s.t.Context(), "CHAT_SESSIONS")
	if err != nil {
		s.t.Fatal(err)
	}
	m, err := stream.GetLastMsgForSubject(s.t.Context(), subject)
	if err != nil {
		s.t.Fatal(err)
	}
	return m.Sequence
}

func (s *service) natsURL() string {
	s.t.Helper()
	if url := s.flag("--nats-url"); url != "" {
		return url
	}
	return s.connection().NATSURL
}

func connectNATS(t *testing.T, url string) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}
