package audit

import (
	"hash/maphash"
	"math/bits"
	"slices"
)

const (
	// tallyPlaces is how many sums a tally has: 2 MB.
	tallyPlaces = 1 << 18
	idLength    = 16 // bytes of a session's id in an index member, at its end
)

// A tally sums up documents and index entries, each by a hash of 64 bits, in a place that
// depends on the session's id. Two tallies of the same elements are equal, in whatever
// order these were added. Where two differ, at least one session of that place has a
// document or an entry in one of them that the other one lacks.
type tally struct {
	seed maphash.Seed
	sums []uint64
}

// newTally returns an empty tally. Only tallies with the same seed can be compared.
func newTally(seed maphash.Seed) tally { return tally{seed, make([]uint64, tallyPlaces)} }

// add adds an index entry; with index "", a document, whose member is only the id at its end.
func (t tally) add(partition int, index, member string, score float64) {
	h := maphash.String(t.seed, index) ^ bits.RotateLeft64(maphash.String(t.seed, member), 32) ^ uint64(partition) //nolint:gosec // not negative
	if score != 0 {
		h = ^h
	}
	// The finalizer of SplitMix64, so that sums differ where their elements do.
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	t.sums[t.place(member)] += h ^ h>>31
}

// place returns the place of a session, by an index member or the id at its end.
func (t tally) place(member string) uint64 {
	return maphash.String(t.seed, member[len(member)-idLength:]) % tallyPlaces
}

func (t tally) differs(other tally) bool { return !slices.Equal(t.sums, other.sums) }

// differsAt reports whether two tallies differ at the place of a session.
func (t tally) differsAt(other tally, member string) bool {
	at := t.place(member)
	return t.sums[at] != other.sums[at]
}
