package blocks

import (
	"context"
	"iter"
	"sort"
)

// markEvery is how many records are between two whose places are remembered.
const markEvery = 32

// A mark is the place of a record.
type mark struct {
	position uint64
	file     int // index in Log.Files
	offset   int64
}

// A Reader reads the sound records of a stopped log, in any order. It is safe for
// concurrent use.
type Reader struct {
	Summary
	log   *Log
	marks []mark
}

// Open scans a log, and returns a Reader of its sound records. Its memory is 24 bytes for
// every 32 records.
func (l *Log) Open(ctx context.Context, progress func(File), damaged func(*Damage) error) (*Reader, error) {
	r := &Reader{log: l}
	file, records := -1, 0
	var err error
	r.Summary, err = l.Scan(ctx, func(at Record) error {
		if file < 0 || l.Files[file].Number != at.File.Number {
			for file++; l.Files[file].Number != at.File.Number; file++ {
			}
			records = 0
			progress(at.File)
		}
		if records++; records%markEvery == 1 {
			r.marks = append(r.marks, mark{at.Position, file, at.Offset})
		}
		return nil
	}, damaged)
	return r, err
}

// From returns the sound records from a position on, in their order.
func (r *Reader) From(position uint64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		next := sort.Search(len(r.marks), func(i int) bool { return r.marks[i].position > position })
		if next > 0 {
			next--
		}
		var content []byte
		for last := position - 1; next < len(r.marks); next++ {
			m := r.marks[next]
			f := r.log.Files[m.file]
			end := f.Size
			if next+1 < len(r.marks) && r.marks[next+1].file == m.file {
				end = r.marks[next+1].offset
			}
			var err error
			if content, err = f.readPart(content, m.offset, end); err != nil {
				yield(Record{}, err)
				return
			}
			for at, err := range r.log.records(f, content) {
				if err != nil || at.Removed || at.Position <= last {
					continue
				}
				if at.Position > r.Last {
					return
				}
				at.Offset += m.offset
				last = at.Position
				if !yield(at, nil) {
					return
				}
			}
		}
	}
}
