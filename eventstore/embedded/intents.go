package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"chatsessions/eventstore"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
)

// intentDir in the store directory holds one file for each atomic write in flight.
const intentDir = "intents"

// An intentRecord is the content of an intent's file. The server commits an atomic write
// message by message, and has deleted its own copy when we sync. After a power cut that
// keeps only some of the messages, the next start appends the rest.
type intentRecord struct {
	Subject  string          `json:"subject"`
	After    uint64          `json:"after"` // the subject's newest sequence before the write
	Messages []intentMessage `json:"messages"`
}

type intentMessage struct {
	Header nats.Header `json:"header"`
	Data   []byte      `json:"data"`
}

// Intend implements eventstore.Durability.
func (s *Server) Intend(after uint64, msgs []*nats.Msg) (done func(position uint64), err error) {
	record := intentRecord{Subject: msgs[0].Subject, After: after}
	for _, m := range msgs {
		record.Messages = append(record.Messages, intentMessage{m.Header, m.Data})
	}
	content, err := json.Marshal(record)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(s.options.StoreDir, intentDir)
	path := filepath.Join(dir, uuid.NewString())
	remove := func() { _ = os.Remove(path) } // a file that stays is only checked at the next start
	if err := os.WriteFile(path, content, 0o600); err != nil {
		remove()
		return nil, err
	}
	if err := errors.Join(syncPath(path, s.options.Sync), syncPath(dir, s.options.Sync)); err != nil {
		return nil, s.failure.syncFailed(err)
	}
	return func(position uint64) {
		if position <= s.barrier.Load().covered.Load() {
			remove()
			return
		}
		go func() { // ends with the sync, or with the barrier
			if s.Durable(context.Background(), position) == nil {
				remove()
			}
		}()
	}, nil
}

// completeIntents appends the missing events of writes that a power cut has torn. It returns
// the files of all intents; they can be removed when the log is on disk.
func (s *Server) completeIntents(ctx context.Context, log eventstore.Recovery) (paths []string, err error) {
	dir := filepath.Join(s.options.StoreDir, intentDir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		paths = append(paths, path)
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
	return paths, nil
}
