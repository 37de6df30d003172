package projections

import (
	"strconv"
	"strings"
)

// A checkpoint says which log the read model was made from, and how far that was
// read. It lies in Redis beside the documents, and moves only by compare-and-set
// in the transaction that writes them.
type checkpoint struct {
	identity string // of the log
	position uint64 // of the newest event that is in the read model
}

func (c checkpoint) String() string {
	return c.identity + " " + strconv.FormatUint(c.position, 10)
}

// parseCheckpoint reads what String wrote. It refuses everything else that may
// stand in a checkpoint's place: nothing, or the mark of a model being cleared.
func parseCheckpoint(text string) (checkpoint, bool) {
	identity, position, ok := strings.Cut(text, " ")
	if !ok || identity == "" {
		return checkpoint{}, false
	}
	n, err := strconv.ParseUint(position, 10, 64)
	if err != nil {
		return checkpoint{}, false
	}
	return checkpoint{identity, n}, true
}
