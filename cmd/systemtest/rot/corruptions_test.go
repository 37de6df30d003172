package rot

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
)

// A corruption damages a block file. It returns the file's index and its new content, nil if
// the file is lost.
type corruption struct {
	name  string
	apply func(rng *rand.Rand, blocks []block) (file int, content []byte)
}

var corruptions = []corruption{
	{"bit", func(rng *rand.Rand, blocks []block) (int, []byte) {
		file := rng.IntN(len(blocks))
		content := bytes.Clone(blocks[file].content)
		content[rng.IntN(len(content))] ^= 1 << rng.IntN(8)
		return file, content
	}},
	{"zeroed page", func(rng *rand.Rand, blocks []block) (int, []byte) {
		file := rng.IntN(len(blocks))
		content := bytes.Clone(blocks[file].content)
		at := rng.IntN(len(content)) &^ 4095
		clear(content[at:min(at+4096, len(content))])
		return file, content
	}},
	{"swapped records", func(rng *rand.Rand, blocks []block) (int, []byte) {
		file := rng.IntN(len(blocks))
		content, records := blocks[file].content, blocks[file].records
		i := rng.IntN(len(records) - 1)
		one, other := records[i], records[i+1]
		return file, slices.Concat(content[:one.start], content[other.start:other.end], content[one.start:one.end], content[other.end:])
	}},
	{"header length", func(rng *rand.Rand, blocks []block) (int, []byte) {
		file := rng.IntN(len(blocks))
		content, records := bytes.Clone(blocks[file].content), blocks[file].records
		at := records[rng.IntN(len(records))].start
		at += 22 + int(binary.LittleEndian.Uint16(content[at+20:])) // behind the subject
		content[at+rng.IntN(4)] ^= 1 << rng.IntN(8)
		return file, content
	}},
	{"cut tail", func(rng *rand.Rand, blocks []block) (int, []byte) {
		file := len(blocks) - 1
		return file, blocks[file].content[:rng.IntN(len(blocks[file].content))]
	}},
	{"cut at a record", func(rng *rand.Rand, blocks []block) (int, []byte) {
		file := rng.IntN(len(blocks))
		records := blocks[file].records
		return file, blocks[file].content[:records[rng.IntN(len(records))].start]
	}},
	{"hole before the tail", func(rng *rand.Rand, blocks []block) (int, []byte) {
		file := len(blocks) - 1
		content := bytes.Clone(blocks[file].content)
		at := len(content) - 1 - rng.IntN(len(content)/2)
		clear(content[max(0, at-8192):at])
		return file, content
	}},
	{"lost file", func(rng *rand.Rand, blocks []block) (int, []byte) {
		return rng.IntN(len(blocks)), nil
	}},
}

// affected returns the positions of a block file whose records are not where they were.
func (b block) affected(content []byte) (positions []int) {
	for _, r := range b.records {
		if r.end > len(content) || !bytes.Equal(b.content[r.start:r.end], content[r.start:r.end]) {
			positions = append(positions, r.position)
		}
	}
	return positions
}
