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

// Log is what the projector and the read model need of the event log.
type Log interface {
	// Identity names the log: another log, or the same one created anew, has
	// another identity. It holds no spaces, and does not change while the log is open.
	Identity() string
	// End returns the position of the newest event, 0 for an empty log. It is
	// asked of the log's leader: every event that was acknowledged before the
	// call is at or before it.
	End(ctx context.Context) (uint64, error)
	// Follow hands over all events after a position, in order and without a gap,
	// in batches of about limit events, until ctx ends or handle fails, whose
	// error it returns. A batch holds what there is: it never waits to fill up.
	// Its events may not be durable yet; an atomic write is never cut in two.
	Follow(ctx context.Context, after uint64, limit int, handle func([]domain.Entry) error) error
	// Newest hands over the newest event of every session, in the order of the log, and
	// returns the position up to which that is so, which is that of the last of them, or
	// 0. The events may not be durable yet.
	Newest(ctx context.Context, limit int, handle func([]domain.Entry) error) (end uint64, err error)
	// EventID returns the id of the event at a position, asked of the log's leader; ""
	// where there is none.
	EventID(ctx context.Context, position uint64) (string, error)
	// Durable returns when the events up to a position are durable.
	Durable(ctx context.Context, position uint64) error
}
