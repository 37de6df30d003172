package embedded

import (
	"context"
	"errors"
	"fmt"

	"chatsessions/eventstore"

	"github.com/nats-io/nats.go"
)

// A Syncer is the Durability of a reader of a log whose embedded server runs in another
// process, which alone knows what is on disk. So the reader syncs the files itself before it
// shows anything.
type Syncer struct{ barrier *barrier }

var _ eventstore.Durability = (*Syncer)(nil)

// NewSyncer returns a Syncer for the embedded server's store directory.
func NewSyncer(storeDir string) (*Syncer, error) { return newSyncer(storeDir, justSync) }

func newSyncer(storeDir string, sync SyncFunc) (*Syncer, error) {
	blocks, err := openBlockFiles(storeDir, sync)
	if err != nil {
		return nil, fmt.Errorf("files of the log: %w", err)
	}
	return &Syncer{newBarrier(blocks, 0, newFailure(), nil)}, nil
}

// Settle implements eventstore.Durability.
func (s *Syncer) Settle(ctx context.Context, found eventstore.Recovery) error {
	end, err := found.End(ctx)
	if err != nil {
		return err
	}
	return s.Durable(ctx, end)
}

// Intend implements eventstore.Durability. It returns an error: a Syncer is for readers.
func (s *Syncer) Intend(uint64, []*nats.Msg) (func(uint64), error) {
	return nil, errors.New("the log of another process is only read")
}

// Durable implements eventstore.Durability.
func (s *Syncer) Durable(ctx context.Context, position uint64) error {
	return s.barrier.wait(ctx, position)
}

// Err implements eventstore.Durability.
func (s *Syncer) Err() error { return s.barrier.failure.get() }

// Close ends the Syncer; waiting callers get an error.
func (s *Syncer) Close() { s.barrier.close() }
