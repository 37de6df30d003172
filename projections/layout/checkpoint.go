package layout

import (
	"strconv"
	"strings"
)

// A Checkpoint says which log a generation was made from, and how far the log was read. It
// moves only by compare-and-set, in the transaction that writes the documents.
type Checkpoint struct {
	Identity   string // of the log
	Position   uint64 // every event up to it is in the read model
	Event      string // id of the event at Position, which shows whether the log was rewritten; "" for none
	Generation string
	// filled counts documents while State is Filling; Position stays 0 then. It shows other
	// projectors that this one is at work.
	filled uint64
	State  State
}

// A State is the stage of a generation.
type State byte

// The states: a generation ...
const (
	Projected State = 'p' // is kept up to date event by event
	Filling   State = 'f' // is being filled with the newest state of every session
	Complete  State = 'c' // was built beside the live one, and can take over
)

// String returns the checkpoint as it is stored.
func (c Checkpoint) String() string {
	b := make([]byte, 0, 96)
	b = append(append(b, c.Identity...), ' ')
	b = append(strconv.AppendUint(b, c.Position, 10), ' ')
	b = append(append(b, c.Generation...), ' ', byte(c.State))
	b = append(strconv.AppendUint(b, c.filled, 10), ' ')
	return string(append(b, c.Event...))
}

// ParseCheckpoint reads what String wrote and rejects anything else.
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

// After returns the checkpoint after an event was projected.
func (c Checkpoint) After(position uint64, event string) Checkpoint {
	c.Position, c.Event, c.filled = position, event, 0
	if c.State == Filling {
		c.State = Projected
	}
	return c
}

// AfterFilling returns the checkpoint after that many more documents were filled in.
func (c Checkpoint) AfterFilling(documents int) Checkpoint {
	c.filled += uint64(documents) //nolint:gosec // not negative
	return c
}
