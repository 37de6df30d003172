package embedded

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"chatsessions/eventstore"
	"chatsessions/eventstore/blocks"
)

// blockFiles are the files <n>.blk to which the server appends a stream's messages. When
// <n>.blk is full, it continues in <n+1>.blk. It never changes a full file, because the log
// deletes nothing and is not compressed.
type blockFiles struct {
	dir      string
	syncFile SyncFunc
	newest   *os.File
	index    int
}

// openBlockFiles opens the last but one of the log's block files: the server may have begun
// the newest before that one was synced.
func openBlockFiles(storeDir string, syncFile SyncFunc) (blockFiles, error) {
	b := blockFiles{dir: messagesDir(storeDir), syncFile: syncFile}
	files, err := blocks.Files(b.dir)
	if err != nil {
		return b, err
	}
	if len(files) == 0 {
		return b, fmt.Errorf("%s has no block file", b.dir)
	}
	first := files[len(files)-1]
	if n := len(files); n > 1 && files[n-2].Number+1 == first.Number { // after a salvage, numbers may be missing
		first = files[n-2]
	}
	b.index = first.Number
	b.newest, err = os.Open(first.Path)
	return b, err
}

// sync makes durable what was in the files when it was called.
func (b *blockFiles) sync() error {
	for {
		// All that was written before this line is in the newest file, unless the next file
		// exists.
		next, err := os.Open(blocks.Path(b.dir, b.index+1))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		full := err == nil
		err = b.syncNewest()
		if !full {
			return err
		}
		if err == nil {
			err = syncPath(b.dir, b.syncFile) // the next one's name
		}
		if err != nil {
			_ = next.Close()
			return err
		}
		_ = b.newest.Close() // it was only read
		b.newest, b.index = next, b.index+1
	}
}

func (b *blockFiles) syncNewest() error {
	err := b.syncFile(b.newest.Name(), func() error { return datasync(b.newest) })
	if err != nil {
		return err
	}
	if links, err := linkCount(b.newest); err != nil || links == 0 {
		return errors.Join(fmt.Errorf("%s was removed or replaced", b.newest.Name()), err)
	}
	return nil
}

func (b *blockFiles) close() { _ = b.newest.Close() }

// messagesDir returns the directory in which the server keeps the block files of the log.
func messagesDir(storeDir string) string {
	return blocks.MessagesDir(storeDir, eventstore.StreamName)
}

// linkCount returns the number of names of an open file: 0 after it was removed.
func linkCount(f *os.File) (uint64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return uint64(info.Sys().(*syscall.Stat_t).Nlink), nil //nolint:unconvert // another type on other systems
}
