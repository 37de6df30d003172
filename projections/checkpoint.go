package projections

import (
	"strconv"
	"strings"
)

// A checkpoint says which log a generation of the read model was made from, and how
// far that was read. It lies in Redis beside the documents, and moves only by
// compare-and-set in the transaction that writes them.
type checkpoint struct {
	identity   string // of the log
	position   uint64 // every event up to it is in the read model
	event      string // id of the event there, by which a log that was rewritten is told; "" where that has none
	generation string // names the keys in which that is
	// filled counts the documents of a generation that is being filled with the newest
	// state of every session. Then position does not move.
	filled uint64
	state  checkpointState
}

// A checkpointState is what is going on with a generation.
type checkpointState byte

const (
	projected checkpointState = 'p' // event by event
	filling   checkpointState = 'f' // with the newest state of every session
	complete  checkpointState = 'c' // a generation that was built beside is ready to take over
)

// String writes the checkpoint as it lies in Redis.
func (c checkpoint) String() string {
	b := make([]byte, 0, 96)
	b = append(append(b, c.identity...), ' ')
	b = append(strconv.AppendUint(b, c.position, 10), ' ')
	b = append(append(b, c.generation...), ' ', byte(c.state))
	b = append(strconv.AppendUint(b, c.filled, 10), ' ')
	return string(append(b, c.event...))
}

// parseCheckpoint reads what String wrote, and refuses everything else that may
// stand in a checkpoint's place.
func parseCheckpoint(text string) (c checkpoint, ok bool) {
	identity, rest, _ := strings.Cut(text, " ")
	position, rest, _ := strings.Cut(rest, " ")
	generation, rest, _ := strings.Cut(rest, " ")
	state, event, ok := strings.Cut(rest, " ")
	if !ok || identity == "" || generation == "" || state == "" {
		return checkpoint{}, false
	}
	c = checkpoint{identity: identity, generation: generation, event: event, state: checkpointState(state[0])}
	var err, err2 error
	c.position, err = strconv.ParseUint(position, 10, 64)
	c.filled, err2 = strconv.ParseUint(state[1:], 10, 64)
	if err != nil || err2 != nil || !strings.ContainsRune("pfc", rune(c.state)) {
		return checkpoint{}, false
	}
	return c, true
}

// after returns the checkpoint behind an event that was projected.
func (c checkpoint) after(position uint64, event string) checkpoint {
	c.position, c.event, c.filled = position, event, 0
	if c.state == filling {
		c.state = projected
	}
	return c
}

// fuller returns the checkpoint of a filling after so many more documents.
func (c checkpoint) fuller(documents int) checkpoint {
	c.filled += uint64(documents) //nolint:gosec // not negative
	return c
}
