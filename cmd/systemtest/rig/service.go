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
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

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

// flag is what a service was given for a flag, "" for nothing.
func (s *service) flag(name string) string {
	if i := slices.Index(s.args, name); i >= 0 {
		return s.args[i+1]
	}
	return ""
}

// restart starts a service again that was ended, or ends it first.
func (s *service) restart() {
	s.t.Helper()
	if status := s.stop(); status != 0 {
		s.t.Fatalf("exit status %d", status)
	}
	s.start()
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

// metrics are the values of all series, by name and labels as they are written.
func (s *service) metrics() map[string]float64 {
	s.t.Helper()
	status, body := s.ask("/metrics")
	if status != http.StatusOK {
		s.t.Fatalf("/metrics: %d %s", status, body)
	}
	values := map[string]float64{}
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		value, err := strconv.ParseFloat(strings.TrimSpace(line[at+1:]), 64)
		if err != nil {
			s.t.Fatalf("%q: %v", line, err)
		}
		values[line[:at]] = value
	}
	return values
}

// ask is a GET on the listener for operators.
func (s *service) ask(path string) (status int, body string) {
	s.t.Helper()
	response, err := httpClient.Get(s.opsURL() + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return response.StatusCode, string(content)
}
