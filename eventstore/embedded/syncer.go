package eventstore

import (
	"context"
	"fmt"
	"os"
)

// A Syncer is a barrier of its own for the log of an embedded server that runs in
// another process of this machine. That server acknowledges, and shows, what may not be
// on disk yet, and only its own process knows when it is. So a reader from outside has
// the files synced himself before he shows anything: Durable is for Options.Durable.
type Syncer struct{ barrier *barrier }

// NewSyncer returns a Syncer for the embedded server's store directory.
func NewSyncer(storeDir string) (*Syncer, error) {
	return newSyncer(storeDir, func(_ string, sync func() error) error { return sync() })
}

func newSyncer(storeDir string, sync SyncFunc) (*Syncer, error) {
	dir := streamDir(storeDir, StreamName)
	indices, err := blockIndices(dir)
	if err != nil {
		return nil, fmt.Errorf("files of the log: %w", err)
	}
	if len(indices) == 0 {
		return nil, fmt.Errorf("files of the log: %s has no block file", dir)
	}
	// The server may have gone on to the newest file before the sync of the one before.
	b := blockFiles{dir: dir, syncIt: sync, index: indices[max(0, len(indices)-2)]}
	if b.newest, err = os.Open(blockPath(dir, b.index)); err != nil {
		return nil, fmt.Errorf("files of the log: %w", err)
	}
	return &Syncer{newBarrier(b, 0, newFailure(), nil)}, nil
}

// Durable returns when the events up to a position, which the server has shown, are on
// disk. After a failed sync it returns an error, for good.
func (s *Syncer) Durable(ctx context.Context, position uint64) error {
	return s.barrier.wait(ctx, position)
}

// Close ends the Syncer; who waits gets an error.
func (s *Syncer) Close() { s.barrier.close() }
