package nats

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chatsessions/cmd/systemtest/rig"
	"chatsessions/deploy/servertest"
)

// examples are the programs of docs/examples, each with the command that runs it.
var examples = []struct {
	name    string // of the subscriber
	program string
	prepare func(t *testing.T, program string) (command []string)
}{
	{"billing", "../../../docs/examples/go", func(t *testing.T, program string) []string {
		example := filepath.Join(t.TempDir(), "subscriber")
		runHere(t, ".", "go", "build", "-o", example, program)
		return []string{example}
	}},
	{"crm", "../../../docs/examples/javascript", func(t *testing.T, program string) []string {
		return []string{"node", filepath.Join(installed(t, program), "subscriber.js")}
	}},
}

// installed is a copy of a directory of JavaScript with what it needs.
func installed(t *testing.T, program string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(program)); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	runHere(t, dir, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
	return dir
}

// runHere runs a command in a directory to its end.
func runHere(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
}

// A subscriber is an example that follows the log into a file.
type subscriber struct {
	t       *testing.T
	name    string
	command []string
	url     string
	file    string
	cmd     *exec.Cmd
	errors  *servertest.Output
}

func (s *subscriber) start() {
	s.t.Helper()
	s.cmd = exec.Command(s.command[0], append(s.command[1:], s.name, s.file)...)
	s.cmd.Env = append(os.Environ(), "NATS_URL="+s.url)
	s.cmd.Stderr = s.errors
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	cmd := s.cmd
	s.t.Cleanup(func() { _ = cmd.Process.Kill() })
}

// stop asks the subscriber to end, which it has to do well.
func (s *subscriber) stop() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	if err := s.cmd.Wait(); err != nil || s.errors.String() != "" {
		s.t.Errorf("%s: %v\n%s", s.name, err, s.errors.String())
	}
}

// lines is what the subscriber has written.
func (s *subscriber) lines() []string {
	s.t.Helper()
	content, err := os.ReadFile(s.file)
	if err != nil && !os.IsNotExist(err) {
		s.t.Fatal(err)
	}
	lines := strings.SplitAfter(string(content), "\n")
	return lines[:len(lines)-1]
}

// awaits returns when the subscriber has written so many lines.
func (s *subscriber) awaits(n int) {
	s.t.Helper()
	rig.Eventually(s.t, func() error {
		if found := len(s.lines()); found < n {
			return fmt.Errorf("%s has written %d of %d events\n%s", s.name, found, n, s.errors.String())
		}
		return nil
	})
}

// has checks that the subscriber has written these events, each once and in order,
// as CloudEvents that say what the messages said.
func (s *subscriber) has(events []rig.Event) {
	s.t.Helper()
	lines := s.lines()
	if len(lines) != len(events) {
		s.t.Fatalf("%s has written %d events, the log has %d", s.name, len(lines), len(events))
	}
	versions := map[string]int{}
	for i, e := range events {
		var got map[string]any
		if err := json.Unmarshal([]byte(lines[i]), &got); err != nil {
			s.t.Fatalf("%s, line %d: %v: %s", s.name, i+1, err, lines[i])
		}
		for header, values := range e.Header {
			name, ok := strings.CutPrefix(header, "ce-")
			want, err := url.PathUnescape(values[0])
			if err != nil {
				s.t.Fatal(err)
			}
			if same := fmt.Sprint(got[name]) == want || name == "time" && sameTime(got[name], want); ok && !same {
				s.t.Errorf("%s, event %d: %s is %v, want %s", s.name, i+1, name, got[name], want)
			}
		}
		if want := map[string]any{"changes": e.Changes, "session": e.Session}; !reflect.DeepEqual(got["data"], any(want)) {
			s.t.Errorf("%s, event %d: data is %v, want %v", s.name, i+1, got["data"], want)
		}
		session := got["subject"].(string)
		versions[session]++
		if version := fmt.Sprint(got["sessionversion"]); version != fmt.Sprint(versions[session]) {
			s.t.Errorf("%s, event %d: version %s of session %s comes as its event %d", s.name, i+1, version, session, versions[session])
		}
	}
}

// sameTime says whether two notations are of one time.
func sameTime(a any, b string) bool {
	x, errA := time.Parse(time.RFC3339Nano, fmt.Sprint(a))
	y, errB := time.Parse(time.RFC3339Nano, b)
	return errA == nil && errB == nil && x.Equal(y)
}

// writeAndKill has clients write, and kills the service, when so many writes were
// answered. It returns when the service is back.
func writeAndKill(s *rig.Service, answers int64) {
	var answered atomic.Int64
	enough := make(chan struct{})
	var running sync.WaitGroup
	for w := range 8 {
		c := s.As(fmt.Sprintf("account-Zoë %d%%", w))
		running.Go(func() {
			for {
				a, err := c.Do("POST", "/chat-sessions", `{"room": "Grüße", "participants": ["bob"]}`)
				for _, body := range []string{`{"start": true}`, `{"accept": true, "room": null}`, `{"finish": "50% & \"done\""}`} {
					if err != nil || a.Status != 200 {
						break
					}
					if answered.Add(1) == answers {
						close(enough)
					}
					_, err = c.Do("PATCH", a.Header.Get("Location"), body)
				}
				if err != nil {
					return // it is dead
				}
			}
		})
	}
	<-enough
	s.Kill()
	running.Wait()
	s.Start()
}

