package eventstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// cleanFile in the store directory says that the last run ended in order, with
	// everything on disk.
	cleanFile = "clean"
	// indexFile is the server's summary of a stream, beside its block files. It is
	// neither synced nor checked against them beyond the last record.
	indexFile = "index.db"
	// layoutDir in the store directory is where checkLayout looks at what a server
	// writes.
	layoutDir = "layout"
	// probeSize and probeLimit: two such messages do not fit into one block of a
	// stream with that limit.
	probeSize, probeLimit = 20_000, 100_000
)

// streamDir is where the server keeps the block files of a stream.
func streamDir(storeDir, stream string) string {
	return filepath.Join(storeDir, "jetstream", "$G", "streams", stream, "msgs")
}

func blockPath(dir string, index int) string {
	return filepath.Join(dir, strconv.Itoa(index)+".blk")
}

// blockIndices lists the numbers of the block files, the lowest first.
func blockIndices(dir string) ([]int, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var indices []int
	for _, e := range entries {
		name, isBlock := strings.CutSuffix(e.Name(), ".blk")
		if !isBlock {
			continue
		}
		index, err := strconv.Atoi(name)
		if err != nil {
			return nil, fmt.Errorf("%s is not a block file as expected", filepath.Join(dir, e.Name()))
		}
		indices = append(indices, index)
	}
	slices.Sort(indices)
	return indices, nil
}

// checkLayout finds out whether the server keeps its streams as the barrier takes
// for granted: a message is in its block file when it is acknowledged, and when
// one is full, the next has the next number. It does so with a server of its own
// in the directory, which it removes: where a server has deleted its only stream,
// it tidies up in the background and may get in the way of who creates another.
func checkLayout(ctx context.Context, dir string) (err error) {
	if err := os.RemoveAll(dir); err != nil { // of a run that was killed here
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	ctx, cancel := withPatience(ctx, openPatience)
	defer cancel()
	srv, err := runServer(ctx, &server.Options{StoreDir: dir, DontListen: true}, &serverLog{logger: orDiscard(nil), failure: newFailure()})
	if err != nil {
		return err
	}
	defer stopServer(srv)
	nc, err := nats.Connect("", nats.InProcessServer(srv))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	_, err = js.CreateStream(ctx, jetstream.StreamConfig{
		Name: StreamName, Subjects: []string{subjectPrefix + "*"}, Storage: jetstream.FileStorage, MaxBytes: probeLimit,
	})
	if err != nil {
		return err
	}
	blocks := streamDir(dir, StreamName)
	for index := 1; index <= 2; index++ {
		message := make([]byte, probeSize)
		_, _ = rand.Read(message) // never fails
		if _, err := js.Publish(ctx, subjectOf("layout"), message); err != nil {
			return err
		}
		content, err := os.ReadFile(blockPath(blocks, index))
		if err != nil {
			return err
		}
		if !bytes.Contains(content, message) {
			return fmt.Errorf("an acknowledged message is not in %s", blockPath(blocks, index))
		}
		if indices, err := blockIndices(blocks); err != nil || len(indices) != index {
			return errors.Join(fmt.Errorf("%s holds blocks %v after %d messages", blocks, indices, index), err)
		}
	}
	return nil
}

// beginRun forgets that the last run ended in order. Where it did not, it removes
// the index of the log, so that the server reads all blocks and checks every
// record: after a power cut the index may speak of messages that are not there,
// and the server would leave a gap for them.
func beginRun(storeDir string, syncIt SyncFunc) error {
	err := os.Remove(filepath.Join(storeDir, cleanFile))
	if errors.Is(err, os.ErrNotExist) {
		err = os.Remove(filepath.Join(streamDir(storeDir, StreamName), indexFile))
		if err == nil || errors.Is(err, os.ErrNotExist) {
			return nil
		}
	}
	if err != nil {
		return err
	}
	return syncPath(storeDir, syncIt)
}

// endRun makes everything durable that the server has left, and notes it.
func endRun(storeDir string, syncIt SyncFunc) error {
	if err := syncTree(storeDir, syncIt); err != nil {
		return err
	}
	path := filepath.Join(storeDir, cleanFile)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	return errors.Join(syncPath(path, syncIt), syncPath(storeDir, syncIt))
}

// syncTree syncs every file and directory from dir down, and the directories
// above it up to where its file system is mounted: a directory that is new is
// only there for good when the one above it is synced.
func syncTree(dir string, syncIt SyncFunc) error {
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && (entry.Type().IsRegular() || entry.IsDir()) {
			err = syncPath(path, syncIt)
		}
		if errors.Is(err, os.ErrNotExist) {
			return nil // the server removes what it no longer needs
		}
		return err
	})
	if err != nil {
		return err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	device, err := deviceOf(dir)
	if err != nil {
		return err
	}
	for above := filepath.Dir(dir); above != dir; dir, above = above, filepath.Dir(above) {
		if d, err := deviceOf(above); err != nil || d != device {
			return err
		}
		// A directory that is not ours to read is older than the service.
		if err := syncPath(above, syncIt); err != nil && !errors.Is(err, os.ErrPermission) {
			return err
		}
	}
	return nil
}

// syncPath syncs a file or a directory.
func syncPath(path string, syncIt SyncFunc) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	err = syncIt(path, f.Sync)
	_ = f.Close() // only ever read
	return err
}

func deviceOf(path string) (uint64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return uint64(info.Sys().(*syscall.Stat_t).Dev), nil //nolint:unconvert // another type on other systems
}

// linkCount is how many names an open file has: none when it was removed.
func linkCount(f *os.File) (uint64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return uint64(info.Sys().(*syscall.Stat_t).Nlink), nil //nolint:unconvert // another type on other systems
}
