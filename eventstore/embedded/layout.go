package embedded

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"chatsessions/eventstore"
	"chatsessions/eventstore/envelope"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// layoutDir in the store directory is where checkLayout runs its server.
	layoutDir = "layout"
	// layoutPatience bounds the check if its context has no earlier deadline.
	layoutPatience = 30 * time.Second
	// probeSize and probeLimit: two such messages do not fit into one block of a stream with
	// that limit.
	probeSize, probeLimit = 20_000, 100_000
)

// checkLayout returns an error unless the server writes its streams as the barrier expects:
// an acknowledged message is in its block file, and after a full file comes the one with the
// next number. It uses a server of its own in the directory, and removes both: a server that
// has deleted its only stream cleans up in the background, which may disturb the creation of
// another stream.
func checkLayout(ctx context.Context, dir string) (err error) {
	if err := os.RemoveAll(dir); err != nil { // left by a run that was killed here
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	ctx, cancel := context.WithTimeout(ctx, layoutPatience)
	defer cancel()
	srv, err := runServer(ctx, &server.Options{StoreDir: dir, DontListen: true}, &serverLog{logger: slog.New(slog.DiscardHandler), failure: newFailure()})
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
		Name: eventstore.StreamName, Subjects: []string{envelope.Subject("*")}, Storage: jetstream.FileStorage, MaxBytes: probeLimit,
	})
	if err != nil {
		return err
	}
	blocks := streamDir(dir, eventstore.StreamName)
	for index := 1; index <= 2; index++ {
		message := make([]byte, probeSize)
		_, _ = rand.Read(message) // never fails
		if _, err := js.Publish(ctx, envelope.Subject("layout"), message); err != nil {
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
