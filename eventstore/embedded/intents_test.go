package embedded

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chatsessions/domain"
	"chatsessions/eventstore"
	"chatsessions/eventstore/blocks"
	"chatsessions/eventstore/envelope"

	"github.com/google/uuid"
)

// TestTornWriteIsCompleted cuts the log within a write of four events.
func TestTornWriteIsCompleted(t *testing.T) {
	// One life with a single event, and then the write; its intent is kept.
	dir := t.TempDir()
	var intent []byte
	keep := func(path string, sync func() error) error {
		if filepath.Base(filepath.Dir(path)) == intentDir {
			intent, _ = os.ReadFile(path)
		}
		return sync()
	}
	e, l := startLog(t, Options{StoreDir: dir, Sync: keep})
	single := writeNew(t, l, 1)
	id := uuid.Must(uuid.NewV7()).String()
	req := domain.Request{SessionID: id, Actor: "pat", Key: strings.Repeat("k", 64), Digest: strings.Repeat("d", 64), CorrelationID: "c"}
	if _, err := l.Transact(t.Context(), req, newSession(id, 4)); err != nil {
		t.Fatal(err)
	}
	want := stored(t, l, id)
	if len(want) != 4 || intent == nil {
		t.Fatalf("%d events, intent %q", len(want), intent)
	}
	if left, err := os.ReadDir(filepath.Join(dir, intentDir)); err != nil || len(left) != 0 {
		t.Errorf("%d intents are left, %v", len(left), err)
	}
	l.Close()
	e.Shutdown()
	block := blocks.Path(messagesDir(dir), 1)
	content, err := os.ReadFile(block)
	if err != nil {
		t.Fatal(err)
	}
	ends := records(t, content)
	if len(ends) != 5 || ends[4] != len(content) {
		t.Fatalf("records end at %v of %d", ends, len(content))
	}

	for _, test := range []struct {
		name   string
		size   int
		intent []byte
		events int
	}{
		{"none of it is there", ends[0], intent, 0},
		{"a part of its first event is there", ends[0] + 100, intent, 0},
		{"its first event is there", ends[1], intent, 4},
		{"its second event is cut", ends[2] - 1, intent, 4},
		{"its third event is there", ends[3], intent, 4},
		{"its last event is cut", ends[4] - 9, intent, 4},
		{"it is there as a whole", ends[4], intent, 4},
		{"the intent is cut, so the write had not begun", ends[0], intent[:100], 0},
		// What the intent is for.
		{"without an intent a half stays", ends[2], nil, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			cut := filepath.Join(t.TempDir(), "log")
			if err := os.CopyFS(cut, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(blocks.Path(messagesDir(cut), 1), int64(test.size)); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(filepath.Join(cut, cleanFile)); err != nil {
				t.Fatal(err)
			}
			// The note is older than the write, like the last sync.
			note, err := openDurableNote(cut, justSync, Durable{First: 1, Position: single.Record.Position})
			if err != nil {
				t.Fatal(err)
			}
			_ = note.file.Close()
			if test.intent != nil {
				if err := os.WriteFile(filepath.Join(cut, intentDir, "b"), test.intent, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for start := range uint64(2) { // a second one changes nothing
				e, l := startLog(t, Options{StoreDir: cut})
				end, err := l.End(t.Context())
				if err != nil || end != single.Record.Position+uint64(test.events)+start {
					t.Errorf("start %d: the log ends at %d, %v", start, end, err)
				}
				got := stored(t, l, id)
				if len(got) != test.events {
					t.Fatalf("start %d: %d events, want %d", start, len(got), test.events)
				}
				for i := range got {
					if got[i] != want[i] {
						t.Errorf("start %d: event %d is\n%s\nand was\n%s", start, i+1, got[i], want[i])
					}
				}
				if left, err := os.ReadDir(filepath.Join(cut, intentDir)); err != nil || len(left) != 0 {
					t.Errorf("start %d: %d intents are left, %v", start, len(left), err)
				}
				if next := writeNew(t, l, 1); next.Record.Position != end+1 {
					t.Errorf("start %d: the next write is at %d, the log ended at %d", start, next.Record.Position, end)
				}
				l.Close()
				e.Shutdown()
			}
		})
	}
}

// TestAnIntentOutlivesItsCaller only until the write is on disk.
func TestAnIntentOutlivesItsCaller(t *testing.T) {
	dir := t.TempDir()
	ctx, giveUp := context.WithCancel(t.Context())
	slow := false
	began, end := make(chan struct{}), make(chan struct{})
	e, l := startLog(t, Options{StoreDir: dir, Sync: func(path string, sync func() error) error {
		if slow && filepath.Ext(path) == ".blk" {
			close(began)
			<-end
			slow = false
		}
		return sync()
	}})
	slow = true
	go func() {
		<-began
		giveUp()
	}()
	id := uuid.Must(uuid.NewV7()).String()
	if _, err := l.Transact(ctx, domain.Request{SessionID: id, Actor: "pat"}, newSession(id, 4)); !errors.Is(err, domain.ErrOutcomeUnknown) {
		t.Fatalf("a write whose caller gave up: %v", err)
	}
	intents := func() int {
		left, err := os.ReadDir(filepath.Join(dir, intentDir))
		if err != nil {
			t.Fatal(err)
		}
		return len(left)
	}
	if n := intents(); n != 1 {
		t.Errorf("%d intents before the sync has ended", n)
	}
	close(end)
	for deadline := time.Now().Add(10 * time.Second); intents() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the intent stays")
		}
	}
	l.Close()
	e.Shutdown()
}

