package replay

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"

	"chatsessions/domain"
	"chatsessions/domain/cloudevent"
	"chatsessions/eventstore/envelope"
)

// A format writes events for people or programs.
type format interface {
	// write writes events, and what stands for unreadable messages.
	write(batch []domain.Entry) error
	// close writes what follows the last event.
	close() error
}

// A Printer is the Output that prints.
type Printer struct {
	format        format
	last          uint64 // position of the newest printed event
	wrote, failed bool
}

// NewPrinter returns a printer that continues after a position, of table, csv, json (an
// array, like a history over HTTP), or ndjson (CloudEvents).
func NewPrinter(name string, w io.Writer, after uint64) *Printer {
	out := bufio.NewWriterSize(w, 256<<10)
	p := &Printer{last: after}
	switch name {
	case "json":
		p.format = &jsonFormat{out: out, first: "[\n", next: ",\n", end: "\n]\n", empty: "[]\n", appendEvent: cloudevent.AppendHistory}
	case "ndjson":
		p.format = &jsonFormat{out: out, next: "\n", end: "\n", appendEvent: cloudevent.Append}
	case "csv":
		p.format = newCSV(out)
	default:
		p.format = &tableFormat{out: out, actorWidth: len("WHO")}
	}
	return p
}

// NewSessionPrinter is NewPrinter for events of one session: a table leaves it out.
func NewSessionPrinter(name string, w io.Writer) *Printer {
	p := NewPrinter(name, w, 0)
	if table, ok := p.format.(*tableFormat); ok {
		table.oneSession = true
	}
	return p
}

// Add implements Output.
func (p *Printer) Add(batch []domain.Entry) error {
	p.wrote = true
	if err := p.format.write(batch); err != nil {
		p.failed = true
		return err
	}
	p.last = batch[len(batch)-1].Record.Position
	return nil
}

// Pending implements Output.
func (*Printer) Pending() int { return 0 }

// Flush implements Output.
func (*Printer) Flush(context.Context, func(uint64)) error { return nil }

// End prints what follows the last event.
func (p *Printer) End() error { return p.format.close() }

// Resume ends what was printed before an error, and returns the position after which the
// rest follows; ok is false if that cannot be known.
func (p *Printer) Resume() (after uint64, ok bool) {
	if p.failed || p.wrote && p.End() != nil {
		return 0, false
	}
	return p.last, true
}

// A jsonFormat writes events as JSON, with something before, between, and after them.
type jsonFormat struct {
	out                     *bufio.Writer
	first, next, end, empty string
	appendEvent             func([]byte, *domain.Record) []byte
	line                    []byte
	began                   bool
}

func (f *jsonFormat) write(batch []domain.Entry) error {
	for i := range batch {
		before := f.next
		if !f.began {
			f.began, before = true, f.first
		}
		f.line = append(f.line[:0], before...)
		if e := &batch[i]; e.Err == nil {
			f.line = f.appendEvent(f.line, e.Record)
		} else {
			f.line = appendUnreadable(f.line, e)
		}
		if _, err := f.out.Write(f.line); err != nil {
			return err
		}
	}
	return nil
}

func (f *jsonFormat) close() error {
	after := f.end
	if !f.began {
		after = f.empty
	}
	_, _ = f.out.WriteString(after) // Flush returns the error
	return f.out.Flush()
}

// appendUnreadable writes what stands for an unreadable message. It is no CloudEvent, so
// that no program takes it for one.
func appendUnreadable(b []byte, e *domain.Entry) []byte {
	line, err := json.Marshal(struct {
		Position   uint64 `json:"position"`
		SessionID  string `json:"sessionId"`
		Unreadable string `json:"unreadable"`
	}{e.Record.Position, e.Record.Event.Session.ID, reason(e)})
	if err != nil {
		panic(err) // a number and two texts
	}
	return append(b, line...)
}

// reason is why a message cannot be read.
func reason(e *domain.Entry) string {
	var unreadable *envelope.UnreadableError
	if errors.As(e.Err, &unreadable) {
		return unreadable.Err.Error()
	}
	return e.Err.Error()
}
