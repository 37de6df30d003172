package logtest

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"time"
)

// A Running is something that runs until it is stopped.
type Running struct {
	stop context.CancelFunc
	done chan struct{}
}

// Start runs something until the test or Running.End ends it.
func Start(t testing.TB, run func(context.Context) error) *Running {
	ctx, cancel := context.WithCancel(context.Background())
	r := &Running{cancel, make(chan struct{})}
	go func() {
		defer close(r.done)
		if err := run(ctx); err != nil {
			t.Errorf("Run returned %v", err)
		}
	}()
	t.Cleanup(r.End)
	return r
}

// End stops it and waits until it has returned.
func (r *Running) End() {
	r.stop()
	<-r.done
}

// Eventually waits for a condition, long enough that only a defect misses it.
func Eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("does not happen: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// A Buffer collects output; it is safe for concurrent use.
type Buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *Buffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *Buffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
