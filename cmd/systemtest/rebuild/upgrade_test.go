package rebuild

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"chatsessions/cmd/systemtest/rig"
)

// A rolling upgrade to another layout of the read model: an old and a new node side by
// side over the same NATS and Redis, each with a read model of its own.
func TestNodesWithDifferentLayoutsShowEachOthersWritesAtOnce(t *testing.T) {
	t.Parallel()
	next := buildWithLayout(t, "cs1next")
	t.Run("an old binary and a new one", func(t *testing.T) {
		t.Parallel()
		servers := rig.StartServers(t)
		upgrade(t, servers,
			&rig.Service{T: t, Args: serve(servers)},
			&rig.Service{T: t, Args: serve(servers), Binary: next}, "")
	})
	t.Run("one partition and four", func(t *testing.T) {
		t.Parallel()
		servers := rig.StartServers(t)
		upgrade(t, servers,
			&rig.Service{T: t, Args: serve(servers, "--redis-partitions", "1")},
			&rig.Service{T: t, Args: serve(servers, "--redis-partitions", "4")}, "cs2")
	})
}

// A node that stood still for so long that the others have forgotten it, and does not
// know that, waits with its answers until they know of it again.
func TestANodeThatStoodStillBesideAnotherLayoutIsNewAgain(t *testing.T) {
	t.Parallel()
	servers := rig.StartServers(t)
	js := jetStream(servers, t)
	frozen := &rig.Service{T: t, Args: serve(servers)}
	other := &rig.Service{T: t, Args: serve(servers, "--redis-partitions", "4")}
	launch(t, frozen)
	launch(t, other)
	path := rig.Fill(t, other, 6).Paths()[0]
	signal(frozen, syscall.SIGSTOP)
	forget(servers, t, "cs2")
	rig.Eventually(t, func() error {
		if asksLog(other, js, path) {
			return errors.New("a node that is alone asks the log before each answer")
		}
		return nil
	})
	load := startMixedLoad(t, withLists, frozen, other)
	<-time.After(100 * time.Millisecond) // so that writes wait for the one that is frozen
	signal(frozen, syscall.SIGCONT)
	load.more(100)
	load.end()
	t.Logf("behind a stand: %s", load)
	load.Check(t)
	rig.CheckReadModel(t, frozen, frozen.Log())
}

// forget does what 10 s would: nobody sees any more that nodes with the layout were there.
func forget(s rig.Servers, t *testing.T, layout string) {
	t.Helper()
	if err := dialRedis(t, s.Redis.URL()).ZRem(t.Context(), "cs:layouts", layout).Err(); err != nil {
		t.Fatal(err)
	}
}

func signal(s *rig.Service, signal syscall.Signal) {
	s.T.Helper()
	if err := s.Cmd.Process.Signal(signal); err != nil {
		s.T.Fatal(err)
	}
}

