package backup

import (
	"archive/tar"
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"time"

	"chatsessions/eventstore"
	"chatsessions/eventstore/blocks"
	"chatsessions/eventstore/embedded"
	"chatsessions/eventstore/envelope"

	"github.com/google/renameio/v2"
	"github.com/klauspost/compress/s2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats-server/v2/server/archive"
	"github.com/nats-io/nats.go"
)

// Save saves a log that a server has open. It waits until the last event of the backup is
// durable.
func Save(ctx context.Context, log *eventstore.Log, file string, progress func(bytes int64)) (Manifest, error) {
	return save(file, func(s *saving) error {
		snapshot, err := requestSnapshot(ctx, log.Conn())
		if err != nil {
			return err
		}
		defer snapshot.Close()
		if err := s.describe(server.FileStreamInfo{Created: log.Created(), StreamConfig: snapshot.config}); err != nil {
			return err
		}
		content := bufio.NewReader(s2.NewReader(snapshot))
		addAll := s.addFiles
		if magic, err := content.Peek(len(archive.MagicBytes)); err == nil && string(magic) == archive.MagicBytes {
			addAll = s.addMessages
		}
		if err := addAll(content, progress); err != nil {
			return fmt.Errorf("snapshot: %w", err)
		}
		if err := s.end(); err != nil {
			return err
		}
		return log.Durable(ctx, s.manifest.Last)
	})
}

// SaveStored saves the stopped log in a store directory.
func SaveStored(ctx context.Context, storeDir, file string, progress func(done, all int64)) (Manifest, error) {
	return save(file, func(s *saving) error {
		stored, end, unlock, err := embedded.LockSound(ctx, storeDir)
		if err != nil {
			return err
		}
		defer unlock()
		s.log.Lost, s.upTo = stored.Lost, end
		if err := s.describe(stored.Info); err != nil {
			return err
		}
		var done, all int64
		for _, f := range stored.Files {
			all += f.Size
		}
		for _, f := range stored.Files {
			if err := ctx.Err(); err != nil {
				return err
			}
			content, err := os.ReadFile(f.Path)
			if err != nil {
				return err
			}
			if err := s.add(path.Join(blockDir, filepath.Base(f.Path)), content); err != nil {
				return err
			}
			done += f.Size
			progress(done, all)
		}
		return s.end()
	})
}

// save writes a backup to a new file, which appears under its name when it is complete.
func save(file string, fill func(*saving) error) (Manifest, error) {
	if _, err := os.Lstat(file); err == nil {
		return Manifest{}, fmt.Errorf("%s exists already", file)
	}
	temp, err := renameio.NewPendingFile(file, renameio.WithPermissions(0o600), renameio.WithTempDir(filepath.Dir(file)))
	if err != nil {
		return Manifest{}, err
	}
	defer func() { _ = temp.Cleanup() }()
	s := &saving{writer: newWriter(temp)}
	s.manifest.Made = time.Now().UTC().Truncate(time.Second)
	s.log = blocks.Log{Stream: eventstore.StreamName, Prefix: envelope.SubjectPrefix}
	s.scanner = blocks.Scanner{Log: &s.log, Sound: s.sound, Damaged: s.damaged}
	if err := fill(s); err != nil {
		return Manifest{}, err
	}
	if err := s.close(); err != nil {
		return Manifest{}, err
	}
	if err := temp.CloseAtomicallyReplace(); err != nil {
		return Manifest{}, err
	}
	return s.manifest, embedded.SyncDir(filepath.Dir(file))
}

// A saving is a backup that is being written. Block files are held back from the one in
// which the last write begins, so that the backup does not end with a part of it.
type saving struct {
	*writer
	log     blocks.Log
	scanner blocks.Scanner
	upTo    uint64 // the log ends here; 0 for its last record
	held    []heldFile
	whole   *place // where the last whole write ends
}

type heldFile struct {
	name    string
	content []byte
}

// A place is one in the block files that are held back.
type place struct {
	file             int // number of the block file
	end              int64
	position, events uint64
}

// describe adds the description of the stream.
func (s *saving) describe(info server.FileStreamInfo) error {
	s.manifest.Created = info.Created
	content, err := json.Marshal(info)
	if err != nil {
		return err
	}
	return s.writer.add(infoName, content)
}

