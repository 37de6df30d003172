//go:build powercut

package powercut

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"chatsessions/cmd/systemtest/rig"
)

// blockDir is where the log of a data directory has its block files.
func blockDir(data string) string {
	return filepath.Join(data, "log", "jetstream", "$G", "streams", "CHAT_SESSIONS", "msgs")
}

func blockFile(data string, n int) string {
	return filepath.Join(blockDir(data), strconv.Itoa(n)+".blk")
}

// newestBlock is the number of the log's newest block file.
func newestBlock(data string) int {
	files, _ := filepath.Glob(filepath.Join(blockDir(data), "*.blk"))
	newest := 0
	for _, file := range files {
		if n, err := strconv.Atoi(strings.TrimSuffix(filepath.Base(file), ".blk")); err == nil {
			newest = max(newest, n)
		}
	}
	return newest
}

// slowDown makes it likely that a power cut finds a part of a write of several events
// on the disk. As a rule it is some 50 microseconds from the first event to the last,
// and the server keeps a copy of its own until then; so it matters only if a sync
// begins in between and the next has not ended when the power fails. With slower
// writes to the block files and syncs that begin later, this is most of the time.
// It returns what ends it.
func slowDown(t *testing.T, s *rig.Service) (stop func()) {
	t.Helper()
	data := s.Flag("--data-dir")
	newest := newestBlock(data)
	strace := exec.Command("strace", "-f", "-q", "-o", os.DevNull, "-p", strconv.Itoa(s.Cmd.Process.Pid),
		"-P", blockFile(data, newest), "-P", blockFile(data, newest+1), "-e", "trace=pwrite64,fdatasync",
		"-e", "inject=pwrite64:delay_exit=4ms", "-e", "inject=fdatasync:delay_enter=30ms")
	if err := strace.Start(); err != nil {
		t.Fatalf("power cuts need strace, make deps installs it: %v", err)
	}
	stop = sync.OnceFunc(func() {
		_ = strace.Process.Kill() // which lets go of the service
		_ = strace.Wait()
	})
	t.Cleanup(stop)
	return stop
}
