package embedded

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"chatsessions/domain"
	"chatsessions/eventstore"

	"github.com/google/uuid"
)

// TestAReaderFromOutsideSyncsBeforeItShows what the server of another process shows.
func TestAReaderFromOutsideSyncsBeforeItShows(t *testing.T) {
	dir := t.TempDir()
	e, err := Start(t.Context(), Options{StoreDir: dir, User: "u", Password: "p", Sync: func(string, func() error) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Shutdown)
	nc, err := e.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	if _, err := NewSyncer(dir); err == nil {
		t.Error("there is a syncer of a log that is not there yet")
	}
	service, err := eventstore.Open(t.Context(), nc, eventstore.Options{OnlyWriter: true, Durability: e})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(service.Close)
	var synced []string
	broken := error(nil)
	syncer, err := newSyncer(dir, func(path string, sync func() error) error {
		synced = append(synced, filepath.Base(path))
		return errors.Join(sync(), broken)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(syncer.Close)
	outside, err := eventstore.Open(t.Context(), nc, eventstore.Options{Existing: true, Durability: syncer})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(outside.Close)
	write := func() string {
		t.Helper()
		id := uuid.NewString()
		if _, err := service.Transact(t.Context(), domain.Request{SessionID: id, Actor: "pat"}, func(s domain.Session) ([]domain.Event, error) {
			return domain.Decide(s, domain.Create{ID: id, By: domain.Caller{Account: "pat"}, Now: 1})
		}); err != nil {
			t.Fatal(err)
		}
		return id
	}
	for name, read := range map[string]func() error{
		"the end": func() error { _, err := outside.End(t.Context()); return err },
		"a session": func() error {
			return outside.Session(t.Context(), write(), func([]domain.Entry) error { return nil })
		},
	} {
		write()
		synced = nil
		if err := read(); err != nil || !slices.Equal(synced, []string{"1.blk"}) {
			t.Errorf("%s was shown after syncs of %q, %v", name, synced, err)
		}
	}
	synced = nil
	if _, err := outside.End(t.Context()); err != nil || len(synced) > 0 {
		t.Errorf("synced again, without anything new: %q, %v", synced, err)
	}
	broken = errors.New("the disk is broken")
	id := write()
	shown := false
	if err := outside.Session(t.Context(), id, func([]domain.Entry) error { shown = true; return nil }); !errors.Is(err, broken) || shown {
		t.Errorf("after a sync that failed: shown %v, %v", shown, err)
	}
	broken = nil
	if _, err := outside.End(t.Context()); err == nil {
		t.Error("a sync that failed was tried again")
	}
}
