// Package projections is the root of the read model: the part of the service that answers
// reads. It holds what its packages share: the [Log] that they follow, how they read
// checkpoints, and the time [Bound] on which freshness rests.
//
// An event takes this path: the log → projector (writes documents, indexes, and a
// checkpoint in one transaction) → Redis → readmodel (answers a GET or a list).
//
//	layout         names of keys, and encodings of documents, index members, and
//	               checkpoints. Pure.
//	redisconn      connects to a Redis server, a Redis Cluster, or sentinels.
//	projector      follows the log and writes; rebuilds; retries parked sessions.
//	readmodel      answers by id and with lists, or refuses.
//	audit          compares the read model with the log, for verify and for rebuilds.
//	embeddedredis  a Redis inside the process, for a service without one.
//	logtest, modeltest, redistest  support of tests only.
//
// layout imports domain only, the root imports layout, and redisconn neither. projector,
// readmodel, and audit import both; projector also imports audit, which compares for a
// rebuild. readmodel and projector meet only in Redis. cmd wires them.
//
// Files, in reading order: doc.go (Log), checkpoints.go (reading checkpoints, errors).
//
// # Invariants
//
//   - The read model changes only in transactions that also move the checkpoint of the same
//     partition, from exactly the value that the writer last saw. (Retry rewrites the
//     checkpoint with its own value, which makes a transaction in progress start over.)
//   - A checkpoint at position p: every event up to p is in the documents and indexes of its
//     generation, and all of them are durable. (The embedded Redis may be ahead of the disk;
//     the read model then waits before it shows anything.)
//   - A generation is live, and answers, only when its checkpoint is at Partition.Checkpoint
//     and its state is Projected.
//   - Every answered write is in the answer, or there is no answer: see Bound.
//   - An event that cannot be projected hides its session and nothing else.
//
// # Goroutines and locks
//
// This package starts none and holds none.
package projections

import (
	"context"

	"chatsessions/domain"
)

// Log is what projectors and read models need of the event log.
type Log interface {
	// Identity names the log, without spaces. The same log created again has another
	// identity.
	Identity() string
	// End returns the position of the newest event as the log's leader has it, 0 for none.
	// Every event acknowledged before the call is at or before it.
	End(ctx context.Context) (uint64, error)
	// Follow passes all events after a position to handle, in order and without a gap, in
	// batches of about limit events, which do not wait to fill up. It returns when ctx ends
	// or with handle's error. The events may not be durable yet. An atomic write is never
	// split.
	Follow(ctx context.Context, after uint64, limit int, handle func([]domain.Entry) error) error
	// Newest passes the newest event of every session to handle, in log order. It returns
	// the position of the last one, 0 for none. The events may not be durable yet.
	Newest(ctx context.Context, limit int, handle func([]domain.Entry) error) (end uint64, err error)
	// EventID returns the id of the event at a position as the log's leader has it, ""
	// for none.
	EventID(ctx context.Context, position uint64) (string, error)
	// Durable returns when the events up to a position are durable.
	Durable(ctx context.Context, position uint64) error
}