// addFiles adds a snapshot in the server's first format: the files of the stream.
func (s *saving) addFiles(content io.Reader, progress func(bytes int64)) error {
	files := tar.NewReader(content)
	for {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		file, err := io.ReadAll(files)
		if err != nil {
			return err
		}
		if blockNumber(h.Name) == 0 { // the description is known, and the index can be built again
			continue
		}
		if err := s.add(h.Name, file); err != nil {
			return err
		}
		progress(s.scanner.Bytes)
	}
}

// blockSize is about the size of the block files that are made of messages, in bytes.
const blockSize = 8 << 20

// addMessages adds a snapshot in the server's second format (since 2.15): the messages of
// the stream, with an empty one at the end.
func (s *saving) addMessages(content io.Reader, progress func(bytes int64)) error {
	messages := archive.NewReader(content)
	block, number := make([]byte, 0, blockSize+1<<20), 1
	var state server.StreamState
	newest := uint64(0) // position of the last message
	for {
		h, err := messages.Next()
		if err != nil { // even io.EOF: the end did not come
			return fmt.Errorf("it is incomplete: %w", err)
		}
		body, err := io.ReadAll(messages)
		if err != nil {
			return err
		}
		last := h.Name == ""
		switch {
		case h.Name == "state.json":
			if err := json.Unmarshal(body, &state); err != nil {
				return fmt.Errorf("state.json: %w", err)
			}
		case last && newest < state.LastSeq: // a salvaged log
			block = s.log.Append(block, number, blocks.Record{Position: state.LastSeq, Removed: true})
		case !last:
			newest = h.Sequence
			r := blocks.Record{Position: h.Sequence, Time: h.Timestamp, Subject: []byte(h.Name), Data: body[h.HeaderSize:]}
			if h.HeaderSize > 0 {
				r.Header = body[:h.HeaderSize]
			}
			block = s.log.Append(block, number, r)
		}
		if len(block) < blockSize && !last {
			continue
		}
		if err := s.add(path.Join(blockDir, strconv.Itoa(number)+".blk"), block); err != nil || last {
			return err
		}
		progress(s.scanner.Bytes)
		block, number = make([]byte, 0, cap(block)), number+1
	}
}

// add adds a block file.
func (s *saving) add(name string, content []byte) error {
	number := blockNumber(name)
	s.held = append(s.held, heldFile{name, content})
	if err := s.scanner.Add(blocks.File{Number: number, Path: name, Size: int64(len(content))}, content); err != nil {
		return err
	}
	if s.whole == nil || s.whole.file != number {
		return nil
	}
	return s.release()
}

// release writes the files before the one in which the last whole write ends.
func (s *saving) release() error {
	last := len(s.held) - 1
	for _, f := range s.held[:last] {
		if err := s.writer.add(f.name, f.content); err != nil {
			return err
		}
	}
	s.held = s.held[last:]
	return nil
}

func (s *saving) sound(r blocks.Record) error {
	if s.upTo > 0 && r.Position > s.upTo {
		return nil
	}
	m := envelope.Message{}
	m.Header, _ = nats.DecodeHeadersMsg(r.Header) // without headers, it is a write of its own
	if !m.WriteContinues() {
		s.whole = &place{file: r.File.Number, end: r.Offset + int64(len(r.Raw)), position: r.Position, events: s.scanner.Records}
	}
	return nil
}

func (s *saving) damaged(d *blocks.Damage) error {
	switch {
	case s.upTo > 0 && d.From > s.upTo:
		return nil
	case d.Gap: // the log does not have these positions; verify reports them
		s.manifest.Lost = append(s.manifest.Lost, blocks.Range{From: d.From, To: d.To})
		return nil
	}
	return &embedded.DamageError{Err: d}
}

// end writes the rest, up to the last whole write.
func (s *saving) end() error {
	if err := s.scanner.End(); err != nil {
		return err
	}
	if s.whole == nil {
		return errors.New("the log is empty, there is nothing to save")
	}
	for _, f := range s.held {
		if number := blockNumber(f.name); number == s.whole.file {
			f.content = f.content[:s.whole.end]
		} else if number > s.whole.file {
			break
		}
		if err := s.writer.add(f.name, f.content); err != nil {
			return err
		}
	}
	s.manifest.First, s.manifest.Last, s.manifest.Events = s.scanner.First, s.whole.position, s.whole.events
	s.manifest.Lost = append(s.log.Lost, s.manifest.Lost...)
	return nil
}
