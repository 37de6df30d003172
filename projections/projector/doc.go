// Package projector follows the log and writes the read model. Any number of projectors may
// run: the checkpoint decides which one advances, the others stand by and take over when it
// stops.
//
// Files, in reading order:
//
//	projector.go        Projector: Run, fill an empty read model, follow the log
//	partitionwriter.go  one generation of one partition: apply a batch, park, heal
//	chunk.go            what one transaction writes; which index entries change
//	transaction.go      WATCH/MULTI/EXEC on the checkpoint
//	resume.go           where to resume; adopting a rebuilt generation; standing by
//	sweep.go            removes unused generations (sweep.lua)
//	rebuild.go          Rebuild: compares the read model with the log, fills a new generation, has it adopted (rebuilding.lua)
//	parked.go           lists and retries parked sessions (retry.lua)
//
// # Invariants
//
//   - A commit moves the checkpoint from exactly the value that this projector last saw, or
//     writes nothing (errDeposed, errUnexpected). A private Redis has one projector, so its
//     checkpoint is not watched.
//   - Documents, indexes, and checkpoint change in one transaction.
//   - Nothing is written before it is durable, except to a private Redis.
//   - Of several partitions, the first is written first, and a deposed projector fails there.
//   - A generation is adopted only after it has caught up with the one that it replaces.
//   - No event is skipped: one that cannot be projected parks its session.
//
// # Goroutines
//
// Projector.Run works in its caller's goroutine. While it follows the log, one more watches
// the checkpoints. While it fills, one reads the log and one writes. Partitions after the
// first are written by one goroutine each, per batch. Rebuild owns two: the lock's renewal
// and the stand-in projector. All end before Run or Rebuild returns.
//
// # Locks
//
// One: Projector.mu, held while a batch is written. The watcher only tries it.
package projector
