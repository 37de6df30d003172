package backup

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"chatsessions/eventstore"
	"chatsessions/eventstore/blocks"
	"chatsessions/eventstore/embedded"

	"github.com/klauspost/compress/s2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ErrNotEmpty is returned by a restore to a place where a log is.
var ErrNotEmpty = errors.New("there is a log already")

// RestoreTo restores a checked backup to an embedded log's store directory, which must not
// exist, or must hold no log. It fills a new directory beside it and renames that.
func (a *Archive) RestoreTo(storeDir string, progress func(done, all int64)) error {
	switch entries, err := os.ReadDir(storeDir); {
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return err
	case len(entries) > 0:
		return fmt.Errorf("%s: %w", storeDir, ErrNotEmpty)
	}
	if err := os.MkdirAll(filepath.Dir(storeDir), 0o700); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(filepath.Dir(storeDir), "restoring-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(temp) }() // after the rename, there is nothing
	msgs := blocks.MessagesDir(temp, a.Manifest.Stream)
	if err := os.MkdirAll(msgs, 0o700); err != nil {
		return err
	}
	err = a.each(progress, func(e Entry, content []byte) error {
		if number := blockNumber(e.Name); number > 0 {
			return os.WriteFile(blocks.Path(msgs, number), content, 0o600)
		}
		return nil
	})
	if err != nil {
		return err
	}
	m := a.Manifest
	if err := embedded.WriteStored(temp, a.Info, embedded.Durable{First: m.First, Position: m.Last}, m.Lost); err != nil {
		return err
	}
	if err := os.Rename(temp, storeDir); err != nil {
		return err
	}
	return embedded.SyncDir(filepath.Dir(storeDir))
}

// Restore restores a checked backup to a server without a log. replicas is the number of
// servers that will keep it; 0 is as eventstore.Options.
func (a *Archive) Restore(ctx context.Context, nc *nats.Conn, replicas int, progress func(done, all int64)) error {
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	switch _, err := js.Stream(ctx, a.Manifest.Stream); {
	case err == nil:
		return fmt.Errorf("stream %s: %w", a.Manifest.Stream, ErrNotEmpty)
	case !errors.Is(err, jetstream.ErrStreamNotFound):
		return err
	}
	info := a.Info
	info.Replicas = eventstore.Replicas(nc, replicas)
	content, encoded := io.Pipe()
	go func() { encoded.CloseWithError(a.encode(encoded, info, progress)) }() // ends with content
	restored, err := upload(ctx, nc, info.StreamConfig, content)
	_ = content.CloseWithError(err) // the encoder gets it
	if err != nil {
		return fmt.Errorf("restoring stream %s: %w", a.Manifest.Stream, err)
	}
	if s, m := restored.State, a.Manifest; s.FirstSeq != m.First || s.LastSeq != m.Last || s.Msgs != m.Events {
		return fmt.Errorf("the server has restored %d events, positions %d to %d; the backup has %d, %d to %d", s.Msgs, s.FirstSeq, s.LastSeq, m.Events, m.First, m.Last)
	}
	return nil
}

// encode writes the backup as a snapshot of the server.
func (a *Archive) encode(w io.Writer, info server.FileStreamInfo, progress func(done, all int64)) error {
	description, err := json.Marshal(info)
	if err != nil {
		return err
	}
	compressed := s2.NewWriter(w)
	files := tar.NewWriter(compressed)
	add := func(name string, content []byte) error {
		if err := files.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(content)), Typeflag: tar.TypeReg}); err != nil {
			return err
		}
		_, err := files.Write(content)
		return err
	}
	if err := add(infoName, description); err != nil {
		return err
	}
	err = a.each(progress, func(e Entry, content []byte) error {
		if blockNumber(e.Name) == 0 {
			return nil
		}
		return add(e.Name, content)
	})
	return errors.Join(err, files.Close(), compressed.Close())
}
