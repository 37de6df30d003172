package rot

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chatsessions/cmd/systemtest/rig"
)

// The log has this many sessions. Their events fill more than three block files of 8 MB.
const sessions = 420

// A written is a log that a service has written, with what was in it while the service ran.
type written struct {
	crashed string   // data directory after a SIGKILL
	clean   string   // data directory after a stop in good order
	lines   []string // of replay --output ndjson, by position - 1
	events  []rig.Event
	blocks  []block
}

// A block is a block file.
type block struct {
	name    string
	content []byte
	records []record
}

// A record is the place of an event in a block file.
type record struct {
	position   int
	start, end int
}

func (w *written) last() int { return len(w.lines) }

// ends reports whether a write ends with the event at a position.
func (w *written) ends(position int) bool {
	h := w.events[position-1].Header
	return h.Get("Nats-Batch-Id") == "" || h.Get("Nats-Batch-Commit") != ""
}

// wholeUpTo returns the position at which the last whole write up to a position ends.
func (w *written) wholeUpTo(position int) int {
	for position > 0 && !w.ends(position) {
		position--
	}
	return position
}

// write writes a log of single- and multi-event writes over several block files.
func write(t *testing.T) *written {
	t.Helper()
	running := t.TempDir()
	s := rig.Start(t, "--dev", "--data-dir", running)
	const clients = 8
	rig.AtOnce(t, clients, func(client int) error {
		crm := s.As("service-crm")
		for i := client; i < sessions; i += clients {
			if err := writeSession(crm, i); err != nil {
				return err
			}
		}
		return nil
	})
	if t.Failed() {
		t.FailNow()
	}
	w := &written{events: s.Log(), lines: replayed(t, running), crashed: t.TempDir(), clean: t.TempDir()}
	durable := func() error {
		content, err := os.ReadFile(filepath.Join(running, "log", "durable"))
		if err == nil && !strings.Contains(string(content), fmt.Sprintf("durable 1 to %d ", w.last())) {
			err = fmt.Errorf("not all of %d events are known to be durable: %q", w.last(), content)
		}
		return err
	}
	rig.Eventually(t, durable)
	s.Kill()
	clone(t, running, w.crashed)
	s.Start()
	if status := s.Stop(); status != rig.ExitDone {
		t.Fatalf("exit status %d", status)
	}
	clone(t, running, w.clean)
	for _, dir := range []string{w.crashed, w.clean} {
		w.blocks = readBlocks(t, dir)
		var positions int
		for _, b := range w.blocks {
			for _, r := range b.records {
				if positions++; r.position != positions {
					t.Fatalf("%s has position %d after %d", b.name, r.position, positions-1)
				}
			}
		}
		if positions != w.last() || len(w.blocks) < 3 {
			t.Fatalf("%d events in %d block files, want %d", positions, len(w.blocks), w.last())
		}
		if lines := replayed(t, dir); !slices.Equal(lines, w.lines) {
			t.Fatal("the stopped log is not what the running one was")
		}
	}
	multi := 0
	for i := range w.lines {
		if !w.ends(i + 1) {
			multi++
		}
	}
	if multi == 0 {
		t.Fatal("there is no write of several events")
	}
	t.Logf("%d events, %d of them continued by another one of the same write, in %d block files", w.last(), multi, len(w.blocks))
	return w
}

// writeSession writes a session with as many participants as it can have.
func writeSession(crm *rig.Client, i int) error {
	var participants []string
	for p := range 100 {
		participants = append(participants, fmt.Sprintf("%s-%d-%d", strings.Repeat("p", 110), i%10, 100+p))
	}
	body := map[string]any{"participants": participants, "room": fmt.Sprint("room ", i)}
	if i%3 == 0 { // imported with its history, in one write
		at := time.Now().Add(-time.Hour).UnixMilli()
		body["createdAt"], body["startedAt"], body["acceptedAt"] = at, at+1, at+2
	}
	content, err := json.Marshal(body)
	if err != nil {
		return err
	}
	a, err := crm.Do("POST", "/chat-sessions", string(content))
	if err != nil || a.Status != 200 {
		return a.Instead(err)
	}
	change := []string{`{"finish": true}`, `{"start": true}`, `{"start": true, "accept": true, "room": "another"}`}[i%3]
	a, err = crm.Do("PATCH", a.Header.Get("Location"), change)
	if err != nil || a.Status != 200 {
		return a.Instead(err)
	}
	return nil
}

// replayed returns the lines of a sound log.
func replayed(t *testing.T, dir string) []string {
	t.Helper()
	status, stdout, stderr := rig.Command(t, nil, "replay", "--data-dir", dir, "--output", "ndjson")
	if status != rig.ExitDone {
		t.Fatalf("replay: exit status %d, %s", status, stderr)
	}
	return strings.Split(strings.TrimSuffix(stdout, "\n"), "\n")
}

// blockDir is where the block files of a data directory are.
func blockDir(dir string) string {
	return filepath.Join(dir, "log", "jetstream", "$G", "streams", "CHAT_SESSIONS", "msgs")
}

// readBlocks reads the block files, and finds their records by their lengths.
func readBlocks(t *testing.T, dir string) []block {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(blockDir(dir), "*.blk"))
	if err != nil || len(paths) > 9 { // then the order of the names is not that of the numbers
		t.Fatalf("%d block files, %v", len(paths), err)
	}
	var all []block
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b := block{name: filepath.Base(path), content: content}
		for at := 0; at < len(content); {
			end := at + int(binary.LittleEndian.Uint32(content[at:])&^(1<<31))
			b.records = append(b.records, record{int(binary.LittleEndian.Uint64(content[at+4:])), at, end})
			at = end
		}
		all = append(all, b)
	}
	return all
}

// clone copies a directory.
func clone(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// link copies a directory with hard links for its block files.
func link(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		there := filepath.Join(to, name)
		switch {
		case e.IsDir():
			return os.MkdirAll(there, 0o700)
		case filepath.Ext(name) == ".blk":
			return os.Link(path, there)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(there, content, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// replace replaces a file, and not what is linked to it. Without content, it removes the file.
func replace(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if content == nil {
		return
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// noteDurable writes what is known to be on disk, as the service does.
func noteDurable(t *testing.T, dir string, position int) {
	t.Helper()
	line := fmt.Sprintf("durable 1 to %d", position)
	line = fmt.Sprintf("%s %08x\n", line, crc32.ChecksumIEEE([]byte(line)))
	content := make([]byte, 2*4096)
	copy(content, line)
	copy(content[4096:], line)
	replace(t, filepath.Join(dir, "log", "durable"), content)
}

// noteIntents writes the notes of the atomic writes after a position, as the service keeps
// them until those are durable.
func (w *written) noteIntents(t *testing.T, dir string, after int) {
	t.Helper()
	type message struct {
		Header map[string][]string `json:"header"`
		Data   []byte              `json:"data"`
	}
	newest := map[string]int{} // position by subject
	for position := 1; position <= w.last(); {
		first, subject := position, w.events[position-1].Subject
		var messages []message
		for ; ; position++ {
			e := w.events[position-1]
			messages = append(messages, message{e.Header, e.Data})
			if w.ends(position) {
				break
			}
		}
		if first > after && len(messages) > 1 {
			content, err := json.Marshal(map[string]any{"subject": subject, "after": newest[subject], "messages": messages})
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "log", "intents", fmt.Sprint("intent-", first))
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		newest[subject] = position
		position++
	}
}

// hashes returns a hash of every file below a directory.
func hashes(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		sum := sha256.Sum256(content)
		all[path] = hex.EncodeToString(sum[:])
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
