package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"chatsessions/eventstore"
	"chatsessions/eventstore/blocks"

	"github.com/nats-io/nats-server/v2/server"
)

// A Salvaged is the result of a salvage.
type Salvaged struct {
	blocks.Summary
	// Lost are the positions that the copy does not have.
	Lost []blocks.Range
	// NewIdentity: the description of the log was damaged, so the copy is another log for its
	// readers.
	NewIdentity bool
}

// Salvage copies the sound records of a stopped log to a new store directory, where a server
// can serve them. It reports each damage, and does not change the original. The lost
// positions are not given out again.
func Salvage(ctx context.Context, storeDir, to string, damaged func(error), progress func(done, all int64)) (r Salvaged, err error) {
	stored, found, unlock, err := lockAndOpen(ctx, storeDir, damaged, func(int64, int64) {})
	if err != nil {
		return r, err
	}
	defer unlock()
	if stored.Info.Created.IsZero() { // its description is damaged
		r.NewIdentity = true
		if stored.Info, err = NewInfo(); err != nil {
			return r, err
		}
	}
	if found.Records == 0 {
		return r, errors.New("there is no sound record")
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return r, err
	}
	if err := os.Mkdir(to, 0o700); err != nil {
		return r, err
	}
	msgs := blocks.MessagesDir(to, stored.Stream)
	if err := os.MkdirAll(msgs, 0o700); err != nil {
		return r, err
	}
	known := blocks.Range{From: found.First, To: found.Last}
	if d := stored.Durable; d != nil {
		known = blocks.Range{From: d.First, To: max(d.Position, found.Last)}
	}
	done, all := int64(0), stored.size()
	r.Summary, r.Lost, err = stored.Salvage(ctx, msgs, known, func(bytes int64) {
		done += bytes
		progress(done, all)
	})
	if err != nil {
		return r, err
	}
	return r, WriteStored(to, stored.Info, Durable{known.From, known.To}, r.Lost)
}

// NewInfo describes a new log as the server does.
func NewInfo() (info server.FileStreamInfo, err error) {
	content, err := json.Marshal(eventstore.StreamConfig(1))
	if err == nil {
		err = json.Unmarshal(content, &info.StreamConfig)
	}
	info.Created = time.Now().UTC()
	return info, err
}

// WriteStored completes a store directory that has its block files, and makes it durable.
func WriteStored(storeDir string, info server.FileStreamInfo, durable Durable, lost []blocks.Range) error {
	info.Replicas = 1
	description, err := json.Marshal(info)
	if err != nil {
		return err
	}
	stream := blocks.StreamDir(storeDir, eventstore.StreamName)
	files := map[string][]byte{
		filepath.Join(stream, server.JetStreamMetaFile):    description,
		filepath.Join(stream, server.JetStreamMetaFileSum): []byte(infoSum(description)),
	}
	if len(lost) > 0 {
		if files[filepath.Join(storeDir, lostFile)], err = json.Marshal(lost); err != nil {
			return err
		}
	}
	for path, content := range files {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return err
		}
	}
	note, err := openDurableNote(storeDir, justSync, durable)
	if err != nil {
		return err
	}
	return errors.Join(note.file.Close(), syncTree(storeDir, justSync))
}

// lockStored keeps servers away from the store directory of a stopped log until the returned
// file is closed. It returns ErrInUse if one is running, and nil for a directory that never
// had one.
func lockStored(storeDir string) (*os.File, error) {
	f, err := os.Open(filepath.Join(storeDir, lockFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return f, flock(f, syscall.LOCK_SH)
}
