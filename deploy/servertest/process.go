// Package servertest runs programs as processes of their own, for tests that kill and pause
// them. Only tests import it.
//
// # Invariants
//
// A Process ends with its test, and with the test's process. It has one goroutine, which
// waits for its end. No function holds a lock while it waits.
package servertest

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"chatsessions/deploy/loopback"
)

// Patience bounds every wait for an expected state.
const Patience = 60 * time.Second

// A Process is a program that a test starts, kills, and pauses.
type Process struct {
	Output Output // of all runs

	tb     testing.TB
	name   string
	cmd    *exec.Cmd
	exited chan struct{}
}

// New returns a process that does not run yet. A failed test logs the end of its output.
func New(tb testing.TB, name string) *Process {
	p := &Process{tb: tb, name: name}
	tb.Cleanup(func() {
		p.Kill()
		if tb.Failed() {
			output := p.Output.String()
			tb.Logf("output of %s:\n%s", name, output[max(0, len(output)-4000):])
		}
	})
	return p
}

// Begin starts the process with additional variables, without waiting until it is ready.
func (p *Process) Begin(env []string, program string, args ...string) {
	p.tb.Helper()
	cmd := exec.Command(program, args...) //nolint:gosec // a test's own arguments
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = &p.Output, &p.Output
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		p.tb.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	p.cmd, p.exited = cmd, exited
}

// Await returns when ready returns nil. It fails the test if the process ends first.
func (p *Process) Await(ready func() error) {
	p.tb.Helper()
	Eventually(p.tb, Patience, func() error {
		err := ready()
		if err != nil && !p.Running() {
			p.tb.Fatalf("%s has ended: %v", p.name, err)
		}
		return err
	})
}

// Running reports whether the process has been started and has not ended.
func (p *Process) Running() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// Kill ends the process at once (SIGKILL), and returns when it is gone.
func (p *Process) Kill() { p.end(syscall.SIGKILL) }

// Stop asks the process to end (SIGTERM), and returns when it is gone.
func (p *Process) Stop() { p.end(syscall.SIGTERM) }

func (p *Process) end(signal syscall.Signal) {
	p.tb.Helper()
	if !p.Running() {
		return
	}
	_ = p.cmd.Process.Signal(signal)
	_ = p.cmd.Process.Signal(syscall.SIGCONT) // in case it is paused
	select {
	case <-p.exited:
	case <-time.After(Patience):
		p.tb.Errorf("%s does not end", p.name)
	}
}

// Pause returns when all threads are stopped: connections stay open, nothing answers.
func (p *Process) Pause() {
	p.tb.Helper()
	p.Signal(syscall.SIGSTOP)
	for {
		switch err := unix.Waitid(unix.P_PID, p.cmd.Process.Pid, nil, unix.WSTOPPED, nil); {
		case err == nil:
			return
		case !errors.Is(err, unix.EINTR):
			p.tb.Fatalf("pausing %s: %v", p.name, err)
		}
	}
}

// Resume continues a paused process.
func (p *Process) Resume() { p.Signal(syscall.SIGCONT) }

// Signal sends the process a signal.
func (p *Process) Signal(signal syscall.Signal) {
	p.tb.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		p.tb.Fatal(err)
	}
}

// Output collects what a process writes. It is safe for concurrent use.
type Output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// Eventually tries until it succeeds.
func Eventually(tb testing.TB, atMost time.Duration, try func() error) {
	tb.Helper()
	for deadline := time.Now().Add(atMost); ; time.Sleep(10 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("after %s: %v", atMost, err)
		}
	}
}

// Port returns a port of 127.0.0.1 that no other server gets.
func Port(tb testing.TB) string {
	tb.Helper()
	port, err := loopback.Port()
	if err != nil {
		tb.Fatal(err)
	}
	return strconv.Itoa(port)
}

// Deployed returns the path of a file under deploy.
func Deployed(path ...string) string {
	_, here, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(here), "..", filepath.Join(path...))
}
