// Package layout says how the read model lies in Redis: the names of its keys, documents,
// index members, checkpoints, and notes of parked sessions. It does no I/O.
package layout
