package rig

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chatsessions/deploy/servertest"
)

// Patience bounds every wait for an expected state.
const Patience = 30 * time.Second

// Eventually tries until it succeeds.
func Eventually(t *testing.T, try func() error) {
	t.Helper()
	servertest.Eventually(t, Patience, try)
}

// AtOnce calls a function with 0 to n-1 at once, and fails the test with the first errors.
func AtOnce(t *testing.T, n int, call func(i int) error) {
	t.Helper()
	gate, failures := make(chan struct{}), make([]error, n)
	var running sync.WaitGroup
	for i := range n {
		running.Go(func() {
			<-gate
			failures[i] = call(i)
		})
	}
	close(gate)
	running.Wait()
	failures = slices.DeleteFunc(failures, func(err error) bool { return err == nil })
	for _, err := range failures[:min(5, len(failures))] {
		t.Errorf("one of %d of %d failures: %v", len(failures), n, err)
	}
}

// A Tally counts requests that were answered, and those that were refused with a 503.
type Tally struct {
	Answered, Refused atomic.Int64

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

// Check fails the test if more than one request in twenty was refused.
func (y *Tally) Check(t *testing.T) {
	t.Helper()
	answered, refused := y.Answered.Load(), y.Refused.Load()
	t.Logf("%d answered, %d refused with a 503", answered, refused)
	if refused*20 > answered {
		t.Errorf("%d of %d requests were refused with a 503", refused, refused+answered)
		y.reasons.Range(func(kind, reason any) bool {
			t.Logf("%s: %s", kind, reason)
			return true
		})
	}
}
