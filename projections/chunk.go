package projections

import (
	"strings"

	"chatsessions/domain"
)

// A document is a session as it is to be stored.
type document struct {
	id    string
	value string
	*stored
}

// A chunk is what one script writes: the newest state of some sessions.
type chunk struct {
	documents []document
	at        map[string]int // index in documents, by session id
	bytes     int
	last      uint64 // position of the newest event; 0 for an empty chunk
	lastID    string // its session
}

func newChunk() *chunk { return &chunk{at: map[string]int{}} }

// full says whether a session's next event has to go into another chunk. An
// atomic write is of one session, and is not cut.
func (c *chunk) full(id string, bytes int) bool {
	if c.last == 0 || id == c.lastID {
		return false
	}
	_, known := c.at[id]
	return c.bytes+bytes > maxBatchBytes || (!known && len(c.documents) >= maxBatchEvents)
}

// put adds a session as an event left it, in the place of what older events did.
func (c *chunk) put(event *domain.Recorded, value string) error {
	decoded, err := decodeDocument(value)
	if err != nil {
		return err
	}
	d := document{event.Session.ID, value, decoded}
	if i, known := c.at[d.id]; known {
		c.bytes -= len(c.documents[i].value)
		c.documents[i] = d
	} else {
		c.at[d.id] = len(c.documents)
		c.documents = append(c.documents, d)
	}
	c.bytes += len(value)
	c.last, c.lastID = event.Position, d.id
	return nil
}

// indexChanges are what leaves and what enters each index, as arguments of ZREM
// and ZADD. Calls in a script are dear: there is one for each index, not one for
// each of its members.
type indexChanges struct{ leaving, entering map[string][]any }

// diff compares documents with those that they replace, nil where there is none.
func diff(old []*stored, documents []document) indexChanges {
	changes := indexChanges{map[string][]any{}, map[string][]any{}}
	for i, d := range documents {
		was := old[i]
		moved := was == nil || was.member != d.member
		if was != nil {
			for name := range strings.FieldsSeq(was.indexes) {
				if moved || !d.isIn(name) {
					changes.leaving[name] = append(changes.leaving[name], was.member)
				}
			}
		}
		for name := range strings.FieldsSeq(d.indexes) {
			if moved || !was.isIn(name) {
				changes.entering[name] = append(changes.entering[name], 0, d.member)
			}
		}
	}
	return changes
}
