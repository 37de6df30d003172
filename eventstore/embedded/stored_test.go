package embedded

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"chatsessions/deploy/servertest"
	"chatsessions/eventstore"
	"chatsessions/eventstore/blocks"
)

// crashedLog returns a store directory as a crash leaves it, with so many events, and the
// durable position.
func crashedLog(t *testing.T, events, durable int) (dir string) {
	t.Helper()
	running := filepath.Join(t.TempDir(), "log")
	e, l := startLog(t, Options{StoreDir: running})
	for range events {
		writeNew(t, l, 1)
	}
	l.Close()
	e.Shutdown()
	dir = filepath.Join(t.TempDir(), "log")
	if err := os.CopyFS(dir, os.DirFS(running)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, cleanFile)); err != nil {
		t.Fatal(err)
	}
	note, err := openDurableNote(dir, justSync, Durable{First: 1, Position: uint64(durable)})
	if err != nil {
		t.Fatal(err)
	}
	_ = note.file.Close()
	return dir
}

// flip flips a bit of the n-th event.
func flip(t *testing.T, dir string, n int) {
	t.Helper()
	block := blocks.Path(messagesDir(dir), 1)
	content, err := os.ReadFile(block)
	if err != nil {
		t.Fatal(err)
	}
	content[records(t, content)[n-2]+40] ^= 8
	if err := os.WriteFile(block, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// contents returns all files below a directory.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		all[path] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestFlippedBit: the server cuts a block file at the first record that fails its check.
func TestFlippedBitBeforeTheDurablePositionIsRefused(t *testing.T) {
	for _, clean := range []bool{false, true} {
		dir := crashedLog(t, 130, 130)
		flip(t, dir, 11)
		if clean {
			if err := os.WriteFile(filepath.Join(dir, cleanFile), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		before := contents(t, dir)
		for range 2 {
			_, err := Start(t.Context(), Options{StoreDir: dir, User: "u", Password: "p"})
			var damage *blocks.Damage
			if !errors.As(err, &damage) || !errors.As(err, new(*DamageError)) || damage.From != 11 || damage.To != 11 || filepath.Base(damage.File.Path) != "1.blk" {
				t.Fatalf("clean %t: %v", clean, err)
			}
		}
		for path, content := range contents(t, dir) {
			if before[path] != content {
				t.Errorf("clean %t: %s was changed", clean, path)
			}
		}
	}
}

func TestWhatFollowsTheEndOfTheLogIsSetAside(t *testing.T) {
	dir := crashedLog(t, 130, 10)
	flip(t, dir, 11)
	var reported error
	offline, unlock, err := OpenOffline(t.Context(), dir, func(err error) { reported = err }, func(_, _ int64) {})
	if err != nil {
		t.Fatal(err)
	}
	if end, err := offline.End(t.Context()); err != nil || end != 10 || !errors.As(reported, new(*CutError)) {
		t.Errorf("stopped, the log ends at %d, %v, and is reported as %v", end, err, reported)
	}
	offline.Close()
	unlock()
	was := contents(t, dir)[blocks.Path(messagesDir(dir), 1)]
	var logged servertest.Output // the server logs from several goroutines
	e, l := startLog(t, Options{StoreDir: dir, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	if end, err := l.End(t.Context()); err != nil || end != 10 {
		t.Errorf("the log ends at %d, %v", end, err)
	}
	if next := writeNew(t, l, 1); next.Record.Position != 11 {
		t.Errorf("the next event is at %d", next.Record.Position)
	}
	l.Close()
	e.Shutdown()
	if !strings.Contains(logged.String(), "set aside") || !strings.Contains(logged.String(), "1.blk") {
		t.Errorf("logged: %s", logged.String())
	}
	aside, err := filepath.Glob(filepath.Join(dir, asideDir, "*", "1.blk.from-*"))
	if err != nil || len(aside) != 1 {
		t.Fatalf("set aside: %v, %v", aside, err)
	}
	content, err := os.ReadFile(aside[0])
	if err != nil || !strings.HasSuffix(was, string(content)) || len(content) == 0 {
		t.Errorf("%d bytes were set aside, %v", len(content), err)
	}
}

func TestMissingPartsAreRefused(t *testing.T) {
	msgs := func(dir string) string { return messagesDir(dir) }
	for name, damage := range map[string]func(dir string) error{
		"the tail is cut": func(dir string) error { return os.Truncate(blocks.Path(msgs(dir), 1), 20_000) },
		"the tail is cut at a record": func(dir string) error {
			content, err := os.ReadFile(blocks.Path(msgs(dir), 1))
			return errors.Join(err, os.Truncate(blocks.Path(msgs(dir), 1), int64(records(t, content)[100])))
		},
		"the block file is gone":  func(dir string) error { return os.Remove(blocks.Path(msgs(dir), 1)) },
		"the stream is gone":      func(dir string) error { return os.RemoveAll(filepath.Dir(msgs(dir))) },
		"the description is gone": func(dir string) error { return os.Remove(filepath.Join(filepath.Dir(msgs(dir)), "meta.inf")) },
		"the description is damaged": func(dir string) error {
			return os.WriteFile(filepath.Join(filepath.Dir(msgs(dir)), "meta.inf"), []byte("{}"), 0o600)
		},
		"the note is damaged": func(dir string) error { return os.WriteFile(filepath.Join(dir, durableFile), []byte("durable"), 0o600) },
	} {
		for _, clean := range []bool{false, true} {
			dir := crashedLog(t, 130, 130)
			if err := damage(dir); err != nil {
				t.Fatal(err)
			}
			if clean {
				if err := os.WriteFile(filepath.Join(dir, cleanFile), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			e, err := Start(t.Context(), Options{StoreDir: dir, User: "u", Password: "p"})
			if !errors.As(err, new(*DamageError)) {
				t.Errorf("%s, clean %t: %v", name, clean, err)
			}
			if e != nil {
				e.Shutdown()
			}
		}
	}
}

// TestCopiedClusterStore: the server ignores a stream with replicas.
func TestCopiedClusterStoreIsRefused(t *testing.T) {
	dir := crashedLog(t, 3, 3)
	path := filepath.Join(filepath.Dir(messagesDir(dir)), "meta.inf")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(content), `"num_replicas":1`, `"num_replicas":3`, 1)
	if changed == string(content) {
		t.Fatal(changed)
	}
	for name, content := range map[string]string{"meta.inf": changed, "meta.sum": infoSum([]byte(changed))} {
		if err := os.WriteFile(filepath.Join(filepath.Dir(path), name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, err = Start(t.Context(), Options{StoreDir: dir, User: "u", Password: "p"})
	if !errors.As(err, new(*eventstore.ConfigError)) {
		t.Error(err)
	}
}

// TestASalvagedLogIsServed: whatever was lost, the copy starts, also again after a clean end.
func TestASalvagedLogIsServed(t *testing.T) {
	for name, lost := range map[string][]int{"the first": {2}, "the middle": {60}, "the last": {131}, "several": {2, 3, 60, 130, 131}} {
		t.Run(name, func(t *testing.T) {
			dir := crashedLog(t, 130, 130)
			for _, n := range lost {
				if n == 2 { // flip counts from the end of the event before
					flipFirst(t, dir)
				} else {
					flip(t, dir, n-1)
				}
			}
			to := filepath.Join(t.TempDir(), "log")
			salvaged, err := Salvage(t.Context(), dir, to, func(error) {}, func(_, _ int64) {})
			if err != nil || salvaged.Last != 130 {
				t.Fatalf("%+v, %v", salvaged, err)
			}
			end := uint64(130)
			for start := range 3 { // after the salvage, and after clean ends
				e, l := startLog(t, Options{StoreDir: to})
				end++
				if next := writeNew(t, l, 1); next.Record.Position != end {
					t.Errorf("start %d: written at %d, want %d", start, next.Record.Position, end)
				}
				l.Close()
				e.Shutdown()
				if err := e.Err(); err != nil {
					t.Errorf("start %d: %v", start, err)
				}
			}
		})
	}
}

// flipFirst flips a bit of the first event.
func flipFirst(t *testing.T, dir string) {
	t.Helper()
	block := blocks.Path(messagesDir(dir), 1)
	content, err := os.ReadFile(block)
	if err != nil {
		t.Fatal(err)
	}
	content[40] ^= 8
	if err := os.WriteFile(block, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestTheNewestOfFilesWithMissingNumbersIsSynced(t *testing.T) {
	dir := t.TempDir()
	msgs := messagesDir(dir)
	if err := os.MkdirAll(msgs, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, number := range []int{1, 2, 4} {
		if err := os.WriteFile(blocks.Path(msgs, number), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var r recorded
	b, err := openBlockFiles(dir, r.sync)
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	if err := b.sync(); err != nil || !slices.Equal(r.take(), []string{blocks.Path(msgs, 4)}) {
		t.Error("4.blk is not synced", err)
	}
}
