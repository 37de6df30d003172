package blocks

import (
	"cmp"
	"context"
	"errors"
	"os"
	"slices"
)

// Salvage copies the sound records to block files of the same numbers in an empty directory,
// in the order of their positions, and syncs them. known are the positions that the log has
// had: the copy does not give them out again, and has nothing beyond them. It returns the positions that are lost, and
// calls copied with the bytes that were read.
func (l *Log) Salvage(ctx context.Context, dir string, known Range, copied func(bytes int64)) (s Summary, lost []Range, err error) {
	var content, sound []byte
	for i, f := range l.Files {
		if err := ctx.Err(); err != nil {
			return s, nil, err
		}
		if content, err = f.read(content); err != nil {
			return s, nil, err
		}
		var records []Record
		for r, err := range l.records(f, content) {
			if err == nil && !r.Removed {
				records = append(records, r)
			}
		}
		slices.SortStableFunc(records, func(a, b Record) int { return cmp.Compare(a.Position, b.Position) })
		sound = sound[:0]
		for _, r := range records {
			if r.Position <= s.Last || r.Position > known.To { // it is there twice, or after the log's end
				continue
			}
			if s.First == 0 {
				s.First, s.Last = r.Position, min(known.From, r.Position)-1
			}
			if r.Position > s.Last+1 {
				lost = append(lost, Range{s.Last + 1, r.Position - 1})
			}
			s.Last = r.Position
			s.Records++
			sound = append(sound, r.Raw...)
		}
		if i == len(l.Files)-1 && s.Last < known.To {
			lost = append(lost, Range{max(s.Last+1, known.From), known.To})
			sound = l.Append(sound, f.Number, Record{Position: known.To, Removed: true})
			s.Last = known.To
		}
		if err := writeSynced(Path(dir, f.Number), sound); err != nil {
			return s, nil, err
		}
		s.Bytes += int64(len(sound))
		copied(int64(len(content)))
	}
	return s, lost, nil
}

func writeSynced(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
