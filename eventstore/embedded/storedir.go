package embedded

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

const (
	// cleanFile in the store directory says that the last run ended in order, with
	// everything on disk.
	cleanFile = "clean"
	// indexFile is the server's summary of a stream. It is neither synced nor checked against
	// the block files beyond the last record.
	indexFile = "index.db"
)

// beginRun removes the note that the last run ended in order. If that run did not, beginRun
// removes the index of the log, so that the server reads all blocks and checks every record:
// after a power cut the index may list messages that are not there, and the server would
// leave a gap for them.
func beginRun(storeDir string, syncFile SyncFunc) error {
	err := os.Remove(filepath.Join(storeDir, cleanFile))
	if errors.Is(err, os.ErrNotExist) {
		err = os.Remove(filepath.Join(messagesDir(storeDir), indexFile))
		if err == nil || errors.Is(err, os.ErrNotExist) {
			return nil
		}
	}
	if err != nil {
		return err
	}
	return syncPath(storeDir, syncFile)
}

// endRun makes the files of a stopped server durable, and notes that the run ended in order.
func endRun(storeDir string, syncFile SyncFunc) error {
	if err := syncTree(storeDir, syncFile); err != nil {
		return err
	}
	path := filepath.Join(storeDir, cleanFile)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	return errors.Join(syncPath(path, syncFile), syncPath(storeDir, syncFile))
}

// syncTree syncs every file and directory from dir down, and the directories above it up to
// the mount point: a new directory is durable only when the one above it is synced.
func syncTree(dir string, syncFile SyncFunc) error {
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && (entry.Type().IsRegular() || entry.IsDir()) {
			err = syncPath(path, syncFile)
		}
		if errors.Is(err, os.ErrNotExist) {
			return nil // the server removes files that it no longer needs
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
		// A directory that we may not read is older than the service.
		if err := syncPath(above, syncFile); err != nil && !errors.Is(err, os.ErrPermission) {
			return err
		}
	}
	return nil
}

// syncPath syncs a file or a directory.
func syncPath(path string, syncFile SyncFunc) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	err = syncFile(path, f.Sync)
	_ = f.Close() // it was only read
	return err
}

func deviceOf(path string) (uint64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return uint64(info.Sys().(*syscall.Stat_t).Dev), nil //nolint:unconvert // another type on other systems
}

// SyncDir makes the names in a directory durable.
func SyncDir(dir string) error { return syncPath(dir, justSync) }
