package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"
)

// launch starts a program, until ctx ends, with more environment and its output in a file.
func launch(ctx context.Context, output string, env []string, name string, args ...string) (*exec.Cmd, error) {
	out, err := os.Create(output)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, out.Close())
	}
	return cmd, out.Close()
}

// outputTail returns the end of a process's output, to append to an error.
func outputTail(output string) string {
	const most = 2000
	content, err := os.ReadFile(output)
	if err != nil || len(content) == 0 {
		return ""
	}
	return "\n" + string(content[max(0, len(content)-most):])
}

// terminate ends a server process.
func terminate(cmd *exec.Cmd) error {
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return cmd.Wait()
}

// A memoryWatch samples the resident memory of a process.
type memoryWatch struct {
	stop    chan struct{}
	running sync.WaitGroup
	bytes   []float64 // by time; complete when the watch has ended
}

// watchMemory samples until end is called or the process ends.
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

// end adds the maximum of the first and of the second half of the time, in megabytes.
func (w *memoryWatch) end(f figures, name string) {
	close(w.stop)
	w.running.Wait()
	half := len(w.bytes) / 2
	f.add(name+" memory at first", slices.Max(append(w.bytes[:half:half], 0))/(1<<20))
	f.add(name+" memory", slices.Max(append(w.bytes[half:], 0))/(1<<20))
}

// flat describes the row of a process's memory, whose target is that it does not grow.
func flat(measured, name string) row {
	return ratio(measured, 1, "MB", name+" memory", name+" memory at first", "≤ 1.1")
}

// residentMemory returns the physical memory of a process in bytes.
func residentMemory(pid int) (float64, error) {
	pages, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	var virtual, resident float64
	if _, err = fmt.Sscan(string(pages), &virtual, &resident); err == nil && resident == 0 {
		err = fmt.Errorf("process %d has ended", pid)
	}
	return resident * float64(os.Getpagesize()), err
}
