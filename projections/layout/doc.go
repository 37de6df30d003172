// Package layout defines how the read model is stored in Redis: the names of its keys and
// the encodings of its documents, index members, checkpoints, and notes of parked sessions.
// It does no I/O. The stored format is shared with nodes of other versions: see
// docs/decisions/0011.
//
// Files, in reading order:
//
//	keys.go        partitions, generations, and the names of their keys; index members
//	checkpoint.go  which log a generation was made from, and how far
//	document.go    a session and its places in the indexes
//	parked.go      the note of a session that cannot be shown
//
// # Invariants
//
//   - All keys of a partition share a hash tag, so one transaction can change them.
//   - The byte order of index members is the order of (createdAt, id).
//   - A document's entries name exactly the indexes that hold its member.
//   - What one version wrote, every later version of the same layout reads.
//
// The package has no goroutines, no locks, and no state.
package layout
