package main

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

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
		upgrade(t, servers,
			&service{t: t, args: servers.serve()},
			&service{t: t, args: servers.serve(), binary: next}, "")
	})
	t.Run("one partition and four", func(t *testing.T) {
		t.Parallel()
		servers := startServers(t)
		upgrade(t, servers,
			&service{t: t, args: servers.serve("--redis-partitions", "1")},
			&service{t: t, args: servers.serve("--redis-partitions", "4")}, "cs2")
	})
}

// A node that stood still for so long that the others have forgotten it, and does not
// know that, waits with its answers until they know of it again.
func TestANodeThatStoodStillBesideAnotherLayoutIsNewAgain(t *testing.T) {
	t.Parallel()
	servers := startServers(t)
	js := servers.jetStream(t)
	frozen := &service{t: t, args: servers.serve()}
	other := &service{t: t, args: servers.serve("--redis-partitions", "4")}
	launch(t, frozen)
	launch(t, other)
	path := fill(t, other, 6).paths()[0]
	frozen.signal(syscall.SIGSTOP)
	servers.forget(t, "cs2")
	eventually(t, func() error {
		if other.asksLog(js, path) {
			return errors.New("a node that is alone asks the log before each answer")
		}
		return nil
	})
	load := startMixedLoad(t, withLists, frozen, other)
	<-time.After(100 * time.Millisecond) // so that writes wait for the one that is frozen
	frozen.signal(syscall.SIGCONT)
	load.more(100)
	load.end()
	t.Logf("behind a stand: %s", load)
	load.check(t)
	checkReadModel(t, frozen, frozen.log())
}

// forget does what 10 s would: nobody sees any more that nodes with the layout were there.
func (s servers) forget(t *testing.T, layout string) {
	t.Helper()
	if err := openRedis(t, s.redis.URL()).ZRem(t.Context(), "cs:layouts", layout).Err(); err != nil {
		t.Fatal(err)
	}
}

func (s *service) signal(signal syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(signal); err != nil {
		s.t.Fatal(err)
	}
}

// upgrade runs an old node alone, then with a new one beside it, then the new one alone.
// A layout that is given is forgotten then, without the 10 s that it takes otherwise.
func upgrade(t *testing.T, servers servers, old, next *service, layout string) {
	js := servers.jetStream(t)
	launch(t, old)
	before := fill(t, old, 6)
	path := before.paths()[0]
	if old.asksLog(js, path) {
		t.Error("a node that is alone asks the log before each answer")
	}

	// The new one comes while the old one is at work.
	alone := startMixedLoad(t, withLists, old)
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

	checkPagesAcross(t, before, old, next)

	both := startMixedLoad(t, withLists, old, next)
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
	left := startMixedLoad(t, withLists, next)
	left.more(50)
	if status := old.stop(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	if layout != "" {
		servers.forget(t, layout)
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

// checkPagesAcross goes from page to page, each on another node, with a query that is
// too long for the link to the next page.
func checkPagesAcross(t *testing.T, want content, nodes ...*service) {
	t.Helper()
	query := "/chat-sessions?$limit=1"
	for i := range 40 {
		query += fmt.Sprintf("&room[$in][]=room%%20%d", i)
	}
	seen := map[string]bool{}
	for page := 0; query != ""; page++ {
		a := nodes[page%len(nodes)].as("service-crm").expect(200, "GET", query, "")
		for _, session := range a.list(t) {
			seen[fmt.Sprint("/chat-sessions/", session["id"])] = true
		}
		query, _, _ = strings.Cut(strings.TrimPrefix(a.header.Get("Link"), "<"), ">")
	}
	for path, was := range want.sessions {
		if room, _ := was.object(t)["room"].(string); strings.HasPrefix(room, "room ") && !seen[path] {
			t.Errorf("no page shows %s", was.body)
		}
	}
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
	build := exec.Command("go", "build", "-race", "-ldflags", "-X chatsessions/projections/layout.version="+layout, "-o", path, ".")
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
