package embedded

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"chatsessions/eventstore"
	"chatsessions/eventstore/blocks"
	"chatsessions/eventstore/envelope"

	"github.com/minio/highwayhash"
	"github.com/nats-io/nats-server/v2/server"
)

// asideDir in the store directory holds what was after the log's end when it was found.
const asideDir = "set-aside"

// ErrNoLog is returned for a store directory that holds no log.
var ErrNoLog = errors.New("there is no log in the store directory")

// A DamageError is returned for a log that does not hold what was on disk. Nothing was
// changed.
type DamageError struct{ Err error } // often a *blocks.Damage

func (e *DamageError) Error() string { return "the log is damaged: " + e.Err.Error() }
func (e *DamageError) Unwrap() error { return e.Err }

// A CutError names the place where a log ends before its files do, after the durable position.
// What follows is what a power cut may leave. The next start sets it aside.
type CutError struct{ Damage *blocks.Damage }

func (e *CutError) Error() string {
	return "the log ends before its files do, and what follows is not known to have been on disk: " + e.Damage.Error()
}

// A Stored is the log in a store directory, as it was found without a server.
type Stored struct {
	blocks.Log
	Info server.FileStreamInfo
	// Durable is what is known to be on disk. It is nil if an older version wrote the log.
	Durable *Durable
	// Clean: the last run ended in order, with everything on disk.
	Clean bool

	dir string
}

// FindStored reads the description of the log in a store directory. It returns ErrNoLog, and
// a DamageError if the description is damaged or parts are missing.
func FindStored(storeDir string) (*Stored, error) {
	s := &Stored{dir: storeDir, Log: blocks.Log{Stream: eventstore.StreamName, Prefix: envelope.SubjectPrefix}}
	var err error
	if s.Durable, err = readDurable(storeDir); err != nil {
		return nil, err
	}
	if s.Files, err = blocks.Files(messagesDir(storeDir)); err != nil {
		return nil, err
	}
	if s.Lost, err = readLost(storeDir); err != nil {
		return nil, err
	}
	_, err = os.Stat(filepath.Join(storeDir, cleanFile))
	s.Clean = err == nil
	err = s.readInfo(blocks.StreamDir(storeDir, eventstore.StreamName))
	switch {
	case err == nil:
		return s, nil
	case s.Durable == nil && s.size() == 0: // it was cut before anything was written
		return nil, ErrNoLog
	}
	return s, &DamageError{err}
}

// size returns the size of the block files in bytes.
func (s *Stored) size() (all int64) {
	for _, f := range s.Files {
		all += f.Size
	}
	return all
}

