package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// launch starts a program whose output goes to a file, with additional environment
// variables.
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
	for _, part := range []struct {
		name  string
		bytes []float64
	}{{name + " memory at first", w.bytes[:half]}, {name + " memory", w.bytes[half:]}} {
		most := 0.0
		for _, b := range part.bytes {
			most = max(most, b)
		}
		f.add(part.name, most/(1<<20))
	}
}

// flat makes the row of a process's memory, whose target is that it does not grow.
func (f figures) flat(measured, name string) row {
	return f.ratio(measured, 1, "MB", name+" memory", name+" memory at first", "≤ 1.1")
}

// residentMemory returns the physical memory of a process in bytes. A process that has
// ended, but was not waited for yet, has none.
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
