// Package projections keeps the read model: it projects the event log into
// Redis, and answers from there.
//
// One [Projector] follows the log and writes each session's newest state, with
// the index entries that lists need, beside a checkpoint that says which log
// this is and how far it was read. A [ReadModel] answers by id and with lists.
// It gives an answer only when it can show that every write which any node has
// answered is in it; otherwise it says [domain.ErrUnavailable].
package projections

import (
	"context"

	"chatsessions/domain"
)

// Log is what projectors and read models need of the event log.
type Log interface {
	// Identity names the log. Another log, or the same one created again, has another
	// identity. It holds no spaces and does not change while the log is open.
	Identity() string
	// End returns the position of the newest event, 0 for an empty log. The log's leader
	// is asked, so every event acknowledged before the call is at or before it.
	End(ctx context.Context) (uint64, error)
	// Follow passes all events after a position to handle, in order and without a gap, in
	// batches of about limit events. It returns when ctx ends or with handle's error. A
	// batch holds what is there; it never waits to fill up. Its events may not be durable
	// yet. An atomic write is never split.
	Follow(ctx context.Context, after uint64, limit int, handle func([]domain.Entry) error) error
	// Newest passes the newest event of every session to handle, in log order. It returns
	// the position of the last one, 0 for none: up to there nothing is missing. The
	// events may not be durable yet.
	Newest(ctx context.Context, limit int, handle func([]domain.Entry) error) (end uint64, err error)
	// EventID returns the id of the event at a position as the log's leader has it, ""
	// for none.
	EventID(ctx context.Context, position uint64) (string, error)
	// Durable returns when the events up to a position are durable.
	Durable(ctx context.Context, position uint64) error
}
