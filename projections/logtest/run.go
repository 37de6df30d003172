package logtest

import (
	"context"
	"errors"
	"testing"

	"chatsessions/deploy/servertest"
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
	servertest.Eventually(t, servertest.Patience, func() error {
		if !condition() {
			return errors.New(what)
		}
		return nil
	})
}
