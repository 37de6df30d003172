// Package feed streams the events of the log to clients as server-sent events (HTML Living
// Standard, section 9.2).
//
// One [Hub] reads the log once for all readers of a node. A reader is in one of three
// states:
//
//	behind   a goroutine of its own catches it up: from the hub's newest events, or from
//	         the log. Every reader begins here, in the goroutine of its connection.
//	live     it has everything, and waits in a group, without a goroutine or a buffer.
//	         The hub writes new events to it without waiting.
//	ended    its stream has ended, for one reason, and its connection is closed.
//
// A live reader that takes less than it is sent falls behind. [Hub.end] is the only way
// into the last state.
//
// Files in reading order:
//
//   - stream.go: [Hub.Events], the handler: where a stream begins, and its head
//   - query.go: which events a reader asked for
//   - reader.go: a reader: what it gets, and how it is written to
//   - hub.go: [Hub]: limits, counters, readers that come and end
//   - reading.go: one pass over the log, shared by all readers
//   - group.go: live readers, found by what they wait for
//   - catchup.go: readers that are behind
//   - lookup.go: the events of a few sessions, without the log between them
//   - batch.go, ring.go: events in the form in which they are sent, and the newest of them
//
// # Invariants
//
//   - Nothing is sent before it is durable.
//   - A reader gets each of its events once, in the order of the log. reader.after is the
//     position up to which it was sent everything that it gets.
//   - An old event of a session that the reader may not see any more is not sent.
//   - The last event of a stream that the server ends (cut-off) says why, and from where
//     to resume.
//   - A slow reader delays no other. What it costs is bounded by its socket's buffer.
//   - A reader has one owner at a time: its group, under the group's lock, or one
//     goroutine.
//
// # Goroutines
//
// All belong to Hub.running, and [Hub.Close] waits for them. A reading has two: one follows
// the log, one sends heartbeats; they end with the reading, which ends when no reader is
// left for the time of one heartbeat, when the log cannot be followed, or with Close. A
// reader that is behind has one, until it is live or its stream has ended.
//
// # Lock order
//
// reading.mu before group.mu. Hub.mu is never held together with another lock.
package feed
