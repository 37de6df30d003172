package blocks_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"testing"

	"chatsessions/eventstore/blocks"
)

// BenchmarkScan scans a log of ordinary events in the page cache.
func BenchmarkScan(b *testing.B) {
	const events, size = 100_000, 1100
	dir := b.TempDir()
	l := &blocks.Log{Stream: stream, Prefix: prefix}
	header := append([]byte("NATS/1.0\r\nce-id: x\r\n"), bytes.Repeat([]byte("ce-header: value\r\n"), 20)...)
	header = append(header, "\r\n"...)
	data := bytes.Repeat([]byte("d"), size-len(header))
	var content []byte
	for i := range uint64(events) {
		content = l.Append(content, len(l.Files)+1, blocks.Record{Position: i + 1, Subject: []byte(fmt.Sprintf(prefix+"%036d", i)), Header: header, Data: data})
		if len(content) > 8<<20 || i == events-1 {
			f := blocks.File{Number: len(l.Files) + 1, Path: blocks.Path(dir, len(l.Files)+1), Size: int64(len(content))}
			if err := os.WriteFile(f.Path, content, 0o600); err != nil {
				b.Fatal(err)
			}
			l.Files = append(l.Files, f)
			content = content[:0]
		}
	}
	for b.Loop() {
		s, err := l.Scan(context.Background(), func(blocks.Record) error { return nil }, func(d *blocks.Damage) error { return d })
		if err != nil || s.Records != events {
			b.Fatal(s, err)
		}
		b.SetBytes(s.Bytes)
	}
}
