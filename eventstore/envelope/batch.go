package envelope

import "github.com/synadia-io/orbit.go/jetstreamext"

// The server stores a message's headers, so it shows whether it is part of an atomic write.

// WriteID returns the id of the atomic write that the message is part of, "" for none.
func (m *Message) WriteID() string { return m.Header.Get(jetstreamext.BatchIDHeader) }

// WriteContinues reports whether the atomic write continues after the message.
func (m *Message) WriteContinues() bool {
	return m.WriteID() != "" && m.Header.Get(jetstreamext.BatchCommitHeader) == ""
}
