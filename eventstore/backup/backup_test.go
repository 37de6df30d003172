package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"chatsessions/domain"
	"chatsessions/eventstore"
	"chatsessions/eventstore/audit"
	"chatsessions/eventstore/embedded"
	"chatsessions/eventstore/natstest"

	"github.com/google/uuid"
	"github.com/klauspost/compress/s2"
	"github.com/nats-io/nats.go"
)

func quiet(int64)        {}
func quietOf(_, _ int64) {}

// startEmbedded runs an embedded log until the returned function is called.
func startEmbedded(t *testing.T, dir string) (*eventstore.Log, func()) {
	t.Helper()
	server, err := embedded.Start(t.Context(), embedded.Options{StoreDir: dir, User: "u", Password: "p"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Shutdown)
	nc, err := server.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return openLog(t, nc, eventstore.Options{OnlyWriter: true, Durability: server}), func() { nc.Close(); server.Shutdown() }
}

// connect opens the log on an external server.
func connect(t *testing.T, url string) (*nats.Conn, func(existing bool) *eventstore.Log) {
	t.Helper()
	nc, err := eventstore.Connect(t.Context(), eventstore.ConnectOptions{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc, func(existing bool) *eventstore.Log { return openLog(t, nc, eventstore.Options{Existing: existing}) }
}

func openLog(t *testing.T, nc *nats.Conn, o eventstore.Options) *eventstore.Log {
	t.Helper()
	l, err := eventstore.Open(t.Context(), nc, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// write opens sessions with one event or with four.
func write(t *testing.T, l *eventstore.Log, sessions int) {
	t.Helper()
	for n := range sessions {
		at, room := int64(1), strings.Repeat("r", 200)
		id := uuid.Must(uuid.NewV7()).String()
		c := domain.Create{ID: id, By: domain.Caller{Account: "pat"}, Now: 2, Values: domain.Values{CreatedAt: &at, Room: &room}}
		if n%3 == 0 {
			for _, tr := range []domain.Transition{domain.Start, domain.Accept, domain.Finish} {
				c.Values.Stamps[tr].At = &at
			}
		}
		_, err := l.Transact(context.WithoutCancel(t.Context()), domain.Request{SessionID: id, Actor: "pat"}, func(s domain.Session) ([]domain.Event, error) {
			return domain.Decide(s, c)
		})
		if err != nil {
			t.Error(err)
			return
		}
	}
}

// events returns every event up to a position, and checks the log.
func events(t *testing.T, l *eventstore.Log, upTo uint64) []string {
	t.Helper()
	verified, err := audit.Verify(t.Context(), l, audit.VerifyOptions{
		Defect: func(d domain.Defect) error {
			t.Errorf("defect: %+v", d)
			return nil
		},
		Progress: func(uint64, uint64) {},
		Pace:     func(context.Context, int) error { return nil },
	})
	if err != nil || verified.End < upTo {
		t.Fatalf("%+v, %v", verified, err)
	}
	var all []string
	err = l.Read(t.Context(), 0, upTo, 100, func(batch []domain.Entry) error {
		for _, e := range batch {
			all = append(all, fmt.Sprint(e.Record.Position, e.Record.ID, string(e.Record.Encoded), e.Err))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func equal(t *testing.T, what string, got, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d events, want %d", what, len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("%s: event %d is\n%s\nand was\n%s", what, i+1, got[i], want[i])
		}
	}
}

func open(t *testing.T, file string) *Archive {
	t.Helper()
	a, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	if err := a.Check(t.Context(), quietOf); err != nil {
		t.Fatal(err)
	}
	return a
}

// TestEveryWay saves from each kind of place, and restores to each.
func TestSaveAndRestoreEveryWay(t *testing.T) {
	dir := t.TempDir()
	server := natstest.Start(t, natstest.Config{})
	cluster := natstest.StartCluster(t, make([]natstest.Config, 3)...)

	l, stop := startEmbedded(t, filepath.Join(dir, "log"))
	write(t, l, 200)
	end, err := l.End(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want, identity := events(t, l, end), l.Identity()
	running := filepath.Join(dir, "running.backup")
	m, err := Save(t.Context(), l, running, quiet)
	if err != nil || m.First != 1 || m.Last != end || m.Events != end {
		t.Fatalf("%+v, %v", m, err)
	}
	stop()
	stopped := filepath.Join(dir, "stopped.backup")
	if m, err = SaveStored(t.Context(), filepath.Join(dir, "log"), stopped, quietOf); err != nil || m.Last != end {
		t.Fatalf("%+v, %v", m, err)
	}

	check := func(what string, l *eventstore.Log) {
		t.Helper()
		equal(t, what, events(t, l, end), want)
		if l.Identity() == identity {
			t.Errorf("%s: the restored log is %s, like the original, which may have gone on", what, l.Identity())
		}
		write(t, l, 1)
	}
	for _, file := range []string{running, stopped} {
		to := filepath.Join(dir, "to-"+filepath.Base(file))
		if err := open(t, file).RestoreTo(t.Context(), to, quietOf); err != nil {
			t.Fatal(err)
		}
		if err := open(t, file).RestoreTo(t.Context(), to, quietOf); !errors.Is(err, ErrNotEmpty) {
			t.Error(err)
		}
		l, stop := startEmbedded(t, to)
		check("embedded from "+file, l)
		stop()
	}

	// From one server to three, and from three to one.
	nc, log := connect(t, cluster.URL())
	if err := open(t, stopped).Restore(t.Context(), nc, 0, quietOf); err != nil {
		t.Fatal(err)
	}
	if err := open(t, stopped).Restore(t.Context(), nc, 0, quietOf); !errors.Is(err, ErrNotEmpty) {
		t.Error(err)
	}
	three := log(true)
	was := three.Identity()
	for _, s := range cluster.Servers { // with any leader, it is the same log
		s.Restart()
		if again := log(true).Identity(); again != was {
			t.Errorf("after a restart, the log is %s, and was %s", again, was)
		}
	}
	if servers, err := three.Servers(t.Context()); err != nil || len(servers) != 3 {
		t.Errorf("kept by %v, %v", servers, err)
	}
	check("cluster", three)
	ofThree := filepath.Join(dir, "three.backup")
	if m, err = Save(t.Context(), three, ofThree, quiet); err != nil || m.Last != end+4 {
		t.Fatalf("%+v, %v", m, err)
	}
	nc, log = connect(t, server.URL())
	if err := open(t, ofThree).Restore(t.Context(), nc, 0, quietOf); err != nil {
		t.Fatal(err)
	}
	check("server", log(true))
	to := filepath.Join(dir, "to-three")
	if err := open(t, ofThree).RestoreTo(t.Context(), to, quietOf); err != nil {
		t.Fatal(err)
	}
	l, _ = startEmbedded(t, to)
	check("embedded from three", l)
}

// TestWhileWritten: a backup beside writes ends with a whole write.
func TestSaveWhileTheLogIsWritten(t *testing.T) {
	dir := t.TempDir()
	l, _ := startEmbedded(t, filepath.Join(dir, "log"))
	write(t, l, 10)
	var writing sync.WaitGroup
	stop := make(chan struct{})
	defer writing.Wait()
	defer close(stop)
	for range 4 {
		writing.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					write(t, l, 6)
				}
			}
		})
	}
	for n := range 5 {
		file := filepath.Join(dir, fmt.Sprint(n, ".backup"))
		m, err := Save(t.Context(), l, file, quiet)
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, fmt.Sprint("to-", n))
		if err := open(t, file).RestoreTo(t.Context(), to, quietOf); err != nil {
			t.Fatal(err)
		}
		restored, end := startEmbedded(t, to)
		equal(t, "restored", events(t, restored, m.Last), events(t, l, m.Last))
		end()
	}
}

func TestDamagedBackupIsNotRestored(t *testing.T) {
	dir := t.TempDir()
	l, stop := startEmbedded(t, filepath.Join(dir, "log"))
	write(t, l, 50)
	stop()
	good := filepath.Join(dir, "good")
	if _, err := SaveStored(t.Context(), filepath.Join(dir, "log"), good, quietOf); err != nil {
		t.Fatal(err)
	}
	if _, err := SaveStored(t.Context(), filepath.Join(dir, "log"), good, quietOf); err == nil || !strings.Contains(err.Error(), "exists") {
		t.Error(err)
	}
	content, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	for at := 50; at < len(content); at += len(content) / 60 {
		for name, damaged := range map[string][]byte{
			"a bit at": flipped(content, at), "cut at": content[:at],
		} {
			file := filepath.Join(dir, "damaged")
			if err := os.WriteFile(file, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			a, err := Open(file)
			if err != nil {
				continue
			}
			if err := a.Check(t.Context(), quietOf); err == nil && !harmless(t, a, good) {
				t.Errorf("%s %d of %d: nothing was found", name, at, len(content))
			}
			a.Close()
		}
	}
}

// harmless reports whether an archive has the same files as another: the bit was in a field
// that says nothing about them, such as the time of a file.
func harmless(t *testing.T, a *Archive, good string) bool {
	t.Helper()
	b := open(t, good)
	if fmt.Sprint(a.Manifest) != fmt.Sprint(b.Manifest) {
		return false
	}
	for _, e := range b.Manifest.Files {
		x, errX := a.read(e.Name)
		y, errY := b.read(e.Name)
		if errX != nil || errY != nil || string(x) != string(y) {
			return false
		}
	}
	return true
}

func flipped(content []byte, at int) []byte {
	c := append([]byte(nil), content...)
	c[at] ^= 4
	return c
}

// TestFilesOfASnapshot: servers before 2.15 send the files of the stream.
func TestSnapshotInTheFirstFormat(t *testing.T) {
	dir := t.TempDir()
	l, stop := startEmbedded(t, filepath.Join(dir, "log"))
	write(t, l, 50)
	stop()
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
	want, err := SaveStored(t.Context(), filepath.Join(dir, "log"), first, quietOf)
	if err != nil {
		t.Fatal(err)
	}
	a := open(t, first)
	content, encoded := io.Pipe()
	go func() { encoded.CloseWithError(a.encode(t.Context(), encoded, a.Info, quietOf)) }()
	m, err := save(second, func(s *saving) error {
		if err := s.describe(a.Info); err != nil {
			return err
		}
		return errors.Join(s.addFiles(s2.NewReader(content), quiet), s.end())
	})
	want.Made, m.Made = time.Time{}, time.Time{}
	if err != nil || fmt.Sprint(m) != fmt.Sprint(want) {
		t.Errorf("%+v, %v, want %+v", m, err, want)
	}
}

// TestSalvagedLog: lost positions are not given out again, wherever the log goes.
func TestSalvagedLogIsSavedAndRestored(t *testing.T) {
	dir := t.TempDir()
	l, stop := startEmbedded(t, filepath.Join(dir, "log"))
	write(t, l, 50)
	end, err := l.End(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stop()
	block := filepath.Join(dir, "log/jetstream/$G/streams/CHAT_SESSIONS/msgs/1.blk")
	content, err := os.ReadFile(block)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(block, flipped(content, len(content)/2)[:len(content)-5], 0o600); err != nil {
		t.Fatal(err)
	}
	var found []string
	salvaged, err := embedded.Salvage(t.Context(), filepath.Join(dir, "log"), filepath.Join(dir, "salvaged"),
		func(err error) { found = append(found, err.Error()) }, quietOf)
	if err != nil || salvaged.Records != end-2 || len(salvaged.Lost) != 2 || salvaged.Lost[1].To != end || len(found) != 2 {
		t.Fatalf("%+v, %v, found %v", salvaged, err, found)
	}
	stopped := filepath.Join(dir, "stopped.backup")
	m, err := SaveStored(t.Context(), filepath.Join(dir, "salvaged"), stopped, quietOf)
	if err != nil || fmt.Sprint(m.Lost) != fmt.Sprint(salvaged.Lost) || m.Last != end || m.Events != end-2 {
		t.Fatalf("%+v, %v", m, err)
	}
	server := natstest.Start(t, natstest.Config{})
	nc, log := connect(t, server.URL())
	if err := open(t, stopped).Restore(t.Context(), nc, 0, quietOf); err != nil {
		t.Fatal(err)
	}
	running := filepath.Join(dir, "running.backup")
	if m, err = Save(t.Context(), log(true), running, quiet); err != nil || fmt.Sprint(m.Lost) != fmt.Sprint(salvaged.Lost) || m.Last != end {
		t.Fatalf("%+v, %v", m, err)
	}
	to := filepath.Join(dir, "restored")
	if err := open(t, running).RestoreTo(t.Context(), to, quietOf); err != nil {
		t.Fatal(err)
	}
	l, _ = startEmbedded(t, to)
	write(t, l, 1)
	if after, err := l.End(t.Context()); err != nil || after != end+4 {
		t.Errorf("the log ends at %d, %v, and ended at %d", after, err, end)
	}
}

func TestDamagedLogIsNotSaved(t *testing.T) {
	dir := t.TempDir()
	storeDir := filepath.Join(dir, "log")
	l, stop := startEmbedded(t, storeDir)
	write(t, l, 50)
	stop()
	block := filepath.Join(storeDir, "jetstream/$G/streams/CHAT_SESSIONS/msgs/1.blk")
	content, err := os.ReadFile(block)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(block, flipped(content, len(content)/2), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = SaveStored(t.Context(), storeDir, filepath.Join(dir, "backup"), quietOf)
	if !errors.As(err, new(*embedded.DamageError)) {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "backup")); !errors.Is(err, os.ErrNotExist) {
		t.Error("a backup exists", err)
	}
	_, err = SaveStored(t.Context(), filepath.Join(dir, "none"), filepath.Join(dir, "backup"), quietOf)
	if !errors.Is(err, embedded.ErrNoLog) {
		t.Error(err)
	}
}
