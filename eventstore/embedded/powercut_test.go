package embedded

import (
	"chatsessions/eventstore/blocks"

	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chatsessions/domain"
	"chatsessions/eventstore"

	"github.com/google/uuid"
)

// startLog starts an embedded server and opens its log.
func startLog(t *testing.T, o Options) (*Server, *eventstore.Log) {
	t.Helper()
	o.User, o.Password = "u", "p"
	e, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Shutdown)
	return e, openLog(t, e, o)
}

func openLog(t *testing.T, e *Server, o Options) *eventstore.Log {
	t.Helper()
	nc, err := e.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	l, err := eventstore.Open(t.Context(), nc, eventstore.Options{OnlyWriter: true, Durability: e, Logger: o.Logger})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// newSession decides to open a session, with one event or with four.
func newSession(id string, events int) func(domain.Session) ([]domain.Event, error) {
	return func(s domain.Session) ([]domain.Event, error) {
		at := int64(1)
		room := strings.Repeat("r", 60)
		c := domain.Create{ID: id, By: domain.Caller{Account: "pat"}, Now: 2, Values: domain.Values{CreatedAt: &at, Room: &room}}
		if events > 1 {
			for _, tr := range []domain.Transition{domain.Start, domain.Accept, domain.Finish} {
				c.Values.Stamps[tr].At = &at
			}
		}
		return domain.Decide(s, c)
	}
}

// writeNew opens a new session.
func writeNew(t *testing.T, l *eventstore.Log, events int) domain.Entry {
	t.Helper()
	id := uuid.Must(uuid.NewV7()).String()
	return mustWrite(t, l, id, newSession(id, events))
}

// writeLarge opens a new session with an event of about 25 KB.
func writeLarge(t *testing.T, l *eventstore.Log) {
	t.Helper()
	id := uuid.Must(uuid.NewV7()).String()
	mustWrite(t, l, id, newLargeSession(id))
}

func newLargeSession(id string) func(domain.Session) ([]domain.Event, error) {
	return func(s domain.Session) ([]domain.Event, error) {
		var participants []string
		for n := range 100 {
			participants = append(participants, fmt.Sprintf("%0120d", n))
		}
		return domain.Decide(s, domain.Create{ID: id, By: domain.Caller{Account: "pat", Role: domain.RoleService}, Now: 2, Values: domain.Values{Participants: &participants}})
	}
}

func mustWrite(t *testing.T, l *eventstore.Log, id string, decide func(domain.Session) ([]domain.Event, error)) domain.Entry {
	t.Helper()
	r, err := l.Transact(t.Context(), domain.Request{SessionID: id, Actor: "pat"}, decide)
	if err != nil {
		t.Fatal(err)
	}
	return domain.Entry{Record: r.Record}
}

// A platter is what a power cut leaves of a directory: of each file what was in it
// when its last sync began, under the names that its directory had when that was
// synced last.
type platter struct {
	root string
	slow time.Duration // how much longer a sync of a block file takes

	mu      sync.Mutex
	content map[string][]byte              // of files
	size    map[string]int64               // of block files, which only grow
	names   map[string]map[string]struct{} // of directories
	off     bool                           // since the power cut no sync ends
}

func newPlatter(root string) *platter {
	return &platter{root: root, content: map[string][]byte{}, size: map[string]int64{}, names: map[string]map[string]struct{}{}}
}

func (p *platter) sync(path string, sync func() error) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	var content []byte
	names := map[string]struct{}{}
	switch {
	case info.IsDir():
		entries, err := os.ReadDir(path)
		if err != nil {
			return err
		}
		for _, e := range entries {
			names[e.Name()] = struct{}{}
		}
	case filepath.Ext(path) != ".blk":
		if content, err = os.ReadFile(path); err != nil {
			return err
		}
	}
	if err := sync(); err != nil {
		return err
	}
	if filepath.Ext(path) == ".blk" {
		time.Sleep(p.slow) // so that there is much that is not synced
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.off {
		return errors.New("the power is off")
	}
	switch {
	case info.IsDir():
		p.names[path] = names
	case filepath.Ext(path) == ".blk":
		p.size[path] = info.Size()
	default:
		p.content[path] = content
	}
	return nil
}

// cut cuts the power. It returns when no sync can end any more.
func (p *platter) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.off = true
}

