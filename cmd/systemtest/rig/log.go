package rig

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// An Event is a message of the log, as a subscriber gets it.
type Event struct {
	Subject  string
	Sequence uint64
	Header   nats.Header
	Data     []byte
	Changes  map[string]any
	Session  map[string]any
}

// Log returns all events in the service's log.
func (s *Service) Log() []Event {
	s.T.Helper()
	events, err := ReadLog(s.T.Context(), ConnectNATS(s.T, s.NATSURL()))
	if err != nil {
		s.T.Fatal(err)
	}
	return events
}

// SettledLog reads the log when it has not grown for a second: a server that was frozen
// first processes what it had received, and there is no other sign of when that is done.
func (s *Service) SettledLog() []Event {
	s.T.Helper()
	for events := s.Log(); ; {
		<-time.After(time.Second)
		again := s.Log()
		if len(again) == len(events) {
			return again
		}
		events = again
	}
}

// ReadLog reads the stream by name, as any subscriber can.
func ReadLog(ctx context.Context, nc *nats.Conn) ([]Event, error) {
	ctx, cancel := context.WithTimeout(ctx, Patience)
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
	var events []Event
	for last := stream.CachedInfo().State.LastSeq; uint64(len(events)) < last; {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return nil, fmt.Errorf("after %d of %d events: %w", len(events), last, err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return nil, err
		}
		e := Event{Subject: m.Subject(), Sequence: meta.Sequence.Stream, Header: m.Headers(), Data: m.Data()}
		var data struct{ Changes, Session map[string]any }
		if err := json.Unmarshal(e.Data, &data); err != nil {
			return nil, fmt.Errorf("event %d: %w", e.Sequence, err)
		}
		e.Changes, e.Session = data.Changes, data.Session
		events = append(events, e)
	}
	return events, nil
}

// Publish appends a message without the service, and returns its position.
func (s *Service) Publish(m *nats.Msg) uint64 {
	s.T.Helper()
	ack, err := s.JetStream().PublishMsg(s.T.Context(), m)
	if err != nil {
		s.T.Fatal(err)
	}
	return ack.Sequence
}

// JetStream connects to the log's server.
func (s *Service) JetStream() jetstream.JetStream {
	s.T.Helper()
	js, err := jetstream.New(ConnectNATS(s.T, s.NATSURL()))
	if err != nil {
		s.T.Fatal(err)
	}
	return js
}

// NewestPosition returns the position of the newest event.
func (s *Service) NewestPosition() uint64 {
	s.T.Helper()
	stream, err := s.JetStream().Stream(s.T.Context(), "CHAT_SESSIONS")
	if err != nil {
		s.T.Fatal(err)
	}
	return stream.CachedInfo().State.LastSeq
}

// NATSURL returns the URL of the log's server, external or embedded.
func (s *Service) NATSURL() string {
	s.T.Helper()
	if url := s.Flag("--nats-url"); url != "" {
		return url
	}
	return s.Connection().NATSURL
}

// ConnectNATS connects until the end of the test.
func ConnectNATS(t *testing.T, url string) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}
