package backup

import (
	"archive/zip"
	"compress/flate"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"time"

	"chatsessions/eventstore"
	"chatsessions/eventstore/blocks"
	"chatsessions/eventstore/embedded"
	"chatsessions/eventstore/envelope"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	// formatVersion changes when an older version of the service could not read the archive.
	formatVersion = 1
	manifestName  = "manifest.json"
	infoName      = server.JetStreamMetaFile
	blockDir      = "msgs"
)

// A Manifest says what a backup holds. It is a storage format.
type Manifest struct {
	Format  int       `json:"format"`
	Stream  string    `json:"stream"`
	Created time.Time `json:"created"` // of the stream; with its name, the identity of the log
	Made    time.Time `json:"made"`
	First   uint64    `json:"first"` // positions of the first and the last event
	Last    uint64    `json:"last"`
	Events  uint64    `json:"events"`
	// Lost are the positions between them that the log did not have.
	Lost  []blocks.Range `json:"lost,omitempty"`
	Files []Entry        `json:"files"`
}

// An Entry is one file of a backup.
type Entry struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// A writer writes an archive.
type writer struct {
	zip      *zip.Writer
	manifest Manifest
}

func newWriter(w io.Writer) *writer {
	z := zip.NewWriter(w)
	z.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, flate.BestSpeed) })
	return &writer{zip: z, manifest: Manifest{Format: formatVersion, Stream: eventstore.StreamName}}
}

func (w *writer) add(name string, content []byte) error {
	sum := sha256.Sum256(content)
	w.manifest.Files = append(w.manifest.Files, Entry{name, int64(len(content)), hex.EncodeToString(sum[:])})
	return w.write(name, content)
}

func (w *writer) write(name string, content []byte) error {
	f, err := w.zip.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate, Modified: w.manifest.Made})
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return err
}

// close writes the manifest and the end of the archive.
func (w *writer) close() error {
	content, err := json.MarshalIndent(w.manifest, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(w.write(manifestName, append(content, '\n')), w.zip.Close())
}

// An Archive is a backup that is read.
type Archive struct {
	Manifest Manifest
	Info     server.FileStreamInfo
	zip      *zip.ReadCloser
}

// Open opens a backup, and reads its manifest and the description of the stream. Check the
// rest with Check.
func Open(file string) (*Archive, error) {
	z, err := zip.OpenReader(file)
	if errors.Is(err, zip.ErrFormat) {
		return nil, fmt.Errorf("%s is not a backup, or not a complete one", file)
	}
	if err != nil {
		return nil, err
	}
	a := &Archive{zip: z}
	if err := a.open(); err != nil {
		_ = z.Close()
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return a, nil
}

func (a *Archive) open() error {
	content, err := a.read(manifestName)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(content, &a.Manifest); err != nil {
		return fmt.Errorf("%s: %w", manifestName, err)
	}
	if m := a.Manifest; m.Format != formatVersion || m.Stream != eventstore.StreamName {
		return fmt.Errorf("it has format %d and stream %q; format %d and stream %q can be restored", m.Format, m.Stream, formatVersion, eventstore.StreamName)
	}
	if content, err = a.read(infoName); err != nil {
		return err
	}
	if err := json.Unmarshal(content, &a.Info); err != nil {
		return fmt.Errorf("%s: %w", infoName, err)
	}
	return nil
}

// Close closes the backup's file.
func (a *Archive) Close() { _ = a.zip.Close() }

// read returns the content of a file of the archive. The zip reader checks its CRC.
func (a *Archive) read(name string) ([]byte, error) {
	f, err := a.zip.Open(name)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return content, f.Close()
}

// Check reads the whole backup, and compares it with its manifest. It calls progress with
// the bytes that were read, and their total.
func (a *Archive) Check(ctx context.Context, progress func(done, all int64)) error {
	m := a.Manifest
	log := blocks.Log{Stream: m.Stream, Prefix: envelope.SubjectPrefix, Lost: m.Lost}
	s := blocks.Scanner{
		Log:     &log,
		Sound:   func(blocks.Record) error { return nil },
		Damaged: func(d *blocks.Damage) error { return &embedded.DamageError{Err: d} },
	}
	err := a.each(ctx, progress, func(e Entry, content []byte) error {
		if number := blockNumber(e.Name); number > 0 {
			return s.Add(blocks.File{Number: number, Path: e.Name, Size: e.Size}, content)
		}
		return nil
	})
	if err == nil {
		err = s.End()
	}
	if err == nil && (s.First != m.First || s.Last != m.Last || s.Records != m.Events) {
		err = fmt.Errorf("it holds %d events, positions %d to %d, and its manifest says %d, %d to %d", s.Records, s.First, s.Last, m.Events, m.First, m.Last)
	}
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("the backup is damaged: %w", err)
	}
	return err
}

// each reads the files that the manifest names, in their order, and checks their sums.
func (a *Archive) each(ctx context.Context, progress func(done, all int64), use func(Entry, []byte) error) error {
	var done, all int64
	for _, e := range a.Manifest.Files {
		all += e.Size
	}
	for _, e := range a.Manifest.Files {
		if err := ctx.Err(); err != nil {
			return err
		}
		content, err := a.read(e.Name)
		if err != nil {
			return err
		}
		if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != e.SHA256 {
			return fmt.Errorf("%s: the checksum does not match", e.Name)
		}
		if err := use(e, content); err != nil {
			return err
		}
		done += e.Size
		progress(done, all)
	}
	return nil
}

// blockNumber returns the number of a block file by its name in the archive, 0 for another
// file.
func blockNumber(name string) int {
	base, isBlock := strings.CutSuffix(path.Base(name), ".blk")
	number, err := strconv.Atoi(base)
	if !isBlock || err != nil || path.Dir(name) != blockDir {
		return 0
	}
	return number
}
