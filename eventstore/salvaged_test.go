package eventstore_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"chatsessions/domain"
	"chatsessions/eventstore"
	"chatsessions/eventstore/blocks"
	"chatsessions/eventstore/embedded"
)

func embeddedLog(t *testing.T, dir string) (*eventstore.Log, func()) {
	t.Helper()
	e := startEmbedded(t, dir)
	nc := connectEmbedded(t, e)
	l := openLog(t, nc, e)
	return l, func() { l.Close(); nc.Close(); e.Shutdown() }
}

// salvagedLog damages a log and salvages it. It returns the copy's directory, the end of the
// log, and what is lost.
func salvagedLog(t *testing.T, damage func(block []byte) []byte) (dir string, end uint64, lost blocks.Range) {
	t.Helper()
	whole := filepath.Join(t.TempDir(), "log")
	l, stop := embeddedLog(t, whole)
	for range 5 {
		if err := writable(t, l); err != nil {
			t.Fatal(err)
		}
	}
	end = mustEnd(t, l)
	stop()
	block := blocks.Path(blocks.MessagesDir(whole, eventstore.StreamName), 1)
	content, err := os.ReadFile(block)
	if err == nil {
		err = os.WriteFile(block, damage(content), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(t.TempDir(), "salvaged")
	salvaged, err := embedded.Salvage(t.Context(), whole, dir, func(error) {}, func(_, _ int64) {})
	if err != nil || len(salvaged.Lost) != 1 {
		t.Fatalf("%+v, %v", salvaged, err)
	}
	return dir, end, salvaged.Lost[0]
}

// stoppedAndRunning checks a log from its files, and through a server.
func stoppedAndRunning(t *testing.T, dir string, check func(what string, l *eventstore.Log)) {
	t.Helper()
	offline, unlock, err := embedded.OpenOffline(t.Context(), dir, func(err error) { t.Error(err) }, func(_, _ int64) {})
	if err != nil {
		t.Fatal(err)
	}
	check("stopped", offline)
	offline.Close()
	unlock()
	l, _ := embeddedLog(t, dir)
	check("running", l)
}

func TestAGapInTheLogIsHandedOver(t *testing.T) {
	dir, end, lost := salvagedLog(t, func(content []byte) []byte {
		content[len(content)/2] ^= 1
		return content
	})
	read := func(l *eventstore.Log) (positions []uint64, gaps int) {
		t.Helper()
		err := l.Read(testContext(t), 0, end, 7, func(batch []domain.Entry) error {
			for _, e := range batch {
				positions = append(positions, e.Record.Position)
				if e.Err != nil {
					if gaps++; !errors.Is(e.Err, domain.ErrUnreadable) || e.Record.Position != lost.To {
						t.Errorf("position %d: %v", e.Record.Position, e.Err)
					}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return positions, gaps
	}
	check := func(what string, l *eventstore.Log) {
		t.Helper()
		positions, gaps := read(l)
		if gaps != 1 || uint64(len(positions)) != end-(lost.To-lost.From) {
			t.Errorf("%s: %d gaps, positions %v", what, gaps, positions)
		}
	}
	stoppedAndRunning(t, dir, check)
}

// TestALogThatEndsInAGapIsReadToItsEnd: a salvaged log may have lost its last events.
func TestALogThatEndsInAGapIsReadToItsEnd(t *testing.T) {
	dir, end, lost := salvagedLog(t, func(content []byte) []byte { return content[:len(content)-10] })
	if lost.To != end {
		t.Fatalf("lost are %s of %d", lost, end)
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
	stoppedAndRunning(t, dir, check)
}
