package layout

import (
	"strconv"
	"strings"
)

// A checkpoint says which log a generation of the read model was made from, and how
// far that was read. It lies in Redis beside the documents, and moves only by
// compare-and-set in the transaction that writes them.
type Checkpoint struct {
	Identity   string // of the log
	Position   uint64 // every event up to it is in the read model
	Event      string // id of the event there, by which a log that was rewritten is told; "" where that has none
	Generation string // names the keys in which that is
	// filled counts the documents of a generation that is being filled with the newest
	// state of every session. Then position does not move.
	filled uint64
	State  State
}

// A checkpointState is what is going on with a generation.
type State byte

const (
	Projected State = 'p' // event by event
	Filling   State = 'f' // with the newest state of every session
	Complete  State = 'c' // a generation that was built beside is ready to take over
)

// String writes the checkpoint as it lies in Redis.
func (c Checkpoint) String() string {
	b := make([]byte, 0, 96)
	b = append(append(b, c.Identity...), ' ')
	b = append(strconv.AppendUint(b, c.Position, 10), ' ')
	b = append(append(b, c.Generation...), ' ', byte(c.State))
	b = append(strconv.AppendUint(b, c.filled, 10), ' ')
	return string(append(b, c.Event...))
}

// parseCheckpoint reads what String wrote, and refuses everything else that may
// stand in a checkpoint's place.
func ParseCheckpoint(text string) (c Checkpoint, ok bool) {
	identity, rest, _ := strings.Cut(text, " ")
	position, rest, _ := strings.Cut(rest, " ")
	generation, rest, _ := strings.Cut(rest, " ")
	state, event, ok := strings.Cut(rest, " ")
	if !ok || identity == "" || generation == "" || state == "" {
		return Checkpoint{}, false
	}
	c = Checkpoint{Identity: identity, Generation: generation, Event: event, State: State(state[0])}
	var err, err2 error
	c.Position, err = strconv.ParseUint(position, 10, 64)
	c.filled, err2 = strconv.ParseUint(state[1:], 10, 64)
	if err != nil || err2 != nil || !strings.ContainsRune("pfc", rune(c.State)) {
		return Checkpoint{}, false
	}
	return c, true
}

// after returns the checkpoint behind an event that was projected.
func (c Checkpoint) After(position uint64, event string) Checkpoint {
	c.Position, c.Event, c.filled = position, event, 0
	if c.State == Filling {
		c.State = Projected
	}
	return c
}

// fuller returns the checkpoint of a filling after so many more documents.
func (c Checkpoint) AfterFilling(documents int) Checkpoint {
	c.filled += uint64(documents) //nolint:gosec // not negative
	return c
}
