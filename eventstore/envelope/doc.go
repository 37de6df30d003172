// Package envelope converts between events and the messages that the log stores. A message
// is a CloudEvent in binary mode: attributes in headers, the changes and the session after
// them as data.
//
// Read the files in this order:
//
//   - envelope.go: subjects, headers, Encode, Decode, and what an audit checks beyond them
//   - batch.go: the headers by which a stored message is part of an atomic write
//   - headers.go: the encoding of header values
//   - upcast.go: old shapes of data, converted when they are read
//
// testdata holds a golden file for each event type in each version of the format. Golden
// files are never changed; see docs/decisions/0011.
//
// # Invariants
//
//   - Decode never takes a message for an event that it is not: anything unexpected is an
//     UnreadableError with the message's position.
//   - The subject, ce-subject, and the id in the data name the same session.
//   - Encode's output decodes to the event that it was made from, whatever text the
//     headers carry.
//   - The format only grows: headers and shapes are added, never renamed or reused.
//
// The package has no state, no goroutines, and no locks.
package envelope
