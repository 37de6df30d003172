package projector

import (
	"chatsessions/projections/layout"
)

// A chunk is what one transaction writes: the newest state of some sessions.
type chunk struct {
	documents []*layout.Document
	at        map[string]int // index in documents, by session id
	bytes     int
	newest    *layout.Document
}

func newChunk() *chunk { return &chunk{at: map[string]int{}} }

// full reports whether a document has to go into the next chunk. An atomic write belongs
// to one session and is never split.
func (c *chunk) full(d *layout.Document) bool {
	if c.newest == nil || d.ID == c.newest.ID {
		return false
	}
	_, known := c.at[d.ID]
	return c.bytes+len(d.Value) > maxBatchBytes || (!known && len(c.documents) >= maxBatchEvents)
}

// put adds a document. It replaces an older one of the same session.
func (c *chunk) put(d *layout.Document) {
	c.newest = d
	c.bytes += len(d.Value)
	i, known := c.at[d.ID]
	if !known {
		c.at[d.ID] = len(c.documents)
		c.documents = append(c.documents, d)
		return
	}
	older := c.documents[i]
	c.bytes -= len(older.Value)
	d.Before = older.Before // which is what Redis holds
	c.documents[i] = d
}

// indexChanges are the arguments of one ZREM and one ZADD per index.
type indexChanges struct{ leaving, entering map[string][]any }

// diff compares documents with what they replace.
func diff(documents []*layout.Document) indexChanges {
	changes := indexChanges{map[string][]any{}, map[string][]any{}}
	var zero any = 0
	for _, d := range documents {
		moved := d.Before.Member != d.Entries.Member
		var member any = d.Before.Member
		for name := range d.Before.Indexes() {
			if moved || !d.Entries.IsIn(name) {
				changes.leaving[name] = append(changes.leaving[name], member)
			}
		}
		member = d.Entries.Member
		for name := range d.Entries.Indexes() {
			if moved || !d.Before.IsIn(name) {
				changes.entering[name] = append(changes.entering[name], zero, member)
			}
		}
	}
	return changes
}
