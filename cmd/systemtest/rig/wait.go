package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chatsessions/deploy/loopback"
)

// patience bounds every wait for a state that has to come.
const patience = 30 * time.Second

// eventually tries until it succeeds.
func eventually(t *testing.T, try func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %s: %v", patience, err)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// sleep returns false when ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// atOnce calls a function with 0 to n-1, all at the same time, and fails the test
// with the errors, the first few of them.
func atOnce(t *testing.T, n int, call func(i int) error) {
	t.Helper()
	gate := make(chan struct{})
	failures := make(chan error, n)
	var running sync.WaitGroup
	for i := range n {
		running.Go(func() {
			<-gate
			if err := call(i); err != nil {
				failures <- fmt.Errorf("%d: %w", i, err)
			}
		})
	}
	close(gate)
	running.Wait()
	close(failures)
	shown := 0
	for err := range failures {
		if shown++; shown <= 5 {
			t.Error(err)
		}
	}
	if shown > 5 {
		t.Errorf("and %d more", shown-5)
	}
}

// A tally counts the requests that were answered, those that were refused, and those
// that were sent again for that.
type tally struct {
	answered, refused, again atomic.Int64

	reasons sync.Map // what refused requests were told, of each kind of request once
}

// send makes a request that is answered with a 200, or refused with a 503.
func (y *tally) send(c *client, method, path, body string) (answer, error) {
	a, err := c.do(method, path, body)
	switch {
	case err != nil:
		return a, fmt.Errorf("%s %s: %w", method, path, err)
	case a.status == 200:
		y.answered.Add(1)
	case a.status == 503 && a.header.Get("Retry-After") != "":
		y.refused.Add(1)
		kind, _, _ := strings.Cut(path, "?")
		y.reasons.LoadOrStore(method+strings.Repeat(" …/", strings.Count(kind, "/")), string(a.body))
	default:
		return a, fmt.Errorf("%s %s %s: %d %s", method, path, body, a.status, a.body)
	}
	return a, nil
}

// read is send for a GET that is sent again for as long as it is refused: on a machine
// that has too much to do, some are.
func (y *tally) read(c *client, path string) (answer, error) {
	for deadline := time.Now().Add(patience); ; {
		a, err := y.send(c, "GET", path, "")
		if err != nil || a.status == 200 {
			return a, err
		}
		if time.Now().After(deadline) {
			return a, fmt.Errorf("GET %s is refused for %s: %s", path, patience, a.body)
		}
		y.refused.Add(-1)
		y.again.Add(1)
		<-time.After(100 * time.Millisecond)
	}
}

// check fails the test when more than one of twenty was refused.
func (y *tally) check(t *testing.T) {
	t.Helper()
	answered, refused := y.answered.Load(), y.refused.Load()
	t.Logf("%d answered, %d refused with a 503, %d asked again for that", answered, refused, y.again.Load())
	if refused*20 > answered {
		t.Errorf("%d of %d requests were refused with a 503", refused, refused+answered)
		y.reasons.Range(func(kind, told any) bool {
			t.Logf("%s: %s", kind, told)
			return true
		})
	}
}

// freePort is a port of the loopback interface on which nobody listens.
func freePort(t *testing.T) string {
	t.Helper()
	port, err := loopback.Port()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(port)
}
