package eventstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// A SyncFunc makes a file durable by calling sync, which is fdatasync for the
// files of the log and fsync for all others and for directories.
type SyncFunc func(path string, sync func() error) error

// errStopped is returned to those that wait at the barrier when the server is
// shut down, and to those that come later.
var errStopped = errors.New("the embedded log is shut down")

// A barrier stands between the embedded server's acknowledgement and ours. The
// server writes a message to the newest block file before it acknowledges it and
// does not sync; the barrier does, once for everybody who waits when a sync
// begins. One goroutine, run, syncs one group after the other.
type barrier struct {
	blocks  blockFiles
	observe func(group int, took time.Duration) // may be nil
	failure *failure

	wake chan struct{} // holds one element when there may be a group to sync
	stop chan struct{}
	done chan struct{} // closed when run has returned

	covered atomic.Uint64 // the events up to this position are on disk
	mu      sync.Mutex
	syncing *group // the one whose sync is under way
	waiting *group // the one whose sync comes next
}

// A group is everybody who is released by one sync.
type group struct {
	position uint64 // the highest that was in the files when the sync began
	size     int
	synced   chan struct{} // closed when it is on disk
}

// newBarrier starts a barrier over the stream's block files. The events up to a
// position are on disk already.
func newBarrier(blocks blockFiles, covered uint64, failure *failure, observe func(int, time.Duration)) *barrier {
	b := &barrier{
		blocks: blocks, failure: failure, observe: observe,
		wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
	b.covered.Store(covered)
	go b.run()
	return b
}

// close ends the barrier: who waits gets errStopped. It returns when a sync that
// is under way has ended.
func (b *barrier) close() {
	close(b.stop)
	<-b.done
}

// wait returns when the events up to a position are on disk; the server must
// have shown the caller that position. It is released by the first sync that
// began after the event was written: one that was begun for that position or a
// later one, or the next. Where they are on disk already, it does not wait.
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
		return errStopped
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

// release syncs for those that wait now. It returns false when nobody did, and
// when a sync has failed: no other is tried, because the system may call the
// next one a success for pages that it has dropped.
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
		b.failure.set(fmt.Errorf("the log cannot be made durable: %w", err))
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

// A failure is the first one after which nothing can be promised any more.
type failure struct {
	happened chan struct{} // closed when it has happened
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

// get returns the failure, nil while there was none.
func (f *failure) get() error {
	select {
	case <-f.happened:
		return f.err
	default:
		return nil
	}
}

// blockFiles are the files <n>.blk to which the server appends a stream's
// messages; it goes on in <n+1>.blk when <n>.blk is full. It never changes a
// full one, because the log deletes nothing and is not compressed.
type blockFiles struct {
	dir    string
	syncIt SyncFunc
	newest *os.File
	index  int
}

// openBlockFiles opens the newest of a stream's block files.
func openBlockFiles(dir string, syncIt SyncFunc) (blockFiles, error) {
	b := blockFiles{dir: dir, syncIt: syncIt}
	indices, err := blockIndices(dir)
	if err != nil {
		return b, err
	}
	if len(indices) == 0 {
		return b, fmt.Errorf("%s has no block file", dir)
	}
	b.index = indices[len(indices)-1]
	b.newest, err = os.Open(blockPath(dir, b.index))
	return b, err
}

// sync makes everything durable that was in the files when it was called.
func (b *blockFiles) sync() error {
	for {
		// Whatever was written before this look is in the newest file, unless the
		// look finds the next one.
		next, err := os.Open(blockPath(b.dir, b.index+1))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		full := err == nil
		err = b.syncNewest()
		if !full {
			return err
		}
		if err == nil {
			err = syncPath(b.dir, b.syncIt) // the next one's name
		}
		if err != nil {
			_ = next.Close()
			return err
		}
		_ = b.newest.Close() // only ever read
		b.newest, b.index = next, b.index+1
	}
}

func (b *blockFiles) syncNewest() error {
	err := b.syncIt(b.newest.Name(), func() error { return datasync(b.newest) })
	if err != nil {
		return err
	}
	if links, err := linkCount(b.newest); err != nil || links == 0 {
		return errors.Join(fmt.Errorf("%s was removed or replaced", b.newest.Name()), err)
	}
	return nil
}

func (b *blockFiles) close() { _ = b.newest.Close() }
