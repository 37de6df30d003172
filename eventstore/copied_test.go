package eventstore_test

import (
	"os"
	"strings"
	"testing"

	"chatsessions/eventstore"
	"chatsessions/eventstore/natstest"
)

// TestAStreamOver: a single server does not show a stream with replicas, and a new stream takes
// over its files.
func TestAStreamOverOldFilesIsReported(t *testing.T) {
	dirs := []string{t.TempDir(), t.TempDir(), t.TempDir()}
	c := natstest.StartCluster(t, natstest.Config{StoreDir: dirs[0]}, natstest.Config{StoreDir: dirs[1]}, natstest.Config{StoreDir: dirs[2]})
	l := openLog(t, connect(t, c.URL()))
	for range 5 {
		if err := writable(t, l); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range c.Servers {
		s.Stop()
	}
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(dirs[0])); err != nil {
		t.Fatal(err)
	}
	s := natstest.Start(t, natstest.Config{StoreDir: copied})
	nc := connect(t, s.URL())
	_, err := eventstore.Open(testContext(t), nc, eventstore.Options{})
	if err == nil || !strings.Contains(err.Error(), "20 messages") {
		t.Errorf("opened over old files: %v", err)
	}
	if end := mustEnd(t, openLog(t, nc)); end != 20 { // the operator has checked it
		t.Errorf("the log ends at %d", end)
	}
}
