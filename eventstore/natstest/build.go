// Package natstest runs real NATS servers, as processes of their own, for tests
// that kill them, stop them and look what is left.
//
// The server is built from the module that go.mod pins, so that tests and
// service agree on the version, and nothing has to be installed. Whatever is
// missing fails the test.
package natstest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/nats-io/nats-server/v2"

var build = sync.OnceValues(buildServer)

// Build returns the path of a nats-server binary of the version in go.mod. It is
// kept in the user's cache directory: the first call on a machine takes a minute.
func Build(tb testing.TB) string {
	tb.Helper()
	path, output := build()
	if path == "" {
		tb.Fatalf("building nats-server: %s", output)
	}
	return path
}

// buildServer returns the binary's path, or why there is none.
func buildServer() (path, output string) {
	run := func(args ...string) (string, bool) {
		cmd := exec.Command("go", args...)
		var stdout, stderr strings.Builder
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); err != nil {
			return err.Error() + ": " + stderr.String(), false
		}
		return strings.TrimSpace(stdout.String()), true
	}
	version, ok := run("list", "-m", "-f", "{{.Version}}", module)
	if !ok {
		return "", version
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err.Error()
	}
	dir := filepath.Join(cache, "chatsessions-tests")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err.Error()
	}
	binary := filepath.Join(dir, "nats-server-"+version)
	if _, err := os.Stat(binary); err == nil {
		return binary, ""
	}
	// Test binaries of several packages run at once: each builds its own, and the
	// rename is atomic.
	temp, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return "", err.Error()
	}
	defer func() { _ = os.RemoveAll(temp) }()
	built := filepath.Join(temp, "nats-server")
	if output, ok := run("build", "-o", built, module); !ok {
		return "", output
	}
	if err := os.Rename(built, binary); err != nil {
		return "", err.Error()
	}
	return binary, ""
}
