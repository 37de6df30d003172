package audit

import (
	"context"
	"slices"

	"chatsessions/domain"
	"chatsessions/projections/layout"
)

// sessionBatch is how many documents are read at once: a millisecond of Redis.
const sessionBatch = 256

// compare compares sessions of the log with their documents.
func (a *audit) compare(ctx context.Context, sessions []domain.Entry) error {
	parts := make([][]*domain.Entry, len(a.partitions))
	for i := range sessions {
		number := layout.PartitionNumber(sessions[i].Record.Event.Session.ID, len(parts))
		parts[number] = append(parts[number], &sessions[i])
	}
	for i, p := range a.partitions {
		for batch := range slices.Chunk(parts[i], sessionBatch) {
			if err := p.compare(ctx, batch); err != nil {
				return err
			}
		}
	}
	return nil
}

// compare compares sessions of the log with their documents. A document that is as
// expected, and the index entries that belong to it, are added to the expected tally.
func (p *partition) compare(ctx context.Context, sessions []*domain.Entry) error {
	documents := make([]*layout.Document, 0, len(sessions))
	keys := make([]string, 0, len(sessions))
	for _, session := range sessions {
		d, err := documentOf(session)
		if err != nil { // the session has to be parked
			if err := p.suspect(ctx, suspect{id: session.Record.Event.Session.ID}); err != nil {
				return err
			}
			continue
		}
		keys, documents = append(keys, p.keys.Document(d.ID)), append(documents, d)
	}
	if len(documents) == 0 {
		return nil
	}
	found, err := p.audit.rdb.MGet(ctx, keys...).Result()
	if err != nil {
		return err
	}
	for i, d := range documents {
		if d.Position <= p.audit.result.Position {
			p.audit.result.Sessions++
		}
		text, _ := found[i].(string)
		switch {
		case text == string(d.Value):
			p.audit.expected.add(p.keys.Partition.Number, "", d.Entries.Member[layout.MemberLength-idLength:], 0)
			for index := range d.Entries.Indexes() {
				p.audit.expected.add(p.keys.Partition.Number, index, d.Entries.Member, 0)
			}
		default:
			if stored, err := layout.DecodeDocument(text); err == nil && stored.Position > d.Position {
				continue // the tallies will differ unless that state is handed over too
			}
			if err := p.suspect(ctx, suspect{id: d.ID}); err != nil {
				return err
			}
		}
	}
	return nil
}

// documentOf returns the document that Redis has to hold, or why the session is parked.
func documentOf(session *domain.Entry) (*layout.Document, error) {
	if session.Err != nil {
		return nil, session.Err
	}
	return layout.NewDocument(session)
}