// upgrade runs an old node alone, then with a new one beside it, then the new one alone.
// A layout that is given is forgotten then, without the 10 s that it takes otherwise.
func upgrade(t *testing.T, servers rig.Servers, old, next *rig.Service, layout string) {
	js := jetStream(servers, t)
	launch(t, old)
	before := rig.Fill(t, old, 6)
	path := before.Paths()[0]
	if asksLog(old, js, path) {
		t.Error("a node that is alone asks the log before each answer")
	}

	// The new one comes while the old one is at work.
	alone := startMixedLoad(t, withLists, old)
	alone.more(100)
	launch(t, next)
	alone.end()
	// It is ready, so the other one knows of it.
	for _, s := range []*rig.Service{old, next} {
		if !asksLog(s, js, path) {
			t.Errorf("a node that answers beside one with another layout does not ask the log: %v", s.Args)
		}
	}
	for path, was := range before.Sessions {
		if is := next.As("service-crm").Expect(200, "GET", path, ""); !bytes.Equal(is.Body, was.Body) {
			t.Errorf("%s is %s, and was %s", path, is.Body, was.Body)
		}
	}

	checkPagesAcross(t, before, old, next)

	both := startMixedLoad(t, withLists, old, next)
	both.more(600)
	rebuild(t, rig.ExitDone, append(servers.Stores(), "--redis-partitions", partitionsOf(old))...) // of one of them
	both.more(200)
	both.end()
	t.Logf("while the other one starts: %s", alone)
	t.Logf("side by side: %s", both)
	both.Check(t)
	for _, s := range []*rig.Service{old, next} {
		rig.CheckReadModel(t, s, s.Log())
	}

	// The old one is stopped under load, as an upgrade does.
	left := startMixedLoad(t, withLists, next)
	left.more(50)
	if status := old.Stop(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	if layout != "" {
		forget(servers, t, layout)
	}
	rig.Eventually(t, func() error {
		if asksLog(next, js, path) {
			return errors.New("a node that is alone again still asks the log before each answer")
		}
		return nil
	})
	left.end()
	t.Logf("then alone: %s", left)
	left.Check(t)
	rig.CheckReadModel(t, next, next.Log())
}

// checkPagesAcross goes from page to page, each on another node, with a query that is
// too long for the link to the next page.
func checkPagesAcross(t *testing.T, want rig.Content, nodes ...*rig.Service) {
	t.Helper()
	query := "/chat-sessions?$limit=1"
	for i := range 40 {
		query += fmt.Sprintf("&room[$in][]=room%%20%d", i)
	}
	seen := map[string]bool{}
	for page := 0; query != ""; page++ {
		a := nodes[page%len(nodes)].As("service-crm").Expect(200, "GET", query, "")
		for _, session := range a.List(t) {
			seen[fmt.Sprint("/chat-sessions/", session["id"])] = true
		}
		query, _, _ = strings.Cut(strings.TrimPrefix(a.Header.Get("Link"), "<"), ">")
	}
	for path, was := range want.Sessions {
		if room, _ := was.Object(t)["room"].(string); strings.HasPrefix(room, "room ") && !seen[path] {
			t.Errorf("no page shows %s", was.Body)
		}
	}
}

// asksLog says whether the service asks the log before each answer, by the number of
// requests that JetStream counts while a session is read many times.
func asksLog(s *rig.Service, js jetstream.JetStream, path string) bool {
	s.T.Helper()
	counted := func() uint64 {
		s.T.Helper()
		info, err := js.AccountInfo(s.T.Context())
		if err != nil {
			s.T.Fatal(err)
		}
		return info.API.Total
	}
	const reads = 100
	before := counted()
	for range reads {
		s.As("service-crm").Expect(200, "GET", path, "")
	}
	return counted()-before >= reads
}

func partitionsOf(s *rig.Service) string {
	if n := s.Flag("--redis-partitions"); n != "" {
		return n
	}
	return "1"
}

// buildWithLayout builds the service as one whose read model has another layout.
func buildWithLayout(t *testing.T, layout string) string {
	t.Helper()
	return rig.Build(t, "-ldflags", "-X chatsessions/projections/layout.version="+layout)
}

// serve is the command line of a node, with further flags.
func serve(s rig.Servers, flags ...string) []string {
	return slices.Concat([]string{"serve", "--listen", "127.0.0.1:0"}, s.Flags(), flags)
}

// launch starts a service that is not started yet, and has it end with the test.
func launch(t *testing.T, s *rig.Service) {
	t.Helper()
	s.Args = append(s.Args, "--data-dir", t.TempDir())
	s.Start()
	t.Cleanup(func() {
		if status := s.Stop(); status != 0 {
			t.Errorf("exit status %d", status)
		}
		s.CheckSound()
		if t.Failed() {
			t.Logf("the service's log:\n%s", s.Errors.String())
		}
	})
}

func jetStream(s rig.Servers, t *testing.T) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(rig.ConnectNATS(t, s.NATS.URL()))
	if err != nil {
		t.Fatal(err)
	}
	return js
}
