package durability

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"chatsessions/cmd/systemtest/rig"
	"chatsessions/deploy/servertest"
	"chatsessions/projections/redistest"
)

// startTraced starts a service under strace, with these options of strace.
func startTraced(t *testing.T, options []string, args ...string) *rig.Service {
	t.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Fatalf("this test needs strace, make deps installs it: %v", err)
	}
	// With -D the service is our child and strace is not: it gets our signals.
	line := append([]string{"-D", "-f", "--seccomp-bpf"}, options...)
	line = append(line, rig.Binary, "serve", "--listen", "127.0.0.1:0")
	s := &rig.Service{T: t, Cmd: exec.Command(strace, append(line, args...)...), Errors: &servertest.Output{}, Exited: make(chan struct{})}
	s.Cmd.Stderr = s.Errors
	stdout, err := s.Cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(stdout)
	ready, err := lines.ReadString('\n')
	go func() {
		_, _ = io.Copy(io.Discard, lines)
		_ = s.Cmd.Wait()
		close(s.Exited)
	}()
	t.Cleanup(func() {
		s.Stop()
		if t.Failed() {
			t.Logf("the service's log:\n%s", s.Errors.String())
		}
	})
	if err != nil {
		<-s.Exited
		t.Fatalf("not ready: %v\n%s", s.Cmd.ProcessState, s.Errors.String())
	}
	_, s.URL, _ = strings.Cut(strings.TrimSpace(ready), "ready on ")
	return s
}

// A call is a system call of a trace. It began and ended at these lines: what ended
// at a line below the one where another began was over before that.
type call struct {
	name, fd, path string
	text           string // its arguments and what it returned
	began, ended   int
}

var (
	callBegins  = regexp.MustCompile(`^(\d+) +[\d.]+ (\w+)\((\d+)<([^>]*)>(.*)$`)
	callResumes = regexp.MustCompile(`^(\d+) +[\d.]+ <\.\.\. (\w+) resumed>(.*)$`)
)

func readTrace(t *testing.T, path string) []*call {
	t.Helper()
	var content []byte
	rig.Eventually(t, func() error {
		var err error
		if content, err = os.ReadFile(path); err == nil && !bytes.Contains(content, []byte("+++ exited with 0 +++\n")) {
			err = fmt.Errorf("the trace has not ended")
		}
		return err
	})
	var calls []*call
	unfinished := map[string]*call{} // by thread
	for n, line := range strings.Split(string(content), "\n") {
		if m := callBegins.FindStringSubmatch(line); m != nil {
			c := &call{name: m[2], fd: m[3], path: m[4], text: m[5], began: n, ended: n}
			calls = append(calls, c)
			if strings.HasSuffix(line, "<unfinished ...>") {
				unfinished[m[1]] = c
			}
		} else if m := callResumes.FindStringSubmatch(line); m != nil {
			if c := unfinished[m[1]]; c != nil {
				c.text += m[3]
				c.ended = n
				delete(unfinished, m[1])
			}
		}
	}
	return calls
}

// TestNoAnswerLeavesBeforeItsEventsAreSynced traces the system calls of the service
// under concurrent writes. Whatever it sends over a socket of a write, an answer or
// a document for the read model, begins after a sync of the block file has ended
// that began after the events were written; and a write of several events begins
// after its intent was synced. Only the Redis inside the process, which ends with it,
// may get a document before.
func TestNoAnswerLeavesBeforeItsEventsAreSynced(t *testing.T) {
	t.Run("embedded", func(t *testing.T) { traceWrites(t, true) })
	t.Run("redis", func(t *testing.T) {
		traceWrites(t, false, "--redis-url", redistest.Start(t, redistest.Config{}).URL())
	})
}

