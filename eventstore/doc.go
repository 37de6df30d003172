// Package eventstore keeps the events of all sessions in a NATS JetStream stream, the log. It
// appends with optimistic concurrency, loads a session, walks its history, and follows the
// whole log.
//
// Every message is on the literal subject of its session and carries the session after its
// event. So loading a session is one read of the last message on its subject, and that
// message's sequence is the version against which an append is checked.
//
// Read the files in this order:
//
//   - log.go: Open, Close, Options, and Durability, the barrier between the server's
//     acknowledgement and ours
//   - transact.go: one command: load, decide, append; repeated requests
//   - write.go: the attempts to append the decided events
//   - publish.go: one attempt, and what the server's answer means
//   - read.go, request.go: reads of single messages, and the JetStream API under them
//   - history.go, session.go: the events of one session
//   - follow.go, consumer.go: the one loop that reads the log, and the consumer under it
//   - tail.go: events that this process appended, for its own followers
//   - cache.go: newest events of recently written sessions
//   - recovery.go: completes an atomic write that a crash has cut
//   - stream.go: the stream's settings
//   - connect.go, servers.go: connections, and whether a server syncs before it acknowledges
//
// The packages below it: envelope is the storage format, embedded the server inside the
// process, audit reads the whole log. natstest starts servers for tests. envelope does not
// import this package; embedded and audit do, never the reverse.
//
// # Invariants
//
//   - Nothing derived from an event leaves Transact, Load, History, Session, or End before
//     the event is durable. Follow, Read, and Newest leave that to their caller.
//   - All events of a write are appended, or none. Followers never get a part of a write.
//   - An error says whether the events may have been written: domain.ErrUnavailable means
//     that they are not and never will be.
//   - A result without an append is decided on the leader's newest event.
//   - A follower sees every event once, in order, or ends with ErrRewritten or ErrReplaced.
//
// # Goroutines
//
// A Log has one, which counts changes of the connection; Close ends it. Followers run in
// their caller's goroutine, and each has one that receives from its consumer, which ends with
// the consumer. Close also ends all followers, and waits for them.
//
// # Locks
//
// Log.mu orders the start of a follower before Close. tail.mu guards the tail and its
// readers. Neither is held while the other is taken, or during I/O.
package eventstore
