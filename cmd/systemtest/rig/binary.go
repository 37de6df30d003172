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
	"testing"

	"github.com/redis/go-redis/v9/logging"
)

// The exit statuses of every command.
const (
	ExitDone   = 0
	ExitFailed = 1
	ExitUsage  = 2
)

// Binary is the path of the service. Main builds it.
var Binary string

// Main builds the service, runs a package's tests, and exits. Every TestMain calls it.
func Main(m *testing.M) {
	logging.Disable() // go-redis reports every server that a test has killed
	dir, err := os.MkdirTemp("", "chatsessions-test")
	if err == nil {
		Binary, err = build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	status := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(status)
}

// Build returns the path of a build with other flags, which the end of the test removes.
// With -tags faults, clock and disk can be made to fail.
func Build(t *testing.T, flags ...string) string {
	t.Helper()
	path, err := build(t.TempDir(), flags...)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// build puts the service into a directory, with the race detector if the test has it. Unlike
// `go build`, `go run` caches the link, so only the first package pays for it.
func build(dir string, flags ...string) (string, error) {
	if info, _ := debug.ReadBuildInfo(); info != nil && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		flags = append(flags, "-race")
	}
	args := slices.Concat([]string{"run", "-exec", "cp -t " + dir}, flags, []string{"chatsessions/cmd/chatsessions"})
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("go %q: %w\n%s", args, err, out)
	}
	return filepath.Join(dir, "chatsessions"), nil
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
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) || ctx.Err() != nil {
		t.Fatalf("%s: %v\n%s%s", cmd, err, out.String(), errs.String())
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// noRaceExitDelay spares the second that the race detector sleeps at the end of a process.
const noRaceExitDelay = "GORACE=atexit_sleep_ms=0"
