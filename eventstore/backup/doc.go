// Package backup saves a log to a file, and restores it: from a running service or a stopped
// one, embedded or not, and into an empty place only.
//
// A backup is a zip archive: meta.inf, the server's description of the stream; its block
// files; and at the end manifest.json, which says what the archive holds. Every record is
// checked when it is saved, and again before anything is restored.
//
// Read the files in this order:
//
//   - archive.go: the format, written and read
//   - save.go: from a server, or from the files of a stopped log
//   - restore.go: to a server, or to a store directory
//
// # Invariants
//
//   - A backup exists under its name only when it is complete and on disk.
//   - A restored log has a new identity, because the original may have gone on.
//   - A backup ends with a whole write, of which every event is durable.
//   - Restore writes nothing before the whole archive has passed its check, and nothing where
//     a log is.
//
// A restore to a server has one goroutine, which encodes the archive for the server and ends
// with the restore. There are no locks.
package backup
