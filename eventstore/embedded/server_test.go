package embedded

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"chatsessions/domain"
	"chatsessions/eventstore"
	"chatsessions/eventstore/blocks"

	"github.com/google/uuid"
)

// TestCriticalWriteErrors: the server says in its log only that it cannot write.
func TestCriticalWriteErrors(t *testing.T) {
	for _, format := range []string{
		"Filestore [CHAT_SESSIONS] Critical write error: %v",             // filestore.go, setWriteErr
		"JetStream stream '$G > CHAT_SESSIONS' critical write error: %v", // stream.go, setWriteErrLocked
	} {
		l := &serverLog{logger: slog.New(slog.NewTextHandler(io.Discard, nil)), failure: newFailure()}
		l.Errorf("something else: %v", "critical write error")
		if l.failure.get() != nil {
			t.Error("failed for something else")
		}
		l.Errorf(format, "no space left on device")
		if l.failure.get() == nil {
			t.Errorf("%s is not taken for a failure", format)
		}
	}
}

// recorded notes what is synced.
type recorded struct {
	mu    sync.Mutex
	paths []string
}

func (r *recorded) sync(path string, sync func() error) error {
	err := sync()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.paths = append(r.paths, path)
	return err
}

func (r *recorded) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	paths := r.paths
	r.paths = nil
	return paths
}

func TestStartSyncsEverythingBeforeItIsServed(t *testing.T) {
	above := t.TempDir()
	dir := filepath.Join(above, "data", "log")
	for run := range 2 {
		var r recorded
		e, l := startLog(t, Options{StoreDir: dir, Sync: r.sync})
		synced := r.take()
		msgs := messagesDir(dir)
		stream := filepath.Dir(msgs)
		for _, path := range []string{
			blocks.Path(msgs, 1), msgs, filepath.Join(stream, "meta.inf"), filepath.Join(stream, "meta.sum"), stream,
			filepath.Dir(stream), filepath.Join(dir, "jetstream", "$G"), filepath.Join(dir, "jetstream"),
			filepath.Join(dir, intentDir), dir, filepath.Dir(dir), above,
		} {
			if !slices.Contains(synced, path) {
				t.Errorf("run %d: %s is not synced", run, path)
			}
		}
		writeNew(t, l, 1)
		if synced := r.take(); len(synced) != 1 || synced[0] != blocks.Path(msgs, 1) {
			t.Errorf("run %d: one write synced %v", run, synced)
		}
		// What is on disk is read without a sync.
		if _, err := l.End(t.Context()); err != nil {
			t.Error(err)
		}
		if synced := r.take(); len(synced) != 0 {
			t.Errorf("run %d: a read synced %v", run, synced)
		}
		e.Shutdown()
		if _, err := os.Stat(filepath.Join(dir, cleanFile)); err != nil {
			t.Errorf("run %d did not end in order: %v", run, err)
		}
	}
}

// TestBlocksRollOver writes several blocks and checks the order of the syncs.
func TestBlocksRollOver(t *testing.T) {
	dir := t.TempDir()
	var r recorded
	_, l := startLog(t, Options{StoreDir: dir, Sync: r.sync})
	r.take()
	msgs := messagesDir(dir)
	var running sync.WaitGroup
	for range 16 {
		running.Go(func() {
			for {
				if indices, err := blocks.Files(msgs); err != nil || len(indices) > 2 {
					return
				}
				writeLarge(t, l)
			}
		})
	}
	running.Wait()
	synced := r.take()
	// Each block any number of times, the directory once, and the next block.
	var order []string
	for _, path := range synced {
		if filepath.Base(path) == durableFile {
			continue
		}
		if len(order) == 0 || order[len(order)-1] != path {
			order = append(order, path)
		}
	}
	want := []string{blocks.Path(msgs, 1), msgs, blocks.Path(msgs, 2), msgs, blocks.Path(msgs, 3)}
	if !slices.Equal(order, want) {
		t.Errorf("synced in the order %v, want %v", order, want)
	}
}

