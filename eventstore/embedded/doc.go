// Package embedded runs the NATS server of the log inside the process, and makes the log
// durable: JetStream acknowledges a message before it is synced, so nothing is answered
// before it has passed a barrier (docs/decisions/0005).
//
// Read the files in this order:
//
//   - stored.go: the log in a store directory, as it is found and checked without a server
//   - inspect.go: the check before a server starts, and in the background
//   - durable.go: what is known to be on disk, noted beside the log
//   - server.go: Start, Settle, Durable, Shutdown
//   - barrier.go: one sync for all callers that are waiting
//   - files.go: the server's block files, and how they are synced
//   - intents.go: atomic writes in flight, so that a cut one is completed
//   - storedir.go: clean and unclean ends of a run, syncing a tree
//   - syncer.go: the barrier of a reader in another process
//   - inprocess.go: connections that accept writes at once
//   - offline.go: a stopped log, opened for reading
//   - salvage.go: a copy of what is sound in a damaged log
//   - datasync_*.go: fdatasync
//
// # Invariants
//
//   - The server gets a log only when every record up to the durable position has passed its
//     check; after a clean end, the newest file before, and the others while it runs.
//   - The durable position is written only after the sync that it describes.
//   - Durable returns nil only after a sync that began when the event was in its file.
//   - A failed sync is never repeated. It is final, and ends all writes.
//   - Settle returns only when the log is on disk as it was found, with every cut write
//     completed.
//   - The intent of an atomic write is on disk before the server gets the write, and stays
//     until the write is on disk as a whole, or can never be in the log.
//   - Files only grow. The barrier fails if a block file is replaced.
//   - The server writes its files as layout_test.go says.
//
// # Goroutines
//
// A barrier has one, run, which close ends; those that wait to remove an intent end with it.
// An in-process connection has one, forward, which ends when the connection is closed. A
// Server has one that notes the durable position, and one that checks the older files; they
// end with Shutdown, like the NATS server's own.
//
// # Locks
//
// Server.settling is taken first. barrier.mu and bufferedConn.mu are leaves.
package embedded
