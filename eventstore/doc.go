// Package eventstore keeps the events of all sessions in a NATS JetStream
// stream, the log: it appends with optimistic concurrency, loads a session,
// walks its history and follows the whole log.
//
// Every message is a CloudEvent in binary mode on the literal subject of its
// session and carries the session after it. Loading a session is therefore one
// read of the last message on its subject, and the sequence of that message is
// the version against which an append is checked.
//
// Nothing that is derived from an event leaves the package before the event is
// on disk; see Options.Durable.
package eventstore
