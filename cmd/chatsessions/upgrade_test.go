package main

import (
	"bytes"
	"errors"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
)

// A rolling upgrade to another layout of the read model: an old and a new node side by
// side over the same NATS and Redis, each with a read model of its own.
func TestNodesWithDifferentLayoutsShowEachOthersWritesAtOnce(t *testing.T) {
	t.Parallel()
	next := buildWithLayout(t, "cs1next")
	t.Run("an old binary and a new one", func(t *testing.T) {
		t.Parallel()
		servers := startServers(t)
		upgrade(t, servers, withLists,
			&service{t: t, args: servers.serve()},
			&service{t: t, args: servers.serve(), binary: next})
	})
	t.Run("one partition and four", func(t *testing.T) {
		t.Parallel()
		servers := startServers(t)
		upgrade(t, servers, withLists,
			&service{t: t, args: servers.serve("--redis-partitions", "1")},
			&service{t: t, args: servers.serve("--redis-partitions", "4")})
	})
}

// upgrade runs an old node alone, then with a new one beside it, then the new one alone.
func upgrade(t *testing.T, servers servers, lists bool, old, next *service) {
	js := servers.jetStream(t)
	launch(t, old)
	before := fill(t, old, 6)
	path := before.paths()[0]
	if old.asksLog(js, path) {
		t.Error("a node that is alone asks the log before each answer")
	}

	// The new one comes while the old one is at work.
	alone := startMixedLoad(t, lists, old)
	alone.more(100)
	launch(t, next)
	alone.end()
	// It is ready, so the other one knows of it.
	for _, s := range []*service{old, next} {
		if !s.asksLog(js, path) {
			t.Errorf("a node that answers beside one with another layout does not ask the log: %v", s.args)
		}
	}
	for path, was := range before.sessions {
		if is := next.as("service-crm").expect(200, "GET", path, ""); !bytes.Equal(is.body, was.body) {
			t.Errorf("%s is %s, and was %s", path, is.body, was.body)
		}
	}

	both := startMixedLoad(t, lists, old, next)
	both.more(600)
	rebuild(t, exitDone, append(servers.stores(), "--redis-partitions", partitionsOf(old))...) // of one of them
	both.more(200)
	both.end()
	t.Logf("while the other one starts: %s", alone)
	t.Logf("side by side: %s", both)
	both.check(t)
	for _, s := range []*service{old, next} {
		checkReadModel(t, s, s.log())
	}

	// The old one is stopped under load, as an upgrade does.
	left := startMixedLoad(t, lists, next)
	left.more(50)
	if status := old.stop(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	eventually(t, func() error {
		if next.asksLog(js, path) {
			return errors.New("a node that is alone again still asks the log before each answer")
		}
		return nil
	})
	left.end()
	t.Logf("then alone: %s", left)
	left.check(t)
	checkReadModel(t, next, next.log())
}

// asksLog says whether the service asks the log before each answer, by the number of
// requests that JetStream counts while a session is read many times.
func (s *service) asksLog(js jetstream.JetStream, path string) bool {
	s.t.Helper()
	counted := func() uint64 {
		s.t.Helper()
		info, err := js.AccountInfo(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		return info.API.Total
	}
	const reads = 100
	before := counted()
	for range reads {
		s.as("service-crm").expect(200, "GET", path, "")
	}
	return counted()-before >= reads
}

func partitionsOf(s *service) string {
	if n := s.flag("--redis-partitions"); n != "" {
		return n
	}
	return "1"
}

// buildWithLayout builds the service as one whose read model has another layout.
func buildWithLayout(t *testing.T, layout string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "chatsessions")
	build := exec.Command("go", "build", "-race", "-ldflags", "-X chatsessions/projections.layoutVersion="+layout, "-o", path, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", build, err, out)
	}
	return path
}

// serve is the command line of a node, with further flags.
func (s servers) serve(flags ...string) []string {
	return slices.Concat([]string{"serve", "--listen", "127.0.0.1:0"}, s.flags(), flags)
}

// launch starts a service that is not started yet, and has it end with the test.
func launch(t *testing.T, s *service) {
	t.Helper()
	s.args = append(s.args, "--data-dir", t.TempDir())
	s.start()
	t.Cleanup(func() {
		if status := s.stop(); status != 0 {
			t.Errorf("exit status %d", status)
		}
		s.checkSound()
		if t.Failed() {
			t.Logf("the service's log:\n%s", s.errors.String())
		}
	})
}

func (s servers) jetStream(t *testing.T) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(connectNATS(t, s.nats.URL()))
	if err != nil {
		t.Fatal(err)
	}
	return js
}