// TestFailedSyncEndsTheWrites: what was under way may have been written, what
// comes later is not, and the next start has a log that is whole.
func TestFailedSyncEndsTheWrites(t *testing.T) {
	dir := t.TempDir()
	var broken atomic.Bool
	lost := errors.New("fsync failed")
	e, l := startLog(t, Options{StoreDir: dir, Sync: func(path string, sync func() error) error {
		if broken.Load() {
			return lost
		}
		return sync()
	}})
	before := writeNew(t, l, 1)
	select {
	case <-e.Failed():
		t.Fatal("failed too early")
	default:
	}
	broken.Store(true)
	transact := func(events int) error {
		id := uuid.Must(uuid.NewV7()).String()
		_, err := l.Transact(t.Context(), domain.Request{SessionID: id, Actor: "pat"}, newSession(id, events))
		return err
	}
	if err := transact(1); !errors.Is(err, domain.ErrOutcomeUnknown) || !errors.Is(err, lost) {
		t.Errorf("under way: %v", err)
	}
	<-e.Failed()
	broken.Store(false)
	for _, events := range []int{1, 4} {
		if err := transact(events); !errors.Is(err, domain.ErrUnavailable) || errors.Is(err, domain.ErrOutcomeUnknown) || !errors.Is(err, lost) {
			t.Errorf("%d events later: %v", events, err)
		}
	}
	if _, err := l.Load(t.Context(), before.Record.Event.Session.ID); !errors.Is(err, domain.ErrUnavailable) || !errors.Is(err, lost) {
		t.Errorf("load: %v", err)
	}
	if !errors.Is(e.Err(), lost) {
		t.Errorf("the failure is %v", e.Err())
	}
	l.Close()
	e.Shutdown()
	if _, err := os.Stat(filepath.Join(dir, cleanFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the run is said to have ended in order: %v", err)
	}
	_, l = startLog(t, Options{StoreDir: dir})
	if end, err := l.End(t.Context()); err != nil || end != before.Record.Position+1 {
		t.Errorf("the log ends at %d, %v", end, err)
	}
}

// TestFailedIntentWritesNothing: without its intent on disk a write of several
// events does not begin.
func TestFailedIntentWritesNothing(t *testing.T) {
	lost := errors.New("fsync failed")
	var l *eventstore.Log
	e, l := startLog(t, Options{StoreDir: t.TempDir(), Sync: func(path string, sync func() error) error {
		if filepath.Base(filepath.Dir(path)) == intentDir {
			return lost
		}
		return sync()
	}})
	id := uuid.Must(uuid.NewV7()).String()
	_, err := l.Transact(t.Context(), domain.Request{SessionID: id, Actor: "pat"}, newSession(id, 4))
	if !errors.Is(err, domain.ErrUnavailable) || errors.Is(err, domain.ErrOutcomeUnknown) || !errors.Is(err, lost) {
		t.Errorf("%v", err)
	}
	<-e.Failed()
}

func TestADirectoryIsUsedOnce(t *testing.T) {
	dir := t.TempDir()
	options := Options{StoreDir: dir, User: "u", Password: "p"}
	first, err := Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(first.Shutdown)
	if _, err := Start(t.Context(), options); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), dir) {
		t.Errorf("a second server on the directory: %v", err)
	}
	first.Shutdown()
	again, err := Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	again.Shutdown()
}

func TestStartFails(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), Options{StoreDir: file, User: "u", Password: "p"}); err == nil {
		t.Error("started in a file")
	}
	// JetStream's own directory is in the way: the server says so and gives up.
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "jetstream"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Start(t.Context(), Options{StoreDir: dir, User: "u", Password: "p"})
	if err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("started without a store: %v", err)
	}
	if _, err := Start(t.Context(), Options{StoreDir: t.TempDir()}); err == nil {
		t.Error("started without credentials")
	}
}
