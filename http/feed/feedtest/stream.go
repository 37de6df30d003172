// Package feedtest reads the feed in tests, as a client does that keeps to the standard. It
// does not look for a byte order mark or for invalid UTF-8.
package feedtest

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// An Event is what a client gets (HTML Living Standard, section 9.2.6).
type Event struct {
	ID   string // the last event ID when it was dispatched
	Type string
	Data string
}

// A Stream interprets an event stream. It is not safe for concurrent use.
type Stream struct {
	LastEventID string        // what a client that reconnects would send
	Retry       time.Duration // as the server asked for; 0 if it did not
	Comments    int

	in *bufio.Reader
	id string // the last event ID buffer
}

// NewStream reads a stream from its first byte on.
func NewStream(in io.Reader) *Stream { return &Stream{in: bufio.NewReader(in)} }

// Next returns the next event. What the stream's end cuts is no event.
func (s *Stream) Next() (Event, error) {
	for {
		e, dispatched, err := s.Step()
		if dispatched || err != nil {
			return e, err
		}
	}
}

// Step reads up to the next blank line; dispatched is false if it had no data.
func (s *Stream) Step() (e Event, dispatched bool, err error) {
	var data strings.Builder
	for {
		line, err := s.line()
		if err != nil {
			return e, false, err
		}
		if line == "" {
			break
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "": // a comment, if there was a colon
			s.Comments++
		case "event":
			e.Type = value
		case "data":
			data.WriteString(value + "\n")
		case "id":
			if !strings.Contains(value, "\x00") {
				s.id = value
			}
		case "retry":
			if ms, err := strconv.ParseUint(value, 10, 31); err == nil {
				s.Retry = time.Duration(ms) * time.Millisecond
			}
		}
	}
	s.LastEventID = s.id
	if data.Len() == 0 {
		return Event{}, false, nil
	}
	e.ID, e.Data = s.id, strings.TrimSuffix(data.String(), "\n")
	if e.Type == "" {
		e.Type = "message"
	}
	return e, true, nil
}

// line returns the next line. The service ends lines with LF alone: a CR inside would end
// one too.
func (s *Stream) line() (string, error) {
	line, err := s.in.ReadString('\n')
	if strings.Contains(line, "\r") {
		err = fmt.Errorf("a line with a CR: %q", line)
	}
	return strings.TrimSuffix(line, "\n"), err
}
