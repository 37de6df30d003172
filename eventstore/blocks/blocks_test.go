package blocks_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"chatsessions/eventstore/blocks"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const stream, prefix = "CHAT_SESSIONS", "chat-sessions."

// written returns the store directory of a server that has written some messages to a
// stream, in several block files.
func written(t *testing.T, messages int) string {
	t.Helper()
	dir := t.TempDir()
	srv, err := server.NewServer(&server.Options{JetStream: true, StoreDir: dir, DontListen: true, NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	defer func() { srv.Shutdown(); srv.WaitForShutdown() }()
	nc, err := nats.Connect("", nats.InProcessServer(srv))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	// With a limit, the server makes small block files.
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: stream, Subjects: []string{prefix + "*"}, MaxBytes: 120_000}); err != nil {
		t.Fatal(err)
	}
	for i := range messages {
		m := &nats.Msg{Subject: fmt.Sprint(prefix, i%7), Header: nats.Header{"ce-id": {fmt.Sprint("id-", i)}}, Data: bytes.Repeat([]byte{byte(i)}, 500+i%200)}
		if i%10 == 9 {
			m.Header = nil
		}
		if _, err := js.PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func find(t *testing.T, storeDir string) *blocks.Log {
	t.Helper()
	files, err := blocks.Files(blocks.MessagesDir(storeDir, stream))
	if err != nil {
		t.Fatal(err)
	}
	return &blocks.Log{Stream: stream, Prefix: prefix, Files: files}
}

// scan returns the records by their positions, and the damages.
func scan(t *testing.T, l *blocks.Log) (map[uint64]string, []*blocks.Damage, blocks.Summary) {
	t.Helper()
	records := map[uint64]string{}
	var damages []*blocks.Damage
	s, err := l.Scan(context.Background(), func(r blocks.Record) error {
		if r.Removed {
			return nil
		}
		records[r.Position] = fmt.Sprintf("%s\n%s\n%s", r.Subject, r.Header, r.Data)
		return nil
	}, func(d *blocks.Damage) error {
		damages = append(damages, d)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return records, damages, s
}

func TestScanReadsWhatTheServerHasWritten(t *testing.T) {
	l := find(t, written(t, 150))
	records, damages, s := scan(t, l)
	if len(l.Files) < 3 || len(damages) > 0 || s.First != 1 || s.Last != 150 || s.Records != 150 || len(records) != 150 {
		t.Fatalf("%d files, %v, %+v", len(l.Files), damages, s)
	}
	for i := range 150 {
		r := records[uint64(i+1)]
		if !strings.HasPrefix(r, fmt.Sprint(prefix, i%7, "\n")) || !strings.HasSuffix(r, string(bytes.Repeat([]byte{byte(i)}, 500+i%200))) {
			t.Fatalf("record %d: %q", i+1, r)
		}
		if has := strings.Contains(r, fmt.Sprint("ce-id: id-", i, "\r\n")); has != (i%10 != 9) {
			t.Fatalf("record %d: %q", i+1, r)
		}
	}
}

// A corruption changes the files of a copy.
type corruption struct {
	name  string
	apply func(t *testing.T, rng *rand.Rand, l *blocks.Log)
}

// corruptions are the ways in which a disk, a power cut, or an operator damages a log.
var corruptions = []corruption{
	{"bit", func(t *testing.T, rng *rand.Rand, l *blocks.Log) {
		change(t, anyFile(rng, l), func(b []byte) []byte {
			b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
			return b
		})
	}},
	{"zeroed page", func(t *testing.T, rng *rand.Rand, l *blocks.Log) {
		change(t, anyFile(rng, l), func(b []byte) []byte {
			at := rng.IntN(len(b)) &^ 4095
			clear(b[at:min(at+4096, len(b))])
			return b
		})
	}},
	{"swapped records", func(t *testing.T, rng *rand.Rand, l *blocks.Log) {
		change(t, anyFile(rng, l), func(b []byte) []byte {
			starts := offsets(b)
			i := rng.IntN(len(starts) - 2)
			first, second := b[starts[i]:starts[i+1]], b[starts[i+1]:starts[i+2]]
			return slices.Concat(b[:starts[i]], second, first, b[starts[i+2]:])
		})
	}},
	{"header length", func(t *testing.T, rng *rand.Rand, l *blocks.Log) {
		change(t, anyFile(rng, l), func(b []byte) []byte {
			for {
				starts := offsets(b)
				at := starts[rng.IntN(len(starts)-1)]
				if binary.LittleEndian.Uint32(b[at:])>>31 == 0 {
					continue
				}
				at += 22 + int(binary.LittleEndian.Uint16(b[at+20:]))
				b[at] ^= 1 << rng.IntN(8)
				return b
			}
		})
	}},
	{"cut tail", func(t *testing.T, rng *rand.Rand, l *blocks.Log) {
		change(t, l.Files[len(l.Files)-1], func(b []byte) []byte { return b[:rng.IntN(len(b))] })
	}},
	{"cut at a record", func(t *testing.T, rng *rand.Rand, l *blocks.Log) {
		change(t, anyFile(rng, l), func(b []byte) []byte {
			starts := offsets(b)
			return b[:starts[rng.IntN(len(starts)-1)]]
		})
	}},
	{"hole before the tail", func(t *testing.T, rng *rand.Rand, l *blocks.Log) {
		change(t, l.Files[len(l.Files)-1], func(b []byte) []byte {
			at := len(b) - 1 - rng.IntN(len(b)/2)
			clear(b[max(0, at-8192):at])
			return b
		})
	}},
	{"lost file", func(t *testing.T, rng *rand.Rand, l *blocks.Log) {
		if err := os.Remove(anyFile(rng, l).Path); err != nil {
			t.Fatal(err)
		}
	}},
}

func anyFile(rng *rand.Rand, l *blocks.Log) blocks.File { return l.Files[rng.IntN(len(l.Files))] }

func change(t *testing.T, f blocks.File, how func([]byte) []byte) {
	t.Helper()
	content, err := os.ReadFile(f.Path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.Path, how(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// offsets returns where the records of a sound file start, and its size.
func offsets(b []byte) []int {
	starts := []int{0}
	for at := 0; at < len(b); {
		at += int(binary.LittleEndian.Uint32(b[at:]) &^ (1 << 31))
		starts = append(starts, at)
	}
	return starts
}

// TestNothingIsSilentlyMissing: after any corruption, each record is as it was, or a damage
// names the place; and a salvaged copy has every sound record, and names the others.
func TestNothingIsSilentlyMissing(t *testing.T) {
	const last = 150
	dir := written(t, last)
	was, _, _ := scan(t, find(t, dir))
	for seed := range uint64(400) {
		rng := rand.New(rand.NewPCG(seed, 0))
		c := corruptions[seed%uint64(len(corruptions))]
		copied := t.TempDir()
		if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		c.apply(t, rng, find(t, copied))
		l := find(t, copied)
		found, damages, s := scan(t, l)
		missing := func(position uint64) bool {
			// The ends are compared with what is known to be on disk.
			return position < s.First || position > s.Last || slices.ContainsFunc(damages, func(d *blocks.Damage) bool {
				return d.From <= position && (position <= d.To || d.To == 0)
			})
		}
		for position := range uint64(last) {
			position++
			if r, ok := found[position]; ok && r != was[position] {
				t.Errorf("seed %d, %s: record %d has changed to %q", seed, c.name, position, r)
			} else if !ok && !missing(position) {
				t.Errorf("seed %d, %s: record %d is missing, and is not named: %v", seed, c.name, position, damages)
			}
		}
		if len(found) == last && len(damages) == 0 {
			t.Errorf("seed %d, %s: nothing was found", seed, c.name)
		}
		read(t, l, found)
		salvaged(t, fmt.Sprintf("seed %d, %s", seed, c.name), l, was, found)
	}
}

// read checks that a reader returns the records that a scan finds, from any position.
func read(t *testing.T, l *blocks.Log, found map[uint64]string) {
	t.Helper()
	r, err := l.Open(context.Background(), func(blocks.File) {}, func(*blocks.Damage) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range []uint64{0, 1, 2, 31, 32, 33, 34, 100, 150, 151} {
		var want []uint64
		for position := range found {
			if position >= from {
				want = append(want, position)
			}
		}
		slices.Sort(want)
		var got []uint64
		for at, err := range r.From(max(from, 1)) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, at.Position)
			if text := fmt.Sprintf("%s\n%s\n%s", at.Subject, at.Header, at.Data); text != found[at.Position] {
				t.Errorf("from %d: record %d is %q", from, at.Position, text)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("from %d: read %v, want %v", from, got, want)
		}
	}
}

// salvaged checks a salvaged copy: it has the records that a scan finds, and more where they
// are only out of order, and it has no damage.
func salvaged(t *testing.T, what string, l *blocks.Log, was, found map[uint64]string) {
	t.Helper()
	last := uint64(len(was))
	to := t.TempDir()
	msgs := blocks.MessagesDir(to, stream)
	if err := os.MkdirAll(msgs, 0o700); err != nil {
		t.Fatal(err)
	}
	s, lost, err := l.Salvage(context.Background(), msgs, blocks.Range{From: 1, To: last}, func(int64) {})
	if err != nil {
		t.Fatal(err)
	}
	copied := find(t, to)
	copied.Lost = lost
	records, damages, again := scan(t, copied)
	if len(damages) > 0 || again.Last != last || uint64(len(records)) != s.Records {
		t.Errorf("%s: the copy has %d records, up to %d, and %v", what, len(records), again.Last, damages)
	}
	for position := range last {
		position++
		r, ok := records[position]
		isLost := slices.ContainsFunc(lost, func(r blocks.Range) bool { return r.From <= position && position <= r.To })
		if _, sound := found[position]; sound && !ok || ok && r != was[position] || ok == isLost {
			t.Errorf("%s: record %d: sound %t, copied %t, lost %t", what, position, sound, ok, isLost)
		}
	}
}

func TestServerServesASalvagedLog(t *testing.T) {
	dir := written(t, 150)
	l := find(t, dir)
	change(t, l.Files[1], func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
	change(t, l.Files[len(l.Files)-1], func(b []byte) []byte { return b[:len(b)-10] })
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	msgs := blocks.MessagesDir(to, stream)
	if err := os.RemoveAll(msgs); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(msgs, 0o700); err != nil {
		t.Fatal(err)
	}
	s, lost, err := l.Salvage(t.Context(), msgs, blocks.Range{From: 1, To: 150}, func(int64) {})
	if err != nil || s.Records != 148 || len(lost) != 2 || lost[1] != (blocks.Range{From: 150, To: 150}) {
		t.Fatalf("%+v, lost %v, %v", s, lost, err)
	}
	srv, err := server.NewServer(&server.Options{JetStream: true, StoreDir: to, DontListen: true, NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	defer func() { srv.Shutdown(); srv.WaitForShutdown() }()
	nc, err := nats.Connect("", nats.InProcessServer(srv))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	ack, err := js.Publish(t.Context(), prefix+"next", []byte("next"))
	if err != nil || ack.Sequence != 151 {
		t.Errorf("the next message: %+v, %v", ack, err)
	}
	log, err := js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	if info := log.CachedInfo(); info.State.Msgs != 149 || info.State.FirstSeq != 1 {
		t.Errorf("%+v", info.State)
	}
}

func TestOtherFilesAreNotIgnored(t *testing.T) {
	dir := t.TempDir()
	if files, err := blocks.Files(filepath.Join(dir, "none")); err != nil || files != nil {
		t.Errorf("%v, %v", files, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "x.blk"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := blocks.Files(dir); err == nil || !strings.Contains(err.Error(), "x.blk") {
		t.Error(err)
	}
}
