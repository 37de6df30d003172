package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9/logging"

	"chatsessions/eventstore/natstest"
	"chatsessions/projections/redistest"
)

// binary is the service, built once with the race detector: the tests of this
// package run it as a process of its own, as an operator would.
var binary string

func TestMain(m *testing.M) {
	logging.Disable() // go-redis tells of every server that a test has killed
	dir, err := os.MkdirTemp("", "chatsessions-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary = filepath.Join(dir, "chatsessions")
	build := exec.Command("go", "build", "-race", "-o", binary, ".")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n%s", build, err, out)
		os.Exit(1)
	}
	status := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(status)
}

// onAllSetups runs a test on each way to run the service: everything embedded, a
// real Redis beside the embedded log, and both outside.
func onAllSetups(t *testing.T, test func(t *testing.T, s *service)) {
	t.Run("embedded", func(t *testing.T) {
		test(t, startService(t, "--dev"))
	})
	t.Run("redis", func(t *testing.T) {
		redis := redistest.Start(t, redistest.Config{})
		test(t, startService(t, "--dev", "--redis-url", redis.URL()))
	})
	t.Run("nats and redis", func(t *testing.T) {
		nats, redis := natstest.Start(t, natstest.Config{}), redistest.Start(t, redistest.Config{})
		test(t, startService(t, "--dev", "--nats-url", nats.URL(), "--redis-url", redis.URL()))
	})
}

// A service is a running `chatsessions serve`.
type service struct {
	t      *testing.T
	binary string   // "" is the one that TestMain has built
	env    []string // beside the ordinary variables
	args   []string
	url    string // of the API; "" for a projector alone
	cmd    *exec.Cmd
	errors *output
	ready  chan string // the first line that it prints
	exited chan struct{}
}

// startService starts a service with a data directory of its own on a free port,
// and returns when it is ready. At the end of the test it is told to stop, and
// has to drain and exit 0.
func startService(t *testing.T, args ...string) *service {
	t.Helper()
	if !slices.Contains(args, "--data-dir") {
		args = append(args, "--data-dir", t.TempDir())
	}
	s := &service{t: t, args: append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)}
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
	return s
}

// start runs the service, again with the same arguments, and returns when it is
// ready.
func (s *service) start() {
	s.t.Helper()
	if err := s.begin(); err != nil {
		s.t.Fatal(err)
	}
	if err := s.awaitReady(); err != nil {
		s.t.Fatal(err)
	}
}

// begin runs the service and does not wait for it.
func (s *service) begin() error {
	s.cmd = exec.Command(cmp.Or(s.binary, binary), s.args...)
	if s.errors == nil {
		s.errors = &output{}
	}
	s.cmd.Stderr = s.errors
	s.cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0") // the race detector sleeps at the end
	s.cmd.Env = append(s.cmd.Env, s.env...)
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	cmd, ready, exited := s.cmd, make(chan string, 1), make(chan struct{})
	s.ready, s.exited = ready, exited
	go func() {
		lines := bufio.NewReader(stdout)
		if line, err := lines.ReadString('\n'); err == nil {
			ready <- line
		}
		_, _ = io.Copy(io.Discard, lines) // what comes behind the line must not fill the pipe
		_ = cmd.Wait()
		close(exited)
	}()
	return nil
}

// awaitReady returns when the service that was begun is ready, or an error when it
// has ended instead.
func (s *service) awaitReady() error {
	select {
	case line := <-s.ready:
		_, s.url, _ = strings.Cut(strings.TrimSpace(line), "ready on ")
		return nil
	case <-s.exited:
		return fmt.Errorf("not ready: %v\n%s", s.cmd.ProcessState, s.errors.String())
	}
}

// checkSound fails the test where the service has printed a defect of ours.
func (s *service) checkSound() {
	if log := s.errors.String(); strings.Contains(log, "DATA RACE") || strings.Contains(log, "panic") {
		s.t.Error("a data race or a panic; see the service's log")
	}
}

// stop asks the service to end, and returns its exit status.
func (s *service) stop() int { return s.end(syscall.SIGTERM) }

// kill ends the service without a warning.
func (s *service) kill() { s.end(syscall.SIGKILL) }

func (s *service) end(signal syscall.Signal) int {
	s.t.Helper()
	select {
	case <-s.exited:
		return 0 // ended by the test already
	default:
	}
	if err := s.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.t.Fatal(err)
	}
	select {
	case <-s.exited:
	case <-time.After(30 * time.Second):
		_ = s.cmd.Process.Kill()
		s.t.Fatalf("the service has not ended 30 s after %s", signal)
	}
	return s.cmd.ProcessState.ExitCode()
}

// output collects what a process writes.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// A client calls a service with one token.
type client struct {
	t     *testing.T
	url   string
	token string
}

// as returns a client for a dev token, "account-alice" for example.
func (s *service) as(who string) *client { return &client{s.t, s.url, "dev-" + who} }

// An answer is what the service said to one request.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// do sends a request. Headers are "Name: value"; a body is JSON unless they say
// otherwise. It is safe to call from many goroutines.
func (c *client) do(method, path, body string, headers ...string) (answer, error) {
	request, err := http.NewRequest(method, c.url+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	request.Header.Set("Authorization", "Bearer "+c.token)
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		request.Header.Set(name, value)
	}
	response, err := httpClient.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, content}, err
}

var httpClient = &http.Client{
	Timeout:   30 * time.Second,
	Transport: &http.Transport{MaxIdleConnsPerHost: 1000},
}

// expect sends a request that has to be answered with the status.
func (c *client) expect(status int, method, path, body string, headers ...string) answer {
	c.t.Helper()
	a, err := c.do(method, path, body, headers...)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	if a.status != status {
		c.t.Fatalf("%s %s %s: %d %s, want %d", method, path, body, a.status, a.body, status)
	}
	return a
}

// create opens a session and returns its path.
func (c *client) create(body string) string {
	c.t.Helper()
	return c.expect(200, "POST", "/chat-sessions", body).header.Get("Location")
}

// object decodes the body as a JSON object.
func (a answer) object(t *testing.T) map[string]any {
	t.Helper()
	var o map[string]any
	if err := json.Unmarshal(a.body, &o); err != nil {
		t.Fatalf("%s: %v", a.body, err)
	}
	return o
}

// list decodes the body as a JSON array of objects.
func (a answer) list(t *testing.T) []map[string]any {
	t.Helper()
	var l []map[string]any
	if err := json.Unmarshal(a.body, &l); err != nil {
		t.Fatalf("%s: %v", a.body, err)
	}
	return l
}
