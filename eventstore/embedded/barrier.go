package embedded

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// A SyncFunc makes a file durable by calling sync, which is fdatasync for the log's block
// files, and fsync for other files and for directories.
type SyncFunc func(path string, sync func() error) error

func justSync(_ string, sync func() error) error { return sync() }

// errShutDown is returned to those that wait at the barrier when the server is shut down,
// and to those that come later.
var errShutDown = errors.New("the embedded log is shut down")

// A barrier delays our acknowledgement of an event until the event is on disk. The embedded
// server acknowledges a message when it has written it to the newest block file. The barrier
// syncs that file, once for all callers that are waiting when the sync begins.
type barrier struct {
	blocks  blockFiles
	observe func(group int, took time.Duration) // may be nil
	failure *failure

	wake chan struct{} // holds one element when there may be a group to sync
	stop chan struct{}
	done chan struct{} // closed when run has returned

	covered atomic.Uint64 // the events up to this position are on disk
	mu      sync.Mutex
	syncing *group // its sync is running; nil for none
	waiting *group // its sync comes next; nil for none
}

// A group is the callers that one sync releases.
type group struct {
	position uint64 // the highest that was in the files when the sync began
	size     int
	synced   chan struct{} // closed when it is on disk
}

// newBarrier starts a barrier over the stream's block files. The events up to a position are
// on disk already.
func newBarrier(blocks blockFiles, covered uint64, failure *failure, observe func(int, time.Duration)) *barrier {
	b := &barrier{
		blocks: blocks, failure: failure, observe: observe,
		wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
	b.covered.Store(covered)
	go b.run()
	return b
}

// close ends the barrier: waiting callers get errShutDown. It returns when a running sync has
// ended.
func (b *barrier) close() {
	close(b.stop)
	<-b.done
}

// wait returns when the events up to a position are on disk; the server must have shown the
// caller that position. The running sync releases the caller if it began for that position
// or a later one; otherwise the next does.
func (b *barrier) wait(ctx context.Context, position uint64) error {
	if err := b.failure.get(); err != nil {
		return err
	}
	if position <= b.covered.Load() {
		return nil
	}
	b.mu.Lock()
	if position <= b.covered.Load() {
		b.mu.Unlock()
		return nil
	}
	g := b.syncing
	if g == nil || position > g.position {
		if b.waiting == nil {
			b.waiting = &group{synced: make(chan struct{})}
		}
		g = b.waiting
		g.position = max(g.position, position)
	}
	g.size++
	first := g.size == 1
	b.mu.Unlock()
	if first {
		select {
		case b.wake <- struct{}{}:
		default:
		}
	}
	select {
	case <-g.synced:
		return nil
	case <-b.failure.happened:
		return b.failure.get()
	case <-b.stop:
		return errShutDown
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *barrier) run() {
	defer close(b.done)
	defer b.blocks.close()
	for {
		select {
		case <-b.wake:
		case <-b.stop:
			return
		}
		for b.release() {
			select {
			case <-b.stop:
				return
			default:
			}
		}
	}
}

// release syncs for the callers that wait now. It returns false if none did, and after a
// failed sync, which is never repeated: the system may report success for pages that it has
// dropped.
func (b *barrier) release() bool {
	if b.failure.get() != nil {
		return false
	}
	b.mu.Lock()
	g := b.waiting
	b.waiting, b.syncing = nil, g
	b.mu.Unlock()
	if g == nil {
		return false
	}
	began := time.Now()
	err := b.blocks.sync()
	took := time.Since(began)
	if err != nil {
		_ = b.failure.syncFailed(err)
		return false
	}
	b.mu.Lock()
	b.covered.Store(g.position)
	b.syncing = nil
	size := g.size
	b.mu.Unlock()
	close(g.synced)
	if b.observe != nil {
		b.observe(size, took)
	}
	return true
}

// A failure is the first error after which durability cannot be promised any more.
type failure struct {
	happened chan struct{} // closed when the error is set
	once     sync.Once
	err      error
}

func newFailure() *failure { return &failure{happened: make(chan struct{})} }

func (f *failure) set(err error) {
	f.once.Do(func() {
		f.err = err
		close(f.happened)
	})
}

// syncFailed sets and returns the error of a failed sync.
func (f *failure) syncFailed(err error) error {
	err = fmt.Errorf("the log cannot be made durable: %w", err)
	f.set(err)
	return err
}

// get returns the error, nil if there is none.
func (f *failure) get() error {
	select {
	case <-f.happened:
		return f.err
	default:
		return nil
	}
}
