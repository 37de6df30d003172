package eventstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// intentDir in the store directory holds one file for each atomic write under way.
const intentDir = "intents"

// An intent is what an atomic write of several events is about to append, on disk
// before the server hears of it. The server commits an atomic write message by
// message, and a power cut can keep some of them: it has deleted its own copy by
// the time that we sync. With the intent the rest is appended at the next start.
type intent struct {
	Subject  string          `json:"subject"`
	After    uint64          `json:"after"` // the subject's newest sequence before the write
	Messages []intentMessage `json:"messages"`
}

type intentMessage struct {
	Header nats.Header `json:"header"`
	Data   []byte      `json:"data"`
}

// writeIntent makes an intent durable and returns its path. The caller removes it
// when the write is on disk as a whole, or never will be.
func writeIntent(storeDir string, syncIt SyncFunc, after uint64, msgs []*nats.Msg) (string, error) {
	in := intent{Subject: msgs[0].Subject, After: after}
	for _, m := range msgs {
		in.Messages = append(in.Messages, intentMessage{m.Header, m.Data})
	}
	content, err := json.Marshal(in)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(storeDir, intentDir)
	path := filepath.Join(dir, uuid.NewString())
	if err := os.WriteFile(path, content, 0o600); err != nil {
		_ = os.Remove(path)
		return "", err
	}
	if err := syncPath(path, syncIt); err != nil {
		return "", &syncError{err}
	}
	if err := syncPath(dir, syncIt); err != nil {
		return "", &syncError{err}
	}
	return path, nil
}

// A syncError is a sync that has failed, as opposed to a write.
type syncError struct{ error }

func (e *syncError) Unwrap() error { return e.error }

// completeIntents appends what is missing of writes that a power cut has torn,
// and returns the paths of all intents; they are to be removed when the log is on
// disk. It is called before anybody else can write.
func (l *Log) completeIntents(ctx context.Context, storeDir string) ([]string, error) {
	dir := filepath.Join(storeDir, intentDir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		var in intent
		// One that does not parse was torn itself: its write had not begun.
		if json.Unmarshal(content, &in) == nil {
			if err := l.complete(ctx, &in); err != nil {
				return nil, fmt.Errorf("completing a write to %s: %w", in.Subject, err)
			}
		}
		paths = append(paths, path)
	}
	return paths, nil
}

// complete appends the missing messages of an intent of which the log has some.
// They follow the ones that are there: whatever else was written to the subject
// was written after the whole of it, and lost before any of it.
func (l *Log) complete(ctx context.Context, in *intent) error {
	newest, err := l.newest(ctx, strings.TrimPrefix(in.Subject, subjectPrefix), leader)
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for r := newest; r.Position > in.After; {
		there[r.ID] = true
		if r.Previous == 0 {
			break
		}
		if r, err = l.at(ctx, r.Previous); err != nil {
			return err
		}
	}
	n := 0 // how many are there
	for n < len(in.Messages) && there[in.Messages[n].id()] {
		n++
	}
	switch {
	case n == len(in.Messages):
		return nil
	case n == 0:
		return nil // it was never answered
	case newest.ID != in.Messages[n-1].id():
		return fmt.Errorf("%d of its %d events are in the log, and event %d follows them", n, len(in.Messages), newest.Position)
	}
	var missing []*nats.Msg
	for _, m := range in.Messages[n:] {
		for name := range m.Header {
			if strings.HasPrefix(name, "Nats-") { // of the attempt that was cut
				delete(m.Header, name)
			}
		}
		missing = append(missing, &nats.Msg{Subject: in.Subject, Header: m.Header, Data: m.Data})
	}
	first := missing[0].Header
	// The message before it need not be the log's last: say which one it is.
	first.Set(headerPrevious, strconv.FormatUint(newest.Position, 10))
	first.Set(jetstream.ExpectedStreamHeader, StreamName)
	first.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(newest.Position, 10))
	var pause backoff
	for {
		last, outcome, err := l.publish(ctx, missing)
		switch {
		case outcome == acknowledged:
			l.logger.Warn("completed a write that a crash had cut", "subject", in.Subject, "events", len(in.Messages), "appended", len(missing), "position", last)
			return nil
		case outcome != busy:
			return err
		}
		if pause.wait(ctx) != nil {
			return errors.Join(err, ctx.Err())
		}
	}
}

func (m *intentMessage) id() string { return m.Header.Get(headerID) }
