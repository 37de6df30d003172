package rig

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"chatsessions/deploy/servertest"
)

// A Service is a running `chatsessions serve`.
type Service struct {
	T      *testing.T
	Binary string   // "": rig.Binary
	Env    []string // beside the ordinary variables
	Args   []string
	URL    string // of the API; "" for a projector alone
	Cmd    *exec.Cmd
	Errors *servertest.Output
	Exited chan struct{}
	out    *servertest.Output
}

// Start starts a service on a free port, with its own data directory, and returns when it
// is ready. At the end of the test, the service is stopped, and has to drain and exit 0.
func Start(t *testing.T, args ...string) *Service {
	t.Helper()
	if !slices.Contains(args, "--data-dir") {
		args = append(args, "--data-dir", t.TempDir())
	}
	s := &Service{T: t, Args: append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)}
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
	return s
}

// Start runs the service with the same arguments, and returns when it is ready.
func (s *Service) Start() {
	s.T.Helper()
	if err := s.Begin(); err != nil {
		s.T.Fatal(err)
	}
	if err := s.AwaitReady(); err != nil {
		s.T.Fatal(err)
	}
}

// Begin starts the process without waiting until it is ready.
func (s *Service) Begin() error {
	if s.Errors == nil {
		s.Errors = &servertest.Output{}
	}
	s.out = &servertest.Output{}
	cmd, exited := exec.Command(cmp.Or(s.Binary, Binary), s.Args...), make(chan struct{})
	cmd.Stdout, cmd.Stderr = s.out, s.Errors
	cmd.Env = append(append(os.Environ(), noRaceExitDelay), s.Env...)
	if err := cmd.Start(); err != nil {
		return err
	}
	s.Cmd, s.Exited = cmd, exited
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	return nil
}

// AwaitReady returns nil when the service prints that it is ready, an error when it ends.
func (s *Service) AwaitReady() error {
	for {
		if line, _, printed := strings.Cut(s.out.String(), "\n"); printed {
			_, s.URL, _ = strings.Cut(line, "ready on ")
			return nil
		}
		select {
		case <-s.Exited:
			return fmt.Errorf("not ready: %v\n%s", s.Cmd.ProcessState, s.Errors.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// CheckSound fails the test if the service has printed a data race or a panic.
func (s *Service) CheckSound() {
	if log := s.Errors.String(); strings.Contains(log, "DATA RACE") || strings.Contains(log, "panic") {
		s.T.Error("a data race or a panic; see the service's log")
	}
}

// Stop asks the service to end, and returns its exit status.
func (s *Service) Stop() int { return s.End(syscall.SIGTERM) }

// Kill ends the service without a warning.
func (s *Service) Kill() { s.End(syscall.SIGKILL) }

// End sends the process a signal, waits for its end, and returns its exit status.
func (s *Service) End(signal syscall.Signal) int {
	s.T.Helper()
	select {
	case <-s.Exited:
		return 0 // ended by the test already
	default:
	}
	if err := s.Cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.T.Fatal(err)
	}
	select {
	case <-s.Exited:
	case <-time.After(30 * time.Second):
		_ = s.Cmd.Process.Kill()
		s.T.Fatalf("the service has not ended 30 s after %s", signal)
	}
	return s.Cmd.ProcessState.ExitCode()
}

// Flag returns the value of a flag of the service, or "".
func (s *Service) Flag(name string) string {
	if i := slices.Index(s.Args, name); i >= 0 {
		return s.Args[i+1]
	}
	return ""
}

// Restart stops the service, unless it has ended, and starts it again.
func (s *Service) Restart() {
	s.T.Helper()
	if status := s.Stop(); status != 0 {
		s.T.Fatalf("exit status %d", status)
	}
	s.Start()
}

// Stores returns the flags with which a command reaches the service's log and read model.
func (s *Service) Stores() []string {
	flags := []string{"--data-dir", s.Flag("--data-dir")}
	for _, name := range []string{"--nats-url", "--redis-url", "--redis-partitions"} {
		if value := s.Flag(name); value != "" {
			flags = append(flags, name, value)
		}
	}
	return flags
}

// ConnectionFile is in the data directory, and says how to reach what runs inside the service.
const ConnectionFile = "connection.json"

// A Connection is the content of the connection file.
type Connection struct{ NATSURL, RedisURL string }

// Connection reads the connection file of the running service.
func (s *Service) Connection() (c Connection) {
	s.T.Helper()
	content, err := os.ReadFile(filepath.Join(s.Flag("--data-dir"), ConnectionFile))
	if err == nil {
		err = json.Unmarshal(content, &c)
	}
	if err != nil {
		s.T.Fatalf("%s: %v", content, err)
	}
	return c
}