// restore writes to dir what may be left after the power cut: what was synced, and
// of the block files a random part of what was not, up to a record or not, or all of it with
// a hole.
func (p *platter) restore(t *testing.T, dir string, random *rand.Rand) (torn bool) {
	t.Helper()
	var walk func(from, to string)
	walk = func(from, to string) {
		if err := os.MkdirAll(to, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range slices.Sorted(maps.Keys(p.names[from])) {
			path, target := filepath.Join(from, name), filepath.Join(to, name)
			content, known := p.content[path]
			switch {
			case p.names[path] != nil:
				walk(path, target)
				continue
			case filepath.Ext(name) == ".blk":
				all, err := os.ReadFile(path)
				if err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatal(err)
				}
				size := min(p.size[path], int64(len(all)))
				if size < int64(len(all)) {
					torn = true
					ends := records(t, all)
					ends = ends[sort.SearchInts(ends, int(size)+1):]
					size = int64(ends[random.IntN(len(ends))])
					if random.IntN(2) == 0 {
						size -= random.Int64N(800) // within a record
					}
					size = max(size, p.size[path])
				}
				content = all[:size]
				if rest := int64(len(all)) - p.size[path]; torn && rest > 0 && random.IntN(3) == 0 {
					// Pages reach the disk in any order: a later one is there, and this one is not.
					hole := all[p.size[path]+random.Int64N(rest):]
					clear(hole[:min(4096, len(hole))])
					content = all
				}
			case !known:
				content = nil // a name, and nothing behind it
			}
			if err := os.WriteFile(target, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	walk(p.root, dir)
	return torn
}

// TestPowerCut cuts the power under load, at a random moment of each life of a
// log, and looks at several disks that may be left: what was answered is there,
// every write as a whole or not at all.
func TestPowerCut(t *testing.T) {
	const lives, disks = 10, 5
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a test that can be repeated
	var completed countedLog
	answered := map[string]domain.Entry{}
	var torn, files int
	dir := filepath.Join(t.TempDir(), "log")
	for range lives {
		p := newPlatter(dir)
		p.slow = time.Duration(random.IntN(10)) * time.Millisecond
		e, l := startLog(t, Options{StoreDir: dir, Sync: p.sync})
		maps.Copy(answered, writeUntil(t, l, time.Duration(random.IntN(300))*time.Millisecond, p.cut))
		for range disks {
			dir = filepath.Join(t.TempDir(), "log")
			if p.restore(t, dir, random) {
				torn++
			}
			e, l := startLog(t, Options{StoreDir: dir, Logger: slog.New(&completed)})
			checkWhole(t, l, answered)
			l.Close()
			e.Shutdown()
		}
		indices, err := blocks.Files(messagesDir(dir))
		if err != nil {
			t.Fatal(err)
		}
		files = len(indices)
		l.Close()
		e.Shutdown()
	}
	t.Logf("%d power cuts, %d disks, %d of them with a tail that was not synced, %d with a write that was completed; %d answered writes, %d block files",
		lives, lives*disks, torn, completed.Load(), len(answered), files)
	if torn == 0 || completed.Load() == 0 || len(answered) == 0 {
		t.Error("nothing was at stake")
	}
}

// countedLog counts the writes that were completed.
type countedLog struct{ atomic.Int64 }

func (c *countedLog) Enabled(context.Context, slog.Level) bool { return true }
func (c *countedLog) WithAttrs([]slog.Attr) slog.Handler       { return c }
func (c *countedLog) WithGroup(string) slog.Handler            { return c }
func (c *countedLog) Handle(_ context.Context, r slog.Record) error {
	if strings.HasPrefix(r.Message, "completed a write") {
		c.Add(1)
	}
	return nil
}

// writeUntil has many writers at work, cuts the power after some time, and returns
// what was answered before.
func writeUntil(t *testing.T, l *eventstore.Log, after time.Duration, cut func()) map[string]domain.Entry {
	var mu sync.Mutex
	off := false
	answered := map[string]domain.Entry{}
	isOff := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return off
	}
	var running sync.WaitGroup
	for w := range 24 {
		running.Go(func() {
			for n := 0; !isOff(); n++ {
				id := uuid.Must(uuid.NewV7()).String()
				decide := newSession(id, 1)
				switch {
				case w%4 == 0:
					decide = newSession(id, 4)
				case (w+n)%4 == 1:
					decide = newLargeSession(id) // so that there are several block files
				}
				r, err := l.Transact(t.Context(), domain.Request{SessionID: id, Actor: "pat"}, decide)
				mu.Lock()
				if err == nil && !off {
					answered[id] = domain.Entry{Record: r.Record}
				}
				mu.Unlock()
				if err != nil {
					if !isOff() {
						t.Errorf("before the power cut: %v", err)
					}
					return
				}
			}
		})
	}
	time.Sleep(after)
	mu.Lock()
	off = true
	mu.Unlock()
	cut()
	running.Wait()
	return answered
}

// checkWhole checks that the log has what was answered, and only whole writes,
// and no gap.
func checkWhole(t *testing.T, l *eventstore.Log, answered map[string]domain.Entry) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // there are thousands of events
	defer cancel()
	end, err := l.End(ctx)
	if err != nil {
		t.Fatal(err)
	}
	versions := map[string]uint64{}
	done := errors.New("done")
	var last uint64
	if end > 0 {
		err = l.Follow(ctx, 0, 100, func(batch []domain.Entry) error {
			for _, r := range batch {
				if r.Record.Position != last+1 || r.Record.Event.Session.Version != versions[r.Record.Event.Session.ID]+1 {
					t.Fatalf("version %d of %s is at %d, after %d and version %d", r.Record.Event.Session.Version, r.Record.Event.Session.ID, r.Record.Position, last, versions[r.Record.Event.Session.ID])
				}
				last, versions[r.Record.Event.Session.ID] = r.Record.Position, r.Record.Event.Session.Version
			}
			if last == end {
				return done
			}
			return nil
		})
		if !errors.Is(err, done) {
			t.Fatalf("the log ends at %d and can be followed to %d: %v", end, last, err)
		}
	}
	for id, version := range versions {
		if version != 1 && version != 4 {
			t.Errorf("session %s has %d of 4 events", id, version)
		}
	}
	for id, r := range answered {
		if versions[id] != r.Record.Event.Session.Version {
			t.Errorf("session %s was answered at version %d, position %d, and has %d; the log ends at %d", id, r.Record.Event.Session.Version, r.Record.Position, versions[id], end)
		}
	}
}

// records returns where each record of a block file ends.
func records(t *testing.T, content []byte) (ends []int) {
	t.Helper()
	for at := 0; at < len(content); {
		at += int(binary.LittleEndian.Uint32(content[at:]) &^ (1 << 31)) // the high bit is for headers
		ends = append(ends, at)
	}
	return ends
}
