package rig

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chatsessions/deploy/loopback"
)

// Patience bounds every wait for an expected state.
const Patience = 30 * time.Second

// Eventually tries until it succeeds.
func Eventually(t *testing.T, try func() error) {
	t.Helper()
	deadline := time.Now().Add(Patience)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %s: %v", Patience, err)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// AtOnce calls a function with 0 to n-1, all at the same time, and fails the test with
// the first few errors.
func AtOnce(t *testing.T, n int, call func(i int) error) {
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

// A Tally counts requests: answered, refused, and repeated after a refusal.
type Tally struct {
	Answered, Refused, again atomic.Int64

	reasons sync.Map // one refusal for each kind of request
}

// Send sends a request that may be answered with a 200 or refused with a 503.
func (y *Tally) Send(c *Client, method, path, body string) (Answer, error) {
	a, err := c.Do(method, path, body)
	switch {
	case err != nil:
		return a, fmt.Errorf("%s %s: %w", method, path, err)
	case a.Status == 200:
		y.Answered.Add(1)
	case a.Status == 503 && a.Header.Get("Retry-After") != "":
		y.Refused.Add(1)
		kind, _, _ := strings.Cut(path, "?")
		y.reasons.LoadOrStore(method+strings.Repeat(" …/", strings.Count(kind, "/")), string(a.Body))
	default:
		return a, fmt.Errorf("%s %s %s: %d %s", method, path, body, a.Status, a.Body)
	}
	return a, nil
}

// Read sends a GET, and repeats it while it is refused: an overloaded machine refuses some.
func (y *Tally) Read(c *Client, path string) (Answer, error) {
	for deadline := time.Now().Add(Patience); ; {
		a, err := y.Send(c, "GET", path, "")
		if err != nil || a.Status == 200 {
			return a, err
		}
		if time.Now().After(deadline) {
			return a, fmt.Errorf("GET %s is refused for %s: %s", path, Patience, a.Body)
		}
		y.Refused.Add(-1)
		y.again.Add(1)
		<-time.After(100 * time.Millisecond)
	}
}

// Check fails the test if more than one request in twenty was refused.
func (y *Tally) Check(t *testing.T) {
	t.Helper()
	answered, refused := y.Answered.Load(), y.Refused.Load()
	t.Logf("%d answered, %d refused with a 503, %d asked again for that", answered, refused, y.again.Load())
	if refused*20 > answered {
		t.Errorf("%d of %d requests were refused with a 503", refused, refused+answered)
		y.reasons.Range(func(kind, told any) bool {
			t.Logf("%s: %s", kind, told)
			return true
		})
	}
}

// FreePort returns an unused port of the loopback interface.
func FreePort(t *testing.T) string {
	t.Helper()
	port, err := loopback.Port()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(port)
}
