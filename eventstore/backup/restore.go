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
	"slices"
	"time"

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
// exist, or must be empty. It fills a new directory beside it and renames that. The restored
// log has a new identity.
func (a *Archive) RestoreTo(ctx context.Context, storeDir string, progress func(done, all int64)) error {
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
	err = a.each(ctx, progress, func(e Entry, content []byte) error {
		if number := blockNumber(e.Name); number > 0 {
			return os.WriteFile(blocks.Path(msgs, number), content, 0o600)
		}
		return nil
	})
	if err != nil {
		return err
	}
	m, info := a.Manifest, a.Info
	info.Created = time.Now().UTC()
	if err := embedded.WriteStored(temp, info, embedded.Durable{First: m.First, Position: m.Last}, m.Lost); err != nil {
		return err
	}
	if err := os.Rename(temp, storeDir); err != nil {
		return err
	}
	return embedded.SyncDir(filepath.Dir(storeDir))
}

// Restore restores a checked backup to a server without a log. replicas is the number of
// servers that will keep it; 0 is as eventstore.Options. The restored log has a new identity.
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
	// A server that restores a stream with replicas keeps another time of creation than they
	// have (nats-server 2.15). So it restores one copy, which then gets replicas.
	info.Replicas, info.Created = 1, time.Time{}
	content, encoded := io.Pipe()
	go func() { encoded.CloseWithError(a.encode(ctx, encoded, info, progress)) }() // ends with content
	restored, err := upload(ctx, nc, info.StreamConfig, content)
	_ = content.CloseWithError(err) // the encoder gets it
	if err != nil {
		return fmt.Errorf("restoring stream %s: %w", a.Manifest.Stream, err)
	}
	if s, m := restored.State, a.Manifest; s.FirstSeq != m.First || s.LastSeq != m.Last || s.Msgs != m.Events {
		return fmt.Errorf("delete stream %s and try again: the server has restored %d events, positions %d to %d; the backup has %d, %d to %d", m.Stream, s.Msgs, s.FirstSeq, s.LastSeq, m.Events, m.First, m.Last)
	}
	return replicate(ctx, js, a.Manifest.Stream, eventstore.Replicas(nc, replicas))
}

// replicate gives a stream replicas, and returns when they have all of it.
func replicate(ctx context.Context, js jetstream.JetStream, name string, replicas int) error {
	if replicas == 1 {
		return nil
	}
	stream, err := js.Stream(ctx, name)
	if err != nil {
		return err
	}
	config := stream.CachedInfo().Config
	config.Replicas = replicas
	if _, err := js.UpdateStream(ctx, config); err != nil {
		return fmt.Errorf("stream %s is restored to one server; giving it %d: %w", name, replicas, err)
	}
	for {
		// While a leader is elected, there is no answer.
		info, err := stream.Info(ctx)
		if err == nil && info.Cluster != nil && len(info.Cluster.Replicas) == replicas-1 &&
			!slices.ContainsFunc(info.Cluster.Replicas, func(p *jetstream.PeerInfo) bool { return !p.Current }) {
			return nil
		}
		select {
		case <-time.After(replicaPause):
		case <-ctx.Done():
			return fmt.Errorf("stream %s is restored to one server, and its replicas are not complete: %w", name, errors.Join(ctx.Err(), err))
		}
	}
}

// replicaPause is how long replicate waits before it looks again.
const replicaPause = 100 * time.Millisecond

// encode writes the backup as a snapshot of the server.
func (a *Archive) encode(ctx context.Context, w io.Writer, info server.FileStreamInfo, progress func(done, all int64)) error {
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
	err = a.each(ctx, progress, func(e Entry, content []byte) error {
		if blockNumber(e.Name) == 0 {
			return nil
		}
		return add(e.Name, content)
	})
	return errors.Join(err, files.Close(), compressed.Close())
}
