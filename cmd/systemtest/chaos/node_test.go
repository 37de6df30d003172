package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"chatsessions/cmd/systemtest/rig"
)

// A node is a service that is killed, paused and starved, and started again by
// whoever did it, as a supervisor would.
type node struct {
	*rig.Service
	name    string
	clients *link         // by which the load reaches it
	clock   time.Duration // how far its clock is off
	unsync  string        // while this file exists, its disk does not sync
	// mayRefuse says that a start may fail while something else is away.
	mayRefuse bool
}

// startNode starts a service of the build with faults and the link to it.
func startNode(t *testing.T, name string, args ...string) *node {
	t.Helper()
	n := &node{
		Service: &rig.Service{T: t, Binary: rig.Build(t, "-tags", "faults"), Args: append([]string{"serve", "--dev", "--listen", "127.0.0.1:0"}, args...)},
		name:    name, clients: startLink(t), unsync: filepath.Join(t.TempDir(), "unsync"),
	}
	t.Cleanup(func() {
		if n.Exited == nil {
			return
		}
		if status := n.Stop(); status != 0 {
			t.Errorf("%s, asked to stop, ended with exit status %d", name, status)
		}
		n.CheckSound()
		if t.Failed() {
			log := n.Errors.String()
			t.Logf("the end of %s's log:\n%s", name, log[max(0, len(log)-8000):])
		}
	})
	if err := n.up(t.Context()); err != nil {
		t.Fatal(err)
	}
	return n
}

// startsWithin bounds how long a node may take to get ready.
const startsWithin = time.Minute

// up starts the node and returns when it serves its clients.
func (n *node) up(ctx context.Context) error {
	// A round that ends does not leave a node half started.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startsWithin)
	defer cancel()
	for {
		if err := n.launch(); err != nil {
			return err
		}
		err := n.AwaitReady()
		if err == nil {
			address := strings.TrimPrefix(n.URL, "http://")
			n.clients.target.Store(&address)
			return nil
		}
		if !n.mayRefuse || !sleep(ctx, 200*time.Millisecond) {
			return fmt.Errorf("%s does not start: %w", n.name, err)
		}
	}
}

func (n *node) launch() error {
	n.Env = []string{
		"CHATSESSIONS_FAULT_SYNC=fail:" + n.unsync,
		"CHATSESSIONS_FAULT_SYNC_TAKES=3ms",
		"CHATSESSIONS_FAULT_CLOCK=" + n.clock.String(),
	}
	return n.Begin()
}

// down ends the node and takes the link's target away.
func (n *node) down(signal syscall.Signal) int {
	n.clients.target.Store(nil)
	return n.End(signal)
}

// unexpectedEnd tells of a node that has ended though nobody ended it.
func (n *node) unexpectedEnd() error {
	select {
	case <-n.Exited:
		return fmt.Errorf("%s has ended by itself, exit status %d:\n%s", n.name, n.Cmd.ProcessState.ExitCode(), lastLines(n.Errors.String(), 20))
	default:
		return nil
	}
}

// answers returns nil when the node takes a write and shows it in a list.
func (n *node) answers() error {
	c := &rig.Client{T: n.T, URL: n.URL, Token: "dev-service-healed"}
	a, err := c.Do("POST", "/chat-sessions", `{"participants": ["healed"]}`, "X-Request-Id: "+healedID)
	if err == nil && a.Status == 200 {
		a, err = c.Do("GET", "/chat-sessions?participants=healed&$limit=1", "", "Chat-Sessions-Position: "+a.Header.Get("Chat-Sessions-Position"))
	}
	if err == nil && a.Status == 200 {
		return nil
	}
	return a.Instead(err)
}

// kinds are the faults that any node can have.
func (n *node) kinds() []kind {
	return []kind{
		{"killed", 3, 2 * time.Second, n.inject(func(ctx context.Context, f injection) error {
			n.down(syscall.SIGKILL)
			sleep(ctx, f.hold)
			return n.up(ctx)
		})},
		{"killed while it starts", 1, time.Second, n.inject(func(ctx context.Context, f injection) error {
			n.down(syscall.SIGKILL)
			if err := n.launch(); err != nil {
				return err
			}
			sleep(ctx, f.hold)
			n.down(syscall.SIGKILL)
			return n.up(ctx)
		})},
		{"stopped in good order", 1, time.Second, n.inject(func(ctx context.Context, f injection) error {
			if status := n.down(syscall.SIGTERM); status != 0 {
				return fmt.Errorf("exit status %d:\n%s", status, lastLines(n.Errors.String(), 20))
			}
			sleep(ctx, f.hold)
			return n.up(ctx)
		})},
		{"paused", 4, 7 * time.Second, n.inject(func(ctx context.Context, f injection) error {
			if err := n.Cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				return err
			}
			sleep(ctx, f.hold)
			return n.Cmd.Process.Signal(syscall.SIGCONT)
		})},
		{"clock off", 2, shortestHold, n.inject(func(ctx context.Context, f injection) error {
			offsets := []time.Duration{0, time.Second, 7 * time.Second, 10 * time.Minute, 3 * time.Hour}
			n.clock = offsets[f.choice%uint64(len(offsets))]
			if f.choice%2 == 0 {
				n.clock = -n.clock
			}
			n.down(syscall.SIGKILL)
			return n.up(ctx)
		})},
	}
}

// inject finds out first whether the node has ended by itself since the last fault.
func (n *node) inject(do func(ctx context.Context, f injection) error) func(ctx context.Context, f injection) error {
	return func(ctx context.Context, f injection) error {
		return errors.Join(n.unexpectedEnd(), do(ctx, f))
	}
}

// dies waits for a node that met a write error: it has to end by itself, and not
// with status 0.
func (n *node) dies(within time.Duration) error {
	defer n.clients.target.Store(nil)
	select {
	case <-n.Exited:
	case <-time.After(within):
		n.down(syscall.SIGKILL)
		return fmt.Errorf("%s met a write error and has not ended %s later", n.name, within)
	}
	if status := n.Cmd.ProcessState.ExitCode(); status == 0 {
		return fmt.Errorf("%s met a write error and ended with exit status 0", n.name)
	}
	return nil
}

// failSyncs makes every sync of the node fail until the function that it returns is
// called.
func (n *node) failSyncs() (again func(), err error) {
	if err := os.WriteFile(n.unsync, nil, 0o600); err != nil {
		return nil, err
	}
	return func() { _ = os.Remove(n.unsync) }, nil
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