func traceWrites(t *testing.T, ownRedis bool, args ...string) {
	trace := filepath.Join(t.TempDir(), "trace")
	s := startTraced(t, []string{
		"-y", "-ttt", "-s", "1000000", "-o", trace, "-e", "trace=fdatasync,fsync,write,writev,sendto,sendmsg,pwrite64,pwritev",
	}, append([]string{"--dev", "--data-dir", t.TempDir()}, args...)...)
	const clients, each = 8, 20
	var running sync.WaitGroup
	several := map[string]bool{} // tokens of writes of several events
	var tokens []string
	for c := range clients {
		path := s.As("account-alice").Create(`{"participants": ["bob"]}`)
		for n := range each {
			token := fmt.Sprintf("token-%02d-%02d", c, n)
			tokens = append(tokens, token)
			several[token] = n == each/2
		}
		running.Go(func() {
			for n := range each {
				token := fmt.Sprintf("token-%02d-%02d", c, n)
				body := `{"room": "` + token + `"}`
				if n == each/2 {
					body = `{"room": "` + token + `", "start": true, "accept": true}`
				}
				a, err := s.As("service-crm").Do("PATCH", path, body, "X-Request-Id: "+token)
				if err != nil || a.Status != 200 {
					t.Errorf("PATCH %s: %v %d %s", body, err, a.Status, a.Body)
				}
			}
		})
	}
	running.Wait()
	if status := s.Stop(); status != 0 {
		t.Errorf("exit status %d", status)
	}

	var syncs []*call // of the log's block files and of intents
	writes := map[string][]*call{}
	for _, c := range readTrace(t, trace) {
		switch {
		case strings.HasSuffix(c.name, "sync"):
			if strings.HasSuffix(c.text, "= 0") {
				syncs = append(syncs, c)
			}
		case c.fd != "1" && c.fd != "2":
			for _, token := range tokens {
				if strings.Contains(c.text, token) {
					writes[token] = append(writes[token], c)
				}
			}
		}
	}
	isBlock := func(c *call) bool {
		return strings.Contains(c.path, "/streams/CHAT_SESSIONS/msgs/") && strings.HasSuffix(c.path, ".blk")
	}
	syncedBetween := func(after, before int, what func(*call) bool) bool {
		for _, c := range syncs {
			if what(c) && c.began > after && c.ended < before {
				return true
			}
		}
		return false
	}
	var answers, others int
	for _, token := range tokens {
		var first, last, sent *call
		for _, c := range writes[token] {
			if isBlock(c) && (sent == nil || c.began < sent.began) {
				if last = c; first == nil {
					first = c
				}
			}
			isAnswer := strings.Contains(c.text, "HTTP/1.1 200 OK")
			if strings.HasPrefix(c.path, "/") || ownRedis && !isAnswer {
				continue
			}
			if sent == nil {
				sent = c
			}
			if last == nil {
				t.Errorf("%s is sent before it is written", token)
				break
			}
			if !syncedBetween(last.ended, c.began, func(s *call) bool { return s.path == last.path }) {
				t.Errorf("%s is sent at line %d; it was written at line %d and there is no sync in between", token, c.began+1, last.ended+1)
			}
			if isAnswer {
				answers++
			} else {
				others++
			}
		}
		if last == nil || sent == nil {
			t.Errorf("%s was not found in the trace", token)
			continue
		}
		if several[token] {
			for _, c := range writes[token] {
				if filepath.Base(filepath.Dir(c.path)) == "intents" && c.ended < first.began &&
					syncedBetween(c.ended, first.began, func(s *call) bool { return s.path == c.path }) &&
					syncedBetween(c.ended, first.began, func(s *call) bool { return s.path == filepath.Dir(c.path) }) {
					several[token] = false
				}
			}
			if several[token] {
				t.Errorf("%s is written before its intent is on disk", token)
			}
		}
	}
	var blockSyncs int
	for _, c := range syncs {
		if c.name == "fdatasync" && isBlock(c) {
			blockSyncs++
		}
	}
	t.Logf("%d writes, %d syncs of the block file; sent of them: %d answers, %d other messages", len(tokens), blockSyncs, answers, others)
	if answers < len(tokens) || others == 0 && !ownRedis || blockSyncs == 0 {
		t.Error("the trace does not have what it should")
	}
}

// TestAFailedSyncEndsTheService makes every fdatasync fail: the write that waits for
// it may have been written, and the service ends and says so.
func TestAFailedSyncEndsTheService(t *testing.T) {
	dir := t.TempDir()
	s := startTraced(t, []string{
		"-o", os.DevNull, "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO",
	}, "--dev", "--data-dir", dir)
	a, err := s.As("account-alice").Do("POST", "/chat-sessions", `{}`, "Idempotency-Key: k")
	if err != nil {
		t.Fatal(err)
	}
	var problem struct{ MayHaveBeenWritten *bool }
	if err := json.Unmarshal(a.Body, &problem); err != nil || a.Status != 503 || problem.MayHaveBeenWritten == nil || !*problem.MayHaveBeenWritten {
		t.Errorf("the write was answered %d %s", a.Status, a.Body)
	}
	<-s.Exited
	if status := s.Cmd.ProcessState.ExitCode(); status != rig.ExitFailed {
		t.Errorf("exit status %d", status)
	}
	if log := s.Errors.String(); !strings.Contains(log, "input/output error") {
		t.Errorf("the log does not say why:\n%s", log)
	}
	// The next one finds what is on disk.
	again := rig.Start(t, "--dev", "--data-dir", dir)
	again.As("account-alice").Expect(200, "POST", "/chat-sessions", `{}`, "Idempotency-Key: k")
	if events := again.Log(); len(events) != 1 {
		t.Errorf("%d events after the same request twice", len(events))
	}
}
