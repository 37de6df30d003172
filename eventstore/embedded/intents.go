package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"chatsessions/eventstore"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
)

// intentDir in the store directory holds one file for each atomic write in flight.
const intentDir = "intents"

// An intentRecord is the content of an intent's file: an atomic write of several events, on
// disk before the server gets it. The server commits an atomic write message by message, and
// a power cut can keep only some of them: the server has deleted its own copy by the time
// that we sync. With the record, the rest is appended at the next start.
type intentRecord struct {
	Subject  string          `json:"subject"`
	After    uint64          `json:"after"` // the subject's newest sequence before the write
	Messages []intentMessage `json:"messages"`
}

type intentMessage struct {
	Header nats.Header `json:"header"`
	Data   []byte      `json:"data"`
}

// intents are the intents of a store directory.
type intents struct {
	dir      string
	syncFile SyncFunc

	mu   sync.Mutex
	kept []*intent // their writes are in the log, and may not be on disk yet
}

func newIntents(storeDir string, syncFile SyncFunc) *intents {
	return &intents{dir: filepath.Join(storeDir, intentDir), syncFile: syncFile}
}

// An intent is one file. It implements eventstore.Intent.
type intent struct {
	of       *intents
	path     string
	position uint64 // of the write's last event, for an intent that is kept
}

// Remove implements eventstore.Intent. A file that stays has no effect but a check at the
// next start.
func (i *intent) Remove() { _ = os.Remove(i.path) }

// Keep implements eventstore.Intent.
func (i *intent) Keep(position uint64) {
	i.of.mu.Lock()
	defer i.of.mu.Unlock()
	i.position = position
	i.of.kept = append(i.of.kept, i)
}

// removeCovered removes the kept intents of writes that are on disk up to a position.
func (s *intents) removeCovered(position uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = slices.DeleteFunc(s.kept, func(i *intent) bool {
		onDisk := i.position <= position
		if onDisk {
			i.Remove()
		}
		return onDisk
	})
}

// A syncError is a failed sync, as opposed to a failed write.
type syncError struct{ error }

func (e *syncError) Unwrap() error { return e.error }

// add makes an intent durable. It returns a syncError if a sync failed.
func (s *intents) add(after uint64, msgs []*nats.Msg) (*intent, error) {
	record := intentRecord{Subject: msgs[0].Subject, After: after}
	for _, m := range msgs {
		record.Messages = append(record.Messages, intentMessage{m.Header, m.Data})
	}
	content, err := json.Marshal(record)
	if err != nil {
		return nil, err
	}
	i := &intent{of: s, path: filepath.Join(s.dir, uuid.NewString())}
	if err := os.WriteFile(i.path, content, 0o600); err != nil {
		i.Remove()
		return nil, err
	}
	for _, path := range []string{i.path, s.dir} {
		if err := syncPath(path, s.syncFile); err != nil {
			return nil, &syncError{err}
		}
	}
	return i, nil
}

// complete appends the missing events of writes that a power cut has torn. It returns all
// intents; they can be removed when the log is on disk.
func (s *intents) complete(ctx context.Context, log eventstore.Recovery) ([]*intent, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var all []*intent
	for _, e := range entries {
		i := &intent{of: s, path: filepath.Join(s.dir, e.Name())}
		content, err := os.ReadFile(i.path)
		if err != nil {
			return nil, err
		}
		all = append(all, i)
		var record intentRecord
		if json.Unmarshal(content, &record) != nil || len(record.Messages) == 0 {
			continue // it was torn itself, so its write had not begun
		}
		var msgs []*nats.Msg
		for _, m := range record.Messages {
			msgs = append(msgs, &nats.Msg{Subject: record.Subject, Header: m.Header, Data: m.Data})
		}
		if err := log.Complete(ctx, record.After, msgs); err != nil {
			return nil, fmt.Errorf("completing a write to %s: %w", record.Subject, err)
		}
	}
	return all, nil
}

// noIntent is the intent of a write to a server that syncs every message itself: it keeps
// its own copy until everything is on disk.
type noIntent struct{}

func (noIntent) Remove()     {}
func (noIntent) Keep(uint64) {}

// Intend implements eventstore.Durability.
func (s *Server) Intend(after uint64, msgs []*nats.Msg) (eventstore.Intent, error) {
	if s.syncs {
		return noIntent{}, nil
	}
	s.removeCoveredIntents()
	i, err := s.intents.add(after, msgs)
	if err != nil {
		var failed *syncError
		if errors.As(err, &failed) {
			s.failure.set(fmt.Errorf("the log cannot be made durable: %w", err))
		}
		return nil, err
	}
	return i, nil
}

func (s *Server) removeCoveredIntents() {
	if b := s.barrier.Load(); b != nil {
		s.intents.removeCovered(b.covered.Load())
	}
}
