package feed

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"

	"chatsessions/domain"
	"chatsessions/domain/cloudevent"
	"chatsessions/http/problem"
)

// A batch is adjacent events, encoded once for all readers. It never changes once shared.
type batch struct {
	last   uint64 // position of the last event, even if that was left out
	bytes  []byte // the events as server-sent events, one after the other
	events []event
}

// An event is one event of a batch, with what decides who gets it.
type event struct {
	position   uint64
	start, end int // where it is in the batch's bytes
	typ        domain.EventType
	actor      string
	session    domain.Session // after the event; only ID, CreatedBy and Participants
	unreadable bool           // what the log has there is not an event
}

// newBatch returns a batch of all the events.
func newBatch(entries []domain.Entry) *batch {
	b := &batch{}
	for i := range entries {
		b.add(&entries[i], func(*event) bool { return true })
	}
	return b
}

// add appends an event if keep returns true.
func (b *batch) add(r *domain.Entry, keep func(*event) bool) {
	b.last = r.Record.Position
	e := event{position: r.Record.Position, session: domain.Session{ID: r.Record.Event.Session.ID}, start: len(b.bytes)}
	if r.Err != nil {
		e.unreadable = true
	} else {
		e.typ, e.actor = r.Record.Event.Type, r.Record.Request.Actor
		e.session.CreatedBy, e.session.Participants = r.Record.Event.Session.CreatedBy, r.Record.Event.Session.Participants
	}
	if !keep(&e) {
		return
	}
	b.bytes = appendEvent(b.bytes, r)
	e.end = len(b.bytes)
	b.events = append(b.events, e)
}

// size returns about how many bytes of memory the batch takes.
func (b *batch) size() int { return len(b.bytes) + 256*len(b.events) }

// wantedBy returns the indexes of the events that a reader gets.
func (b *batch) wantedBy(r *reader) []int {
	var wanted []int
	for i := range b.events {
		if b.events[i].position > r.after && r.gets(&b.events[i]) {
			wanted = append(wanted, i)
		}
	}
	return wanted
}

// appendEvent writes an event of the log as a server-sent event.
func appendEvent(b []byte, r *domain.Entry) []byte {
	if r.Err != nil {
		p := problem.Unavailable(r.Err, "what the log has at position %d, of session %s, cannot be read as an event", r.Record.Position, r.Record.Event.Session.ID)
		return appendProblem(b, "unreadable", r.Record.Position, p)
	}
	b = append(appendID(b, r.Record.Position), "event: "...)
	b = append(b, oneLine.Replace(string(r.Record.Event.Type))...)
	b = append(b, "\ndata: "...)
	start := len(b)
	b = cloudevent.Append(b, r.Record)
	// The service writes JSON without line breaks, which would end the data here.
	if bytes.ContainsAny(b[start:], "\r\n") {
		var compact bytes.Buffer
		if err := json.Compact(&compact, b[start:]); err == nil {
			b = append(b[:start], compact.Bytes()...)
		}
	}
	return append(b, "\n\n"...)
}

var oneLine = strings.NewReplacer("\r", " ", "\n", " ")

func appendID(b []byte, position uint64) []byte {
	b = strconv.AppendUint(append(b, "id: "...), position, 10)
	return append(b, '\n')
}

// appendProblem writes a problem as a server-sent event.
func appendProblem(b []byte, name string, position uint64, p *problem.Problem) []byte {
	shown := *p
	shown.Instance, shown.LastEventID = Path, strconv.FormatUint(position, 10)
	data, err := json.Marshal(shown)
	if err != nil {
		panic(err) // every member can be encoded
	}
	b = append(appendID(b, position), "event: "+name+"\ndata: "...)
	return append(append(b, data...), "\n\n"...)
}

// appendHeartbeat writes a comment and an id, without an event. The id moves the position from
// which a client with narrow filters resumes (HTML Living Standard, section 9.2.6).
func appendHeartbeat(b []byte, position uint64) []byte {
	return append(appendID(append(b, ": heartbeat\n"...), position), '\n')
}
