package blocks

import (
	"bytes"
	"context"
	"errors"
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

func (r Range) String() string {
	if r.From == r.To {
		return fmt.Sprintf("position %d", r.From)
	}
	return fmt.Sprintf("positions %d to %d", r.From, r.To)
}

// A Damage is a place at which the files do not hold the next record of the log.
type Damage struct {
	File   File
	Offset int64
	// From is the position that is missed. To is the one before the next sound record; 0 if
	// there is none. To is less than From if no position is missing.
	From, To uint64
	// Gap: the records on both sides are sound; those between them are not in the files.
	Gap bool
	Err error
}

func (d *Damage) Error() string {
	lost := Range{d.From, d.To}.String()
	switch {
	case d.To == 0:
		lost = fmt.Sprintf("position %d and all after it", d.From)
	case d.To < d.From:
		lost = fmt.Sprintf("nothing between positions %d and %d", d.To, d.From)
	}
	return fmt.Sprintf("%s, byte %d, %s: %v", d.File.Path, d.Offset, lost, d.Err)
}

func (d *Damage) Unwrap() error { return d.Err }

// A Summary is what a scan has found.
type Summary struct {
	First, Last uint64 // positions of the first and the last sound record; 0 for none
	Newest      uint64 // of the last one whose message was not removed
	Records     uint64
	Bytes       int64
}

// Scan reads all records in order, and reports each sound record and each damage. Their
// errors end the scan.
func (l *Log) Scan(ctx context.Context, sound func(Record) error, damaged func(*Damage) error) (Summary, error) {
	s := Scanner{Log: l, Sound: sound, Damaged: damaged}
	var content []byte
	for _, f := range l.Files {
		if err := ctx.Err(); err != nil {
			return s.Summary, err
		}
		var err error
		if content, err = f.read(content); err != nil {
			return s.Summary, err
		}
		if err := s.Add(f, content); err != nil {
			return s.Summary, err
		}
	}
	return s.Summary, s.End()
}

// A Scanner reads the contents of a log's files, one after the other. The first record may
// have any position.
type Scanner struct {
	Log     *Log
	Sound   func(Record) error
	Damaged func(*Damage) error
	Summary

	open *Damage // reported with the next sound record, which says where it ends
}

// Add reads the content of the next file.
func (s *Scanner) Add(f File, content []byte) error {
	s.Bytes += int64(len(content))
	for r, err := range s.Log.records(f, content) {
		switch {
		case err != nil:
			s.damage(r, err, false)
			continue
		case s.Last > 0 && r.Position <= s.Last:
			s.damage(r, fmt.Errorf("position %d comes after position %d", r.Position, s.Last), false)
			continue
		case r.Removed && s.Log.IsLost(r.Position): // the end of a salvaged log
		case s.Last > 0 && r.Position != s.Log.Next(s.Last):
			s.damage(r, fmt.Errorf("position %d comes after position %d", r.Position, s.Last), true)
		case r.Removed:
			s.damage(r, fmt.Errorf("the message at position %d was removed", r.Position), true)
		}
		if err := s.sound(r); err != nil {
			return err
		}
	}
	return nil
}

func (s *Scanner) damage(r Record, err error, gap bool) {
	if s.open == nil {
		s.open = &Damage{File: r.File, Offset: r.Offset, From: s.Last + 1, Err: err, Gap: gap}
	}
}

func (s *Scanner) sound(r Record) error {
	if d := s.open; d != nil {
		d.To = r.Position - 1
		if r.Removed {
			d.To++
		}
		s.open = nil
		if err := s.Damaged(d); err != nil {
			return err
		}
	}
	if s.First == 0 {
		s.First = r.Position
	}
	s.Last = r.Position
	if !r.Removed {
		s.Records++
		s.Newest = r.Position
	}
	return s.Sound(r)
}

// End reports a damage after the last sound record.
func (s *Scanner) End() error {
	if s.open == nil {
		return nil
	}
	return s.Damaged(s.open)
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

// IsLost reports whether a position is known to be lost.
func (l *Log) IsLost(position uint64) bool { return l.Next(position-1) != position }

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

// read returns the file's content; see readPart.
func (f File) read(buffer []byte) ([]byte, error) { return f.readPart(buffer, 0, f.Size) }

// readPart returns a part of the file's content, in buffer if it fits. Pages that the disk
// cannot read are zero.
func (f File) readPart(buffer []byte, from, to int64) ([]byte, error) {
	file, err := os.Open(f.Path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // it was only read
	buffer = slices.Grow(buffer[:0], int(to-from))[:to-from]
	n, err := file.ReadAt(buffer, from)
	if err == nil || errors.Is(err, io.EOF) { // it may have been cut since it was listed
		return buffer[:n], nil
	}
	for at := 0; at < len(buffer); at += pageSize {
		page := buffer[at:min(at+pageSize, len(buffer))]
		if _, err := file.ReadAt(page, from+int64(at)); err != nil {
			clear(page)
		}
	}
	return buffer, nil
}
