package blocks

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"

	"github.com/minio/highwayhash"
)

// A Log is the files of a stream whose subjects all begin with a prefix.
type Log struct {
	Stream string
	Prefix string
	Files  []File
	// Lost are the positions that are known to be missing, because the log was salvaged.
	Lost []Range
}

// A Range is the positions From to To.
type Range struct {
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
}

// A Damage is a place at which the files do not hold the next record of the log.
type Damage struct {
	File   File
	Offset int64
	// From is the position that is missed. To is the one before the next sound record; 0 if
	// there is none. To is less than From if no position is missing.
	From, To uint64
	Err      error
}

func (d *Damage) Error() string {
	lost := fmt.Sprintf("position %d", d.From)
	switch {
	case d.To == 0:
		lost = fmt.Sprintf("position %d and all after it", d.From)
	case d.To < d.From:
		lost = fmt.Sprintf("nothing between positions %d and %d", d.To, d.From)
	case d.To > d.From:
		lost = fmt.Sprintf("positions %d to %d", d.From, d.To)
	}
	return fmt.Sprintf("%s, byte %d, %s: %v", d.File.Path, d.Offset, lost, d.Err)
}

func (d *Damage) Unwrap() error { return d.Err }

// A Summary is what a scan has found.
type Summary struct {
	First, Last uint64 // positions of the first and the last sound record; 0 for none
	Records     uint64
	Bytes       int64
}

// Scan reads all records after a position in order; after 0, the first record may have any
// position. It reports each sound record and each damage, in their order. Their errors end
// the scan.
func (l *Log) Scan(ctx context.Context, after uint64, sound func(Record) error, damaged func(*Damage) error) (Summary, error) {
	var s Summary
	last := after
	var open *Damage // reported with the next sound record, which says where it ends
	damage := func(r Record, err error) {
		if open == nil {
			open = &Damage{File: r.File, Offset: r.Offset, From: last + 1, Err: err}
		}
	}
	var content []byte
	for _, f := range l.Files {
		if err := ctx.Err(); err != nil {
			return s, err
		}
		var err error
		if content, err = f.read(content); err != nil {
			return s, err
		}
		s.Bytes += int64(len(content))
		for r, err := range l.records(f, content) {
			switch {
			case err != nil:
			case r.Removed && l.isLost(r.Position):
				last, s.Last = r.Position, r.Position
				continue
			case r.Removed:
				err = fmt.Errorf("the message at position %d was removed", r.Position)
			case last > 0 && r.Position != l.Next(last):
				err = fmt.Errorf("position %d comes after position %d", r.Position, last)
			}
			if err != nil {
				damage(r, err)
			}
			if r.Removed || r.Position <= last { // not sound, or out of order
				continue
			}
			if open != nil {
				open.To = r.Position - 1
				if err := damaged(open); err != nil {
					return s, err
				}
				open = nil
			}
			if s.First == 0 {
				s.First = r.Position
			}
			last, s.Last = r.Position, r.Position
			s.Records++
			if err := sound(r); err != nil {
				return s, err
			}
		}
	}
	if open != nil {
		return s, damaged(open)
	}
	return s, nil
}

// Next returns the position after another, apart from those that are known to be lost.
func (l *Log) Next(position uint64) uint64 {
	position++
	for _, lost := range l.Lost {
		if lost.From <= position && position <= lost.To {
			position = lost.To + 1
		}
	}
	return position
}

func (l *Log) isLost(position uint64) bool { return l.Next(position-1) != position }

// records returns the sound records of a file's content. A stretch without one comes as one
// Record with only its place, and an error.
func (l *Log) records(f File, content []byte) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		h, prefix := hash(l.Stream, f.Number), []byte(l.Prefix)
		for offset := 0; offset < len(content); {
			r, err := parse(content[offset:], h, prefix)
			next := offset + len(r.Raw)
			if err != nil {
				r = Record{}
				next = nextSound(content, offset+1, h, prefix)
			}
			r.File, r.Offset = f, int64(offset)
			if !yield(r, err) {
				return
			}
			offset = next
		}
	}
}

// nextSound returns the offset of the first sound record from an offset on, or the content's
// end. It finds records by the start of their subjects.
func nextSound(content []byte, from int, h *highwayhash.Digest64, prefix []byte) int {
	for from+headSize < len(content) {
		i := bytes.Index(content[from+headSize:], prefix)
		if i < 0 {
			break
		}
		if _, err := parse(content[from+i:], h, prefix); err == nil {
			return from + i
		}
		from += i + 1
	}
	return len(content)
}

// pageSize is how much of a file is left out around a byte that the disk cannot read.
const pageSize = 4096

// read returns the file's content, in buffer if it fits. Pages that the disk cannot read are
// zero.
func (f File) read(buffer []byte) ([]byte, error) {
	file, err := os.Open(f.Path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // it was only read
	buffer = slices.Grow(buffer[:0], int(f.Size))[:f.Size]
	n, err := io.ReadFull(file, buffer)
	if err == io.ErrUnexpectedEOF || err == io.EOF { // it was cut since it was listed
		return buffer[:n], nil
	}
	if err != nil {
		for at := 0; at < len(buffer); at += pageSize {
			page := buffer[at:min(at+pageSize, len(buffer))]
			if _, err := file.ReadAt(page, int64(at)); err != nil {
				clear(page)
			}
		}
	}
	return buffer, nil
}
