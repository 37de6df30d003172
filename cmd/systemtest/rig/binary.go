package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9/logging"
)

// Package is the program under test.
const Package = "chatsessions/cmd/chatsessions"

// The exit statuses of every command.
const (
	ExitDone   = 0
	ExitFailed = 1
	ExitUsage  = 2
)

// Binary is the path of the service. Main builds it; tests run it as a process of its
// own, as an operator would.
var Binary string

// Main builds the service, runs the tests of a package, and exits. Every package of system
// tests calls it, or MainAlone, from its TestMain.
func Main(m *testing.M) { runTests(m, syscall.LOCK_SH) }

// MainAlone is Main for tests that load the machine and have deadlines, such as 500 writers
// on two cores. No other package of system tests runs at the same time.
func MainAlone(m *testing.M) { runTests(m, syscall.LOCK_EX) }

func runTests(m *testing.M, turn int) {
	logging.Disable() // go-redis reports every server that a test has killed
	dir, err := os.MkdirTemp("", "chatsessions-test")
	if err == nil {
		Binary, err = build(dir)
	}
	var lock *os.File
	if err == nil {
		lock, err = awaitTurn(turn)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	status := m.Run()
	_ = lock.Close()
	_ = os.RemoveAll(dir)
	os.Exit(status)
}

// awaitTurn takes the lock of all packages of system tests. It ends with the file, or the
// process.
func awaitTurn(how int) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "chatsessions-systemtest.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for err = syscall.EINTR; errors.Is(err, syscall.EINTR); {
		err = syscall.Flock(int(lock.Fd()), how)
	}
	return lock, err
}

// FaultyBinary returns the path of a build whose clock and disk can be made to fail
// (-tags faults).
func FaultyBinary(t *testing.T) string {
	t.Helper()
	path, err := faultyBuild()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var faultyBuild = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(filepath.Dir(Binary), "faults") // Main removes it with its parent
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	return build(dir, "-tags", "faults")
})

// Build returns the path of a build with other flags, which the end of the test removes.
func Build(t *testing.T, flags ...string) string {
	t.Helper()
	path, err := build(t.TempDir(), flags...)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// build puts the service into a directory, with the race detector if the test has it.
// `go run` keeps linked programs in the build cache and `go build` does not, so only the
// first package of a test run pays for the link.
func build(dir string, flags ...string) (string, error) {
	if raceDetector() {
		flags = append(flags, "-race")
	}
	args := slices.Concat([]string{"run", "-exec", "cp -t " + dir}, flags, []string{Package})
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("go %q: %w\n%s", args, err, out)
	}
	return filepath.Join(dir, filepath.Base(Package)), nil
}

func raceDetector() bool {
	info, _ := debug.ReadBuildInfo()
	return info != nil && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// Command runs the binary to its end, with these variables beside the ordinary ones.
func Command(t *testing.T, env []string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, Binary, args...)
	cmd.Env = append(append(os.Environ(), noRaceExitDelay), env...)
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

// noRaceExitDelay spares the second that the race detector sleeps at the end of a process.
const noRaceExitDelay = "GORACE=atexit_sleep_ms=0"

// MustCommand runs a command that has to succeed, and returns what it printed.
func MustCommand(t *testing.T, args ...string) string {
	t.Helper()
	status, stdout, stderr := Command(t, nil, args...)
	if status != ExitDone {
		t.Fatalf("%v: exit status %d\n%s", args, status, stderr)
	}
	return stdout
}
