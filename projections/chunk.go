package projections

// A chunk is what one transaction writes: the newest state of some sessions.
type chunk struct {
	documents []*document
	at        map[string]int // index in documents, by session id
	bytes     int
	newest    *document
}

func newChunk() *chunk { return &chunk{at: map[string]int{}} }

// full says whether a document has to go into another chunk. An atomic write is of
// one session, and is not cut.
func (c *chunk) full(d *document) bool {
	if c.newest == nil || d.id == c.newest.id {
		return false
	}
	_, known := c.at[d.id]
	return c.bytes+len(d.value) > maxBatchBytes || (!known && len(c.documents) >= maxBatchEvents)
}

// put adds a session as an event left it, in the place of what older events did.
func (c *chunk) put(d *document) {
	c.newest = d
	c.bytes += len(d.value)
	i, known := c.at[d.id]
	if !known {
		c.at[d.id] = len(c.documents)
		c.documents = append(c.documents, d)
		return
	}
	older := c.documents[i]
	c.bytes -= len(older.value)
	d.before = older.before // that is what lies in Redis
	c.documents[i] = d
}

// indexChanges are what leaves and what enters each index, as arguments of ZREM
// and ZADD: one command for each index, not one for each of its members.
type indexChanges struct{ leaving, entering map[string][]any }

// diff compares documents with what they replace.
func diff(documents []*document) indexChanges {
	changes := indexChanges{map[string][]any{}, map[string][]any{}}
	var zero any = 0
	for _, d := range documents {
		moved := d.before.member != d.member
		var member any = d.before.member
		for name := range d.before.indexes() {
			if moved || !d.isIn(name) {
				changes.leaving[name] = append(changes.leaving[name], member)
			}
		}
		member = d.member
		for name := range d.indexes() {
			if moved || !d.before.isIn(name) {
				changes.entering[name] = append(changes.entering[name], zero, member)
			}
		}
	}
	return changes
}