func TestTheExamplesAreShort(t *testing.T) {
	for _, file := range []string{"go/main.go", "javascript/subscriber.js", "javascript/feed.js"} {
		content, err := os.ReadFile(filepath.Join("../../../docs/examples", file))
		if err != nil {
			t.Fatal(err)
		}
		if lines := strings.Count(string(content), "\n"); lines >= 60 {
			t.Errorf("%s has %d lines, want fewer than 60", file, lines)
		}
	}
}

func TestSubscribersThatWereOfflineSeeEveryEventOnceAndInOrder(t *testing.T) {
	server := startNATSFor(t, "billing", "crm")
	s := rig.Start(t, "--dev", "--nats-url", server.URL())
	operator := connect(t, server.URL())
	var subscribers []*subscriber
	for _, e := range examples {
		addConsumer(t, operator, e.name)
		subscribers = append(subscribers, &subscriber{
			t: t, name: e.name, command: e.prepare(t, e.program), url: subscriberURL(server, e.name),
			file: filepath.Join(t.TempDir(), "events.ndjson"), errors: &servertest.Output{},
		})
	}
	each := func(do func(*subscriber)) {
		for _, sub := range subscribers {
			do(sub)
		}
	}

	each((*subscriber).start)
	writeAndKill(s, 100) // while they follow
	each(func(sub *subscriber) { sub.awaits(50) })
	each((*subscriber).stop)
	before := len(subscribers[0].lines())

	writeAndKill(s, 200) // while they are stopped
	missed := len(s.Log()) - before
	each((*subscriber).start)
	writeAndKill(s, 100) // while they catch up
	events := s.SettledLog()
	each(func(sub *subscriber) { sub.awaits(len(events)) })
	each((*subscriber).stop)
	each(func(sub *subscriber) { sub.has(events) })
	t.Logf("%d events, %d of them written while the subscribers were stopped; the service was killed 3 times", len(events), missed)

	// The worst of restarts: half a line in the file, and everything comes again.
	each(func(sub *subscriber) { startOver(t, operator, sub) })
	s.As("account-alice").Create(`{"room": "last"}`)
	events = s.Log()
	each(func(sub *subscriber) { sub.awaits(len(events)) })
	each((*subscriber).stop)
	each(func(sub *subscriber) { sub.has(events) })
}

// startOver starts a subscriber whose last line is torn and whose consumer was lost.
func startOver(t *testing.T, operator *nats.Conn, sub *subscriber) {
	t.Helper()
	file, err := os.OpenFile(sub.file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString(`{"specversion":"1.`); err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(operator)
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteConsumer(t.Context(), "CHAT_SESSIONS", sub.name); err != nil {
		t.Fatal(err)
	}
	addConsumer(t, operator, sub.name)
	sub.start()
}

// The EventSource of npm is a client that nobody here wrote.
func TestAnEventSourceSeesEveryEventOnceWhileTheServiceIsKilled(t *testing.T) {
	program := filepath.Join(installed(t, "../../../docs/examples/javascript"), "feed.js")
	listen := "127.0.0.1:" + servertest.Port(t) // it comes back there
	s := &rig.Service{T: t, Args: []string{"serve", "--dev", "--listen", listen, "--data-dir", t.TempDir()}}
	s.Start()
	t.Cleanup(func() { s.Stop() })
	// follow runs the program until it has printed so many lines, and returns the positions.
	follow := func(token, after string, events int, meanwhile func()) (positions []int) {
		t.Helper()
		out, errs := &servertest.Output{}, &servertest.Output{}
		cmd := exec.Command("node", program, s.URL, after)
		cmd.Env = append(os.Environ(), "TOKEN="+token)
		cmd.Stdout, cmd.Stderr = out, errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		defer func() { _ = cmd.Process.Kill() }()
		meanwhile()
		rig.Eventually(t, func() error {
			if n := strings.Count(out.String(), "\n"); n < events {
				return fmt.Errorf("%d of %d events\n%s", n, events, errs.String())
			}
			return nil
		})
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err != nil {
			t.Errorf("%v\n%s", err, errs.String())
		}
		for line := range strings.Lines(out.String()) {
			position, data, _ := strings.Cut(line, " ")
			n, err := strconv.Atoi(position)
			if err != nil || !json.Valid([]byte(data)) {
				t.Fatalf("no position and event: %s", line)
			}
			positions = append(positions, n)
		}
		return positions
	}
	consecutive := func(positions []int, first, events int) {
		t.Helper()
		for i, n := range positions {
			if n != first+i {
				t.Fatalf("event %d is at %d, want %d", i+1, n, first+i)
			}
		}
		if len(positions) != events {
			t.Fatalf("%d events, want %d", len(positions), events)
		}
	}
	write := func() {
		path := s.As("account-alice").Create(`{"room": "Grüße"}`)
		s.As("account-alice").Expect(200, "PATCH", path, `{"start": true, "accept": true, "finish": "so"}`)
	}
	write()
	consecutive(follow("dev-service-crm", "0", 12, func() {
		write()
		s.Kill()
		s.Start()
		write()
	}), 1, 12)
	consecutive(follow("dev-account-alice", "5", 7, func() {}), 6, 7)
	refused := exec.Command("node", program, s.URL)
	refused.Env = append(os.Environ(), "TOKEN=nobody")
	var status *exec.ExitError
	if out, err := refused.CombinedOutput(); !errors.As(err, &status) || !strings.Contains(string(out), "401") {
		t.Errorf("with a bad token: %v, %s", err, out)
	}
}
