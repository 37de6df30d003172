package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9/logging"
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

// faultBuild is the service with the clock and the disk that can be made to fail.
var faultBuild = sync.OnceValues(func() (string, error) {
	path := filepath.Join(filepath.Dir(binary), "chatsessions-faults") // goes with TestMain's directory
	build := exec.Command("go", "build", "-race", "-tags", "faults", "-o", path, ".")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", build, err, out)
	}
	return path, nil
})

// requireFaultBuild returns the path of the service with faults.
func requireFaultBuild(t *testing.T) string {
	t.Helper()
	path, err := faultBuild()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// command runs the binary to its end, with only these variables beside the
// ordinary ones.
func command(t *testing.T, env []string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append(append(os.Environ(), "GORACE=atexit_sleep_ms=0"), env...) // the race detector sleeps at the end
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

// runCommand runs a command of the service that has to succeed, and returns what
// it printed.
func runCommand(t *testing.T, args ...string) string {
	t.Helper()
	command := exec.Command(binary, args...)
	var stderr bytes.Buffer
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, stderr.String())
	}
	return string(out)
}
