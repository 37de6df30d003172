package operation

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"chatsessions/cmd/systemtest/rig"
	"chatsessions/deploy/servertest"
	"chatsessions/projections/redistest"
)

// A service that is asked to end while it starts ends with status 0. Before Go's runtime is
// there, the signal ends a process that has done nothing.
func TestATerminationAtAnyMomentOfTheStartIsNoFailure(t *testing.T) {
	servers := rig.StartServers(t)
	for name, flags := range map[string][]string{"embedded": {"--dev"}, "external": servers.Flags()} {
		t.Run(name, func(t *testing.T) {
			before, during := 0, 0
			for _, after := range []int{0, 1, 5, 20, 50, 100, 150, 200, 300, 400, 600, 800} {
				switch endWhileStarting(t, flags, time.Duration(after)*time.Millisecond) {
				case beforeTheStart:
					before++
				case duringTheStart:
					during++
				}
			}
			t.Logf("%d before the start, %d during it", before, during)
		})
	}
}

// A stage is how far a service was when it was asked to end.
type stage int

const (
	beforeTheStart stage = iota
	duringTheStart
	afterTheStart
)

func endWhileStarting(t *testing.T, flags []string, after time.Duration) stage {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	var out, errs servertest.Output
	cmd := exec.Command(rig.Binary, append([]string{"serve", "--listen", "127.0.0.1:0", "--data-dir", dir}, flags...)...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(after)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	_, err := os.Stat(dir)
	nothing := errors.Is(err, fs.ErrNotExist) && out.String()+errs.String() == ""
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case status.Signaled() && status.Signal() == syscall.SIGTERM && nothing:
		return beforeTheStart
	case status.ExitStatus() != 0:
		t.Errorf("after %s: %v\n%s%s", after, cmd.ProcessState, out.String(), errs.String())
	}
	if strings.Contains(out.String(), "ready") {
		return afterTheStart
	}
	return duringTheStart
}

// The moments of the start that take long, each held up by a server that does not answer.
func TestATerminationDuringALongStartIsNoFailure(t *testing.T) {
	servers := rig.StartServers(t)
	for name, prepare := range map[string]func() []string{
		"the log does not answer": func() []string {
			servers.NATS.Pause()
			return servers.Flags()
		},
		"Redis does not answer": func() []string {
			redis := redistest.Start(t, redistest.Config{})
			redis.Pause()
			return []string{"--dev", "--redis-url", redis.URL()}
		},
		"there is no Redis": func() []string {
			return []string{"--dev", "--redis-url", "redis://127.0.0.1:1"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			flags := prepare()
			defer servers.NATS.Resume()
			if stage := endWhileStarting(t, flags, 1500*time.Millisecond); stage == afterTheStart {
				t.Errorf("it was ready")
			}
		})
	}
}

// Whoever reads what a service prints ends. The service serves, and drains when it is asked
// to end.
func TestAServiceOutlivesTheReadersOfItsOutput(t *testing.T) {
	redis := redistest.Start(t, redistest.Config{})
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	address := "127.0.0.1:" + servertest.Port(t)
	s := &rig.Service{T: t, URL: "http://" + address}
	cmd := exec.Command(rig.Binary, "serve", "--dev", "--listen", address, "--data-dir", t.TempDir(), "--redis-url", redis.URL(), "--log-level", "debug")
	cmd.Stdout, cmd.Stderr = write, write
	read.Close() // before the first line
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill() //nolint:errcheck // it has ended, as a rule
	write.Close()
	alice := s.As("account-alice")
	rig.Eventually(t, func() error {
		a, err := alice.Do("POST", "/chat-sessions", `{}`)
		if err == nil && a.Status != 200 {
			err = fmt.Errorf("%d", a.Status)
		}
		return err
	})
	redis.Kill() // there is much to log now
	alice.Expect(503, "GET", "/chat-sessions", "")
	alice.Create(`{}`)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