// readInfo reads the server's description of the stream. The server ignores a stream whose
// description is damaged.
func (s *Stored) readInfo(dir string) error {
	path := filepath.Join(dir, server.JetStreamMetaFile)
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	sum, err := os.ReadFile(filepath.Join(dir, server.JetStreamMetaFileSum))
	if err != nil {
		return err
	}
	if infoSum(content) != string(sum) {
		return fmt.Errorf("%s: the checksum does not match", path)
	}
	if err := json.Unmarshal(content, &s.Info); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// infoSum returns the server's checksum of a stream's description.
func infoSum(content []byte) string {
	key := sha256.Sum256([]byte(eventstore.StreamName))
	h, err := highwayhash.NewDigest64(key[:])
	if err != nil {
		panic(err) // the key has the right length
	}
	_, _ = h.Write(content)
	return hex.EncodeToString(h.Sum(nil))
}

// check reads all records of some files. It returns a DamageError for a damage at or before
// the durable position. A damage after it, where a power cut may have left anything, is
// returned as cut: the log ends there.
//
// Without a known position, a damage counts as a cut only if no sound record follows.
func (s *Stored) check(ctx context.Context, files []blocks.File, progress func(blocks.File)) (found blocks.Summary, cut *blocks.Damage, err error) {
	part := s.Log
	part.Files = files
	number := -1
	found, err = part.Scan(ctx, func(r blocks.Record) error {
		if r.File.Number != number {
			number = r.File.Number
			progress(r.File)
		}
		return nil
	}, func(d *blocks.Damage) error {
		if s.isDamage(d) {
			return &DamageError{d}
		}
		cut = d
		return errCut
	})
	if err != nil && !errors.Is(err, errCut) {
		return found, nil, err
	}
	return found, cut, nil
}

// isDamage reports whether the log does not end before a place that is not sound.
func (s *Stored) isDamage(d *blocks.Damage) bool {
	switch {
	case s.Clean: // all of it was synced
		return true
	case s.Durable == nil:
		return d.To != 0
	}
	return d.From <= s.Durable.Position
}

// errCut ends a scan at the place where the log ends.
var errCut = errors.New("the log is cut here")

// checkAll reads the whole log, and compares its ends with what is known to be on disk. It
// returns the position of the first record.
func (s *Stored) checkAll(ctx context.Context, progress func(blocks.File)) (first uint64, cut *blocks.Damage, err error) {
	found, cut, err := s.check(ctx, s.Files, progress)
	if err != nil {
		return 0, nil, err
	}
	return found.First, cut, errors.Join(s.compareFirst(found.First), s.compareLast(found.Last))
}

// checkNewest reads the newest file of a log whose last run ended in order, and returns the
// position of its first record. The others are for checkOlder.
func (s *Stored) checkNewest(ctx context.Context) (first uint64, err error) {
	newest := s.Files[max(0, len(s.Files)-1):]
	found, cut, err := s.check(ctx, newest, func(blocks.File) {})
	switch {
	case err != nil:
		return 0, err
	case cut != nil:
		return 0, &DamageError{cut}
	case len(s.Files) == 1:
		err = s.compareFirst(found.First)
	}
	return found.First, errors.Join(err, s.compareLast(found.Last))
}

// checkOlder reads the files before the newest one, which begins with a position.
func (s *Stored) checkOlder(ctx context.Context, newest uint64, progress func(blocks.File)) error {
	older := s.Files[:max(0, len(s.Files)-1)]
	if len(older) == 0 {
		return nil
	}
	found, cut, err := s.check(ctx, older, progress)
	switch {
	case err != nil:
		return err
	case cut != nil:
		return &DamageError{cut}
	case newest != 0 && s.Next(found.Last) != newest && !s.IsLost(newest):
		last := s.Files[len(s.Files)-1]
		return &DamageError{&blocks.Damage{
			File: last, From: found.Last + 1, To: newest - 1, Err: fmt.Errorf("position %d comes after position %d", newest, found.Last),
		}}
	}
	return s.compareFirst(found.First)
}

func (s *Stored) compareFirst(first uint64) error {
	if s.Durable == nil || first == 0 || first == s.Next(s.Durable.First-1) {
		return nil
	}
	return &DamageError{&blocks.Damage{
		File: s.Files[0], From: s.Durable.First, To: first - 1, Err: fmt.Errorf("the log begins with position %d", first),
	}}
}

func (s *Stored) compareLast(last uint64) error {
	if s.Durable == nil || last >= s.Durable.Position {
		return nil
	}
	d := &blocks.Damage{From: last + 1, Err: fmt.Errorf("the log ends, and position %d was on disk", s.Durable.Position)}
	if n := len(s.Files); n > 0 {
		d.File, d.Offset = s.Files[n-1], s.Files[n-1].Size
	} else {
		d.File.Path = blocks.MessagesDir(s.dir, s.Stream)
	}
	return &DamageError{d}
}

// setAside moves everything from a damage to the log's end into a directory of its own, and
// returns that directory. It copies before it cuts, so that a crash loses nothing.
func (s *Stored) setAside(cut *blocks.Damage, syncFile SyncFunc) (string, error) {
	aside := filepath.Join(s.dir, asideDir, time.Now().UTC().Format("20060102T150405.000Z"))
	if err := os.MkdirAll(aside, 0o700); err != nil {
		return "", err
	}
	content, err := os.ReadFile(cut.File.Path)
	if err != nil {
		return "", err
	}
	name := fmt.Sprintf("%s.from-%d", filepath.Base(cut.File.Path), cut.Offset)
	if err := os.WriteFile(filepath.Join(aside, name), content[cut.Offset:], 0o600); err != nil {
		return "", err
	}
	if err := syncTree(aside, syncFile); err != nil {
		return "", err
	}
	for i := len(s.Files) - 1; s.Files[i].Number > cut.File.Number; i-- {
		if err := os.Rename(s.Files[i].Path, filepath.Join(aside, filepath.Base(s.Files[i].Path))); err != nil {
			return "", err
		}
	}
	if err := os.Truncate(cut.File.Path, cut.Offset); err != nil {
		return "", err
	}
	return aside, errors.Join(
		syncPath(cut.File.Path, syncFile), syncPath(filepath.Dir(cut.File.Path), syncFile), syncPath(aside, syncFile))
}
