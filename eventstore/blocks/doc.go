// Package blocks reads the block files of a NATS stream without a server, and changes
// nothing. The server itself cuts a file at the first record that fails its check, and its
// check leaves out the length of the headers; this package names the record instead
// (docs/decisions/0017-the-log-is-read-before-it-is-trusted.md).
//
// Read the files in this order:
//
//   - files.go: the files of a stream, in the order in which they were written
//   - record.go: one record of a file, and its check
//   - scan.go: all records in order, and every damage between them
//   - salvage.go: a copy of the sound records
//
// # Invariants
//
//   - A record is reported only if its checksum, its headers, and its subject are sound.
//   - The positions of reported records increase. Every position between the first and the
//     last record of a scan was either reported as a record or within a Damage.
//   - Files are opened for reading only.
//
// There are no goroutines and no locks. A scan of a log that grows sees a part of it; use it
// only on a stopped log.
package blocks
