package embedded

import (
	"chatsessions/eventstore/blocks"

	"bytes"
	"crypto/rand"
	"os"
	"testing"

	"chatsessions/eventstore"
	"chatsessions/eventstore/envelope"

	"github.com/nats-io/nats.go/jetstream"
)

// TestTheServerWritesItsFilesAsTheBarrierExpects: an acknowledged message is in its block
// file, and after a full file comes the one with the next number. If a new version of the
// server fails this, the barrier must not be used with it.
func TestTheServerWritesItsFilesAsTheBarrierExpects(t *testing.T) {
	o := Options{StoreDir: t.TempDir(), User: "u", Password: "p"}
	e, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Shutdown)
	nc, err := e.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	// Two messages of this size do not fit into one block of a stream with this limit.
	const size, limit = 20_000, 100_000
	_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: eventstore.StreamName, Subjects: []string{envelope.Subject("*")}, Storage: jetstream.FileStorage, MaxBytes: limit,
	})
	if err != nil {
		t.Fatal(err)
	}
	msgs := messagesDir(o.StoreDir)
	for index := 1; index <= 2; index++ {
		message := make([]byte, size)
		_, _ = rand.Read(message) // never fails
		if _, err := js.Publish(t.Context(), envelope.Subject("layout"), message); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(blocks.Path(msgs, index))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(content, message) {
			t.Errorf("an acknowledged message is not in block %d", index)
		}
		if indices, err := blocks.Files(msgs); err != nil || len(indices) != index {
			t.Errorf("blocks %v after %d messages, %v", indices, index, err)
		}
	}
}
