package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chatsessions/eventstore/natstest"
	"chatsessions/projections/redistest"
)

// patience bounds every wait for a state that has to come.
const patience = 30 * time.Second

// eventually tries until it succeeds.
func eventually(t *testing.T, try func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %s: %v", patience, err)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// instead is the error of a request that was not answered as it had to be.
func (a answer) instead(err error) error {
	return errors.Join(err, fmt.Errorf("answered %d %v %s", a.status, a.header, a.body))
}

// command runs the binary to its end, with only these variables beside the
// ordinary ones.
func command(t *testing.T, env []string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append(append(os.Environ(), "GORACE=atexit_sleep_ms=0"), env...) // the race detector sleeps at the end
	cmd.Dir = t.TempDir()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", cmd, err)
	}
	if ctx.Err() != nil {
		t.Fatalf("%s has not ended\n%s%s", cmd, out.String(), errs.String())
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// onSeveralNodes runs a test on nodes that share one NATS: two complete ones on one
// Redis, a projector with two that only serve the API, and two with a Redis of their
// own inside, of which neither hears how far the other one's is.
func onSeveralNodes(t *testing.T, test func(t *testing.T, nodes []*service)) {
	t.Run("two complete nodes", func(t *testing.T) {
		urls := startServers(t).flags()
		test(t, []*service{startService(t, urls...), startService(t, urls...)})
	})
	t.Run("a projector and two API nodes", func(t *testing.T) {
		urls := startServers(t).flags()
		startService(t, append(urls, "--only", "projector")...)
		api := append(urls, "--only", "api")
		test(t, []*service{startService(t, api...), startService(t, api...)})
	})
	t.Run("two nodes with a Redis each", func(t *testing.T) {
		nats := natstest.Start(t, natstest.Config{})
		test(t, []*service{startService(t, "--dev", "--nats-url", nats.URL()), startService(t, "--dev", "--nats-url", nats.URL())})
	})
}

// servers are the real ones that a service can be run with.
type servers struct {
	nats  *natstest.Server
	redis *redistest.Server
}

func startServers(t *testing.T) servers {
	t.Helper()
	return servers{natstest.Start(t, natstest.Config{}), redistest.Start(t, redistest.Config{})}
}

func (s servers) flags() []string {
	return slices.Clip([]string{"--dev", "--nats-url", s.nats.URL(), "--redis-url", s.redis.URL()})
}

// flag is what a service was given for a flag, "" for nothing.
func (s *service) flag(name string) string {
	if i := slices.Index(s.args, name); i >= 0 {
		return s.args[i+1]
	}
	return ""
}

// connection is the content of the running service's connection file.
func (s *service) connection() connection {
	s.t.Helper()
	content, err := os.ReadFile(filepath.Join(s.flag("--data-dir"), connectionFile))
	if err != nil {
		s.t.Fatal(err)
	}
	var c connection
	if err := json.Unmarshal(content, &c); err != nil {
		s.t.Fatalf("%s: %v", content, err)
	}
	return c
}

// restart starts a service again that was ended, or ends it first.
func (s *service) restart() {
	s.t.Helper()
	if status := s.stop(); status != 0 {
		s.t.Fatalf("exit status %d", status)
	}
	s.start()
}

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
