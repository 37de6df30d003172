package embedded

import (
	"chatsessions/eventstore/blocks"

	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// A disk stands for the syncs of a barrier's block file: each says that it has
// begun and waits to be told how it ends.
type disk struct {
	began chan string
	end   chan error
	syncs atomic.Int64
}

func newDisk() *disk { return &disk{began: make(chan string), end: make(chan error)} }

func (d *disk) sync(path string, _ func() error) error {
	d.syncs.Add(1)
	d.began <- filepath.Base(path)
	return <-d.end
}

// testBarrier is a barrier over one block file; the events up to position 10 are
// on disk.
func testBarrier(t *testing.T, d *disk, observe func(int, time.Duration)) (*barrier, string) {
	t.Helper()
	store := t.TempDir()
	dir := messagesDir(store)
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(blocks.Path(dir, 1), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	blocks, err := openBlockFiles(store, d.sync)
	if err != nil {
		t.Fatal(err)
	}
	return newBarrier(blocks, 10, newFailure(), observe), dir
}

// waiting calls wait in a goroutine of its own and returns when it waits, or has
// returned.
func waiting(ctx context.Context, b *barrier, position uint64) <-chan error {
	size := func() (n int) {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, g := range []*group{b.syncing, b.waiting} {
			if g != nil {
				n += g.size
			}
		}
		return n
	}
	before := size()
	returned := make(chan error, 1)
	go func() { returned <- b.wait(ctx, position) }()
	for size() == before && len(returned) == 0 {
		time.Sleep(10 * time.Microsecond)
	}
	return returned
}

func mustWait(t *testing.T, what string, returned <-chan error) {
	t.Helper()
	select {
	case err := <-returned:
		t.Fatalf("%s: released: %v", what, err)
	default:
	}
}

func mustBeReleased(t *testing.T, what string, returned <-chan error, want error) {
	t.Helper()
	if err := <-returned; !errors.Is(err, want) {
		t.Fatalf("%s: %v, want %v", what, err, want)
	}
}

func TestBarrierReleasesAGroupByASyncThatBeganAfterItsEvents(t *testing.T) {
	d := newDisk()
	var groups []int
	b, _ := testBarrier(t, d, func(group int, _ time.Duration) { groups = append(groups, group) })
	ctx := t.Context()

	if err := b.wait(ctx, 10); err != nil || d.syncs.Load() != 0 {
		t.Fatalf("an event that is on disk: %v, %d syncs", err, d.syncs.Load())
	}
	first := waiting(ctx, b, 12)
	<-d.began
	older := waiting(ctx, b, 11) // was written before 12, so before this sync
	same := waiting(ctx, b, 12)
	var later []<-chan error // may have been written after the sync began
	for position := uint64(13); position < 33; position++ {
		later = append(later, waiting(ctx, b, position))
	}
	mustWait(t, "before the sync has ended", first)
	d.end <- nil
	for _, returned := range []<-chan error{first, older, same} {
		mustBeReleased(t, "by the first sync", returned, nil)
	}
	if <-d.began; d.syncs.Load() != 2 {
		t.Fatal("no second sync")
	}
	for _, returned := range later {
		mustWait(t, "came during the first sync", returned)
	}
	d.end <- nil
	for _, returned := range later {
		mustBeReleased(t, "by the second sync", returned, nil)
	}
	if err := b.wait(ctx, 32); err != nil || d.syncs.Load() != 2 {
		t.Fatalf("an event that was synced: %v, %d syncs", err, d.syncs.Load())
	}
	b.close()
	if !slices.Equal(groups, []int{3, 20}) {
		t.Errorf("groups of %v", groups)
	}
}

func TestBarrierWaitEndsWithItsContext(t *testing.T) {
	d := newDisk()
	b, _ := testBarrier(t, d, nil)
	first := waiting(t.Context(), b, 11)
	<-d.began
	ctx, cancel := context.WithCancel(t.Context())
	gone := waiting(ctx, b, 12)
	cancel()
	mustBeReleased(t, "who gave up", gone, context.Canceled)
	d.end <- nil
	mustBeReleased(t, "who did not", first, nil)
	<-d.began // for the one that is gone
	d.end <- nil
	b.close()
}

func TestBarrierFailsForGood(t *testing.T) {
	d := newDisk()
	b, _ := testBarrier(t, d, nil)
	lost := errors.New("fsync failed")
	first := waiting(t.Context(), b, 11)
	<-d.began
	next := waiting(t.Context(), b, 12)
	d.end <- lost
	mustBeReleased(t, "whose sync failed", first, lost)
	mustBeReleased(t, "who came meanwhile", next, lost)
	<-b.failure.happened
	for _, position := range []uint64{13, 12, 11, 10, 0} {
		if err := b.wait(t.Context(), position); !errors.Is(err, lost) {
			t.Errorf("position %d later: %v", position, err)
		}
	}
	b.close()
	if n := d.syncs.Load(); n != 1 {
		t.Errorf("%d syncs: one that failed was tried again", n)
	}
}

func TestBarrierCloses(t *testing.T) {
	d := newDisk()
	b, _ := testBarrier(t, d, nil)
	first := waiting(t.Context(), b, 11)
	<-d.began
	next := waiting(t.Context(), b, 12)
	closed := make(chan struct{})
	go func() { b.close(); close(closed) }()
	mustBeReleased(t, "while it closes", next, errShutDown)
	d.end <- nil
	<-closed
	if err := <-first; err != nil && !errors.Is(err, errShutDown) {
		t.Errorf("whose sync ended: %v", err)
	}
	if err := b.wait(t.Context(), 13); !errors.Is(err, errShutDown) {
		t.Errorf("later: %v", err)
	}
}

func TestBarrierNoticesThatTheBlockFileIsGone(t *testing.T) {
	d := newDisk()
	b, dir := testBarrier(t, d, nil)
	first := waiting(t.Context(), b, 11)
	<-d.began
	if err := os.Remove(blocks.Path(dir, 1)); err != nil {
		t.Fatal(err)
	}
	d.end <- nil
	if err := <-first; err == nil || b.failure.get() == nil {
		t.Errorf("a file that nobody will find was synced: %v", err)
	}
	b.close()
}

func TestBarrierGoesOnToTheNextBlocks(t *testing.T) {
	d := newDisk()
	b, dir := testBarrier(t, d, nil)
	for _, index := range []int{2, 3} {
		if err := os.WriteFile(blocks.Path(dir, index), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	first := waiting(t.Context(), b, 11)
	name := filepath.Base(dir)
	for _, want := range []string{"1.blk", name, "2.blk", name, "3.blk"} {
		mustWait(t, want, first)
		if got := <-d.began; got != want {
			t.Errorf("synced %s, want %s", got, want)
		}
		d.end <- nil
	}
	mustBeReleased(t, "all blocks", first, nil)
	b.close()
}
