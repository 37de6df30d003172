package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// launch starts a program whose output goes to a file. Its environment is ours and
// some variables more.
func launch(output string, env []string, name string, args ...string) (*exec.Cmd, error) {
	out, err := os.Create(output)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, out.Close())
	}
	return cmd, out.Close()
}

// said is the end of what a process has written to a file, to stand behind an error.
func said(output string) string {
	const most = 2000
	content, err := os.ReadFile(output)
	if err != nil || len(content) == 0 {
		return ""
	}
	return "\n" + string(content[max(0, len(content)-most):])
}

// terminate ends a process that serves until it is told to end.
func terminate(cmd *exec.Cmd) error {
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return cmd.Wait()
}

// answers returns when something listens at an address.
func answers(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err == nil {
			return conn.Close()
		}
		if ctx.Err() != nil {
			return fmt.Errorf("nothing listens at %s: %w", addr, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// A memoryWatch looks at the resident memory of a process, again and again.
type memoryWatch struct {
	stop    chan struct{}
	running sync.WaitGroup
	bytes   []float64 // by time; whole when the watch has ended
}

// watchMemory begins to look; end ends it, and so does the end of the process.
func watchMemory(pid int) *memoryWatch {
	const every = 100 * time.Millisecond
	w := &memoryWatch{stop: make(chan struct{})}
	w.running.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			resident, err := residentMemory(pid)
			if err != nil {
				return
			}
			w.bytes = append(w.bytes, resident)
			select {
			case <-tick.C:
			case <-w.stop:
				return
			}
		}
	})
	return w
}

// end returns the most of the first half of the time, and of the last.
func (w *memoryWatch) end() (first, last float64) {
	close(w.stop)
	w.running.Wait()
	for i, b := range w.bytes {
		if i < len(w.bytes)/2 {
			first = max(first, b)
		} else {
			last = max(last, b)
		}
	}
	return first, last
}

// residentMemory is what a process occupies of the machine's memory, in bytes. A
// process that has ended, and was not waited for yet, occupies nothing.
func residentMemory(pid int) (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, found := bytes.Cut(status, []byte("VmRSS:"))
	if !found {
		return 0, fmt.Errorf("process %d has ended", pid)
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	kilobytes, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(string(line)), " kB"), 64)
	return 1024 * kilobytes, err
}