// stored describes a session's events: their positions, headers and data, without
// the headers of the publish.
func stored(t *testing.T, l *eventstore.Log, id string) (events []string) {
	t.Helper()
	for r, err := range l.History(t.Context(), id) {
		if errors.Is(err, domain.ErrNotFound) {
			return nil
		}
		if err != nil {
			t.Fatal(err)
		}
		m, err := l.Message(t.Context(), r.Position)
		if err != nil {
			t.Fatal(err)
		}
		maps.DeleteFunc(m.Header, func(name string, _ []string) bool { return strings.HasPrefix(name, "Nats-") })
		delete(m.Header, envelope.HeaderPrevious)
		events = append([]string{fmt.Sprint(r.Position, r.Previous, m.Header, string(m.Data))}, events...)
	}
	return events
}

// TestTornWriteWithAFollowerIsRefused: the log cannot be in this state, so nobody
// decides what to make of it.
func TestTornWriteWithAFollowerIsRefused(t *testing.T) {
	dir := t.TempDir()
	var kept []byte
	e, l := startLog(t, Options{StoreDir: dir, Sync: func(path string, sync func() error) error {
		if filepath.Base(filepath.Dir(path)) == intentDir {
			kept, _ = os.ReadFile(path)
		}
		return sync()
	}})
	writeNew(t, l, 4)
	l.Close()
	e.Shutdown()
	// An intent of which the last event is not the one that was written.
	other := strings.ReplaceAll(string(kept), `"ce-id":["`, `"ce-id":["x`)
	first := strings.Replace(other, `"ce-id":["x`, `"ce-id":["`, 1)
	if err := os.WriteFile(filepath.Join(dir, intentDir, "b"), []byte(first), 0o600); err != nil {
		t.Fatal(err)
	}
	e, err := Start(t.Context(), Options{StoreDir: dir, User: "u", Password: "p"})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Shutdown()
	nc, err := e.Connect()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := eventstore.Open(t.Context(), nc, eventstore.Options{OnlyWriter: true, Durability: e}); err == nil || !strings.Contains(err.Error(), "1 of its 4 events") {
		t.Errorf("opened: %v", err)
	}
}
