package audit

import (
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"chatsessions/cmd/systemtest/rig"
	"chatsessions/deploy/servertest"
)

// endsAfter is a server's URL by way of a proxy that is gone for good when it has passed
// on so many bytes of the server's.
func endsAfter(t *testing.T, bytes int64, serverURL string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	u, err := url.Parse(serverURL)
	if err != nil {
		t.Fatal(err)
	}
	address := u.Host
	go func() {
		client, err := listener.Accept()
		if err != nil {
			return
		}
		_ = listener.Close()
		defer client.Close()
		server, err := net.Dial("tcp", address)
		if err != nil {
			return
		}
		defer server.Close()
		go func() { _, _ = io.Copy(server, client) }()
		_, _ = io.CopyN(client, server, bytes)
	}()
	u.Host = listener.Addr().String()
	return u.String()
}

func TestAReplayEndsWhereTheServerIsGone(t *testing.T) {
	t.Parallel()
	s := rig.Start(t, "--dev")
	for range 60 {
		aLife(s)
	}
	dir := t.TempDir()
	start := func(args ...string) (*exec.Cmd, *servertest.Output, *servertest.Output) {
		cmd := exec.CommandContext(t.Context(), rig.Binary, append([]string{"replay", "--nats-url", endsAfter(t, 100_000, s.NATSURL())}, args...)...)
		out, errs := &servertest.Output{}, &servertest.Output{}
		cmd.Stdout, cmd.Stderr = out, errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd, out, errs
	}
	file, _, fileErrs := start("--output", "ndjson", "--file", filepath.Join(dir, "log.ndjson"))
	lines, linesOut, linesErrs := start("--output", "csv")
	for _, cmd := range []*exec.Cmd{file, lines} {
		if _ = cmd.Wait(); cmd.ProcessState.ExitCode() != rig.ExitFailed {
			t.Errorf("%s: %v", cmd, cmd.ProcessState)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 || !strings.Contains(fileErrs.String(), "log.ndjson was not written") {
		t.Errorf("left are %v, %v, %q", left, err, fileErrs)
	}
	all, last := strings.Split(strings.TrimSpace(linesOut.String()), "\n"), "0" // it may end before the first batch is whole
	if len(all) > 1 {                                                           // below the head
		last, _, _ = strings.Cut(all[len(all)-1], ",")
	}
	goOn := regexp.MustCompile(`broken off: .*; continue with --after (\d+)\n$`).FindStringSubmatch(linesErrs.String())
	if goOn == nil || goOn[1] != last {
		t.Errorf("%d lines, the last of %s, %q", len(all), last, linesErrs)
	}
}

// TestTwoCommandsOnALogThatIsStopped: the second says why it cannot; it does not depend on
// the first, which ends when it likes.
func TestTwoCommandsOnALogThatIsStopped(t *testing.T) {
	t.Parallel()
	s := rig.Start(t, "--dev")
	var id string
	for range 60 {
		id, _ = aLife(s)
	}
	s.Stop()
	first := exec.CommandContext(t.Context(), rig.Binary, append([]string{"replay", "--output", "ndjson"}, ofLog(s)...)...)
	unread, err := first.StdoutPipe() // more than a pipe takes
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(unread, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if status, _, stderr := rig.Command(t, nil, append([]string{"history", id}, ofLog(s)...)...); status != rig.ExitDone {
		t.Errorf("exit status %d, %q", status, stderr)
	}
	// The service would write to what the first one reads.
	status, _, stderr := rig.Command(t, nil, "serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir", s.Flag("--data-dir"))
	if status != rig.ExitFailed || !strings.Contains(stderr, "another process") {
		t.Errorf("exit status %d, %q", status, stderr)
	}
	if _, err := io.Copy(io.Discard, unread); err != nil {
		t.Fatal(err)
	}
	if err := first.Wait(); err != nil {
		t.Errorf("the first: %v", err)
	}
}
