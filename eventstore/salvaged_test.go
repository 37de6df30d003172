package eventstore_test

import (
	"os"
	"path/filepath"
	"testing"

	"chatsessions/domain"
	"chatsessions/eventstore"
	"chatsessions/eventstore/blocks"
	"chatsessions/eventstore/embedded"
)

// TestALogThatEndsInAGapIsReadToItsEnd: a salvaged log may have lost its last events.
func TestALogThatEndsInAGapIsReadToItsEnd(t *testing.T) {
	dir := t.TempDir()
	l, stop := embeddedLog(t, filepath.Join(dir, "log"))
	for range 5 {
		if err := writable(t, l); err != nil {
			t.Fatal(err)
		}
	}
	end := mustEnd(t, l)
	stop()
	block := blocks.Path(blocks.MessagesDir(filepath.Join(dir, "log"), eventstore.StreamName), 1)
	info, err := os.Stat(block)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(block, info.Size()-10); err != nil {
		t.Fatal(err)
	}
	salvaged, err := embedded.Salvage(t.Context(), filepath.Join(dir, "log"), filepath.Join(dir, "salvaged"), func(error) {}, func(_, _ int64) {})
	if err != nil || len(salvaged.Lost) != 1 || salvaged.Lost[0].To != end {
		t.Fatalf("%+v, %v", salvaged, err)
	}
	check := func(what string, l *eventstore.Log) {
		t.Helper()
		if e := mustEnd(t, l); e != end {
			t.Errorf("%s: the log ends at %d, want %d", what, e, end)
		}
		var last domain.Entry
		err := l.Read(testContext(t), 0, end, 7, func(batch []domain.Entry) error {
			last = batch[len(batch)-1]
			return nil
		})
		if err != nil || last.Err == nil || last.Record.Position != end {
			t.Errorf("%s: read up to %+v, %v", what, last, err)
		}
		upTo, err := l.Newest(testContext(t), 7, func([]domain.Entry) error { return nil })
		if err != nil || upTo != end {
			t.Errorf("%s: the newest events are complete up to %d, %v", what, upTo, err)
		}
	}
	offline, unlock, err := embedded.OpenOffline(t.Context(), filepath.Join(dir, "salvaged"), func(err error) { t.Error(err) }, func(_, _ int64) {})
	if err != nil {
		t.Fatal(err)
	}
	check("stopped", offline)
	offline.Close()
	unlock()
	l, _ = embeddedLog(t, filepath.Join(dir, "salvaged"))
	check("running", l)
}
