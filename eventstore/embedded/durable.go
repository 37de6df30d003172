package embedded

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"chatsessions/eventstore/blocks"

	"github.com/google/renameio/v2"
)

const (
	// durableFile in the store directory holds what is known to be on disk.
	durableFile = "durable"
	// lostFile lists the positions that a salvaged log has lost.
	lostFile = "lost.json"
	// slotSize: each of the two slots of the file is in a page of its own, so that a power cut
	// during a write leaves the other.
	slotSize = 4096
	// durablePause is the least time between two syncs of the file.
	durablePause = time.Second
)

// A Durable is a part of the log that is known to be on disk.
type Durable struct{ First, Position uint64 }

// line returns the content of a slot.
func (d Durable) line() []byte {
	text := fmt.Sprintf("durable %d to %d", d.First, d.Position)
	return fmt.Appendf(nil, "%s %08x\n", text, crc32.ChecksumIEEE([]byte(text)))
}

// readDurable returns what is known to be on disk, nil if nothing is.
func readDurable(storeDir string) (*Durable, error) {
	content, err := os.ReadFile(filepath.Join(storeDir, durableFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var newest *Durable
	for slot := range 2 {
		line := content[min(slot*slotSize, len(content)):]
		var d Durable
		if _, err := fmt.Sscanf(string(line[:min(128, len(line))]), "durable %d to %d", &d.First, &d.Position); err != nil {
			continue
		}
		if bytes.HasPrefix(line, d.line()) && (newest == nil || d.Position > newest.Position) {
			newest = &d
		}
	}
	if newest == nil && len(content) > 0 {
		return nil, &DamageError{fmt.Errorf("%s cannot be read", filepath.Join(storeDir, durableFile))}
	}
	return newest, nil
}

// readLost returns the positions that the log is known to have lost.
func readLost(storeDir string) (lost []blocks.Range, err error) {
	content, err := os.ReadFile(filepath.Join(storeDir, lostFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(content, &lost)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(storeDir, lostFile), err)
	}
	return lost, nil
}

// A durableNote keeps the durable position of a running log in its file. It is written after
// the sync that it describes, and synced at most once a second.
type durableNote struct {
	file     *os.File
	syncFile SyncFunc
	first    uint64
	slot     int
	written  uint64
}

// openDurableNote replaces the file by one with both slots.
func openDurableNote(storeDir string, syncFile SyncFunc, known Durable) (*durableNote, error) {
	path := filepath.Join(storeDir, durableFile)
	content := make([]byte, 2*slotSize)
	copy(content, known.line())
	copy(content[slotSize:], known.line())
	if err := renameio.WriteFile(path, content, 0o600, renameio.WithTempDir(storeDir)); err != nil {
		return nil, err
	}
	if err := errors.Join(syncPath(path, syncFile), syncPath(storeDir, syncFile)); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	return &durableNote{file: f, syncFile: syncFile, first: known.First, written: known.Position}, nil
}

// write makes it durable that the log is on disk up to a position.
func (n *durableNote) write(position uint64) error {
	if _, err := n.file.WriteAt(Durable{n.first, position}.line(), int64(n.slot)*slotSize); err != nil {
		return err
	}
	if err := n.syncFile(n.file.Name(), func() error { return datasync(n.file) }); err != nil {
		return err
	}
	n.slot, n.written = 1-n.slot, position
	return nil
}

// follow writes the covered position as it advances, until stop is closed, and then once more.
func (n *durableNote) follow(covered *atomic.Uint64, stop <-chan struct{}, failed func(error)) {
	pause := time.NewTicker(durablePause)
	defer pause.Stop()
	for stopped := false; !stopped; {
		select {
		case <-pause.C:
		case <-stop:
			stopped = true
		}
		if position := covered.Load(); position > n.written {
			if err := n.write(position); err != nil {
				failed(err)
			}
		}
	}
	_ = n.file.Close() // every write was synced
}
