package replay

import (
	"bufio"
	"context"
	"encoding/csv"
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
	// end writes what follows the last event.
	end() error
}

// A Printer is the Output that prints.
type Printer struct {
	format        format
	last          uint64 // position of the newest printed event
	wrote, failed bool
}

// outputBuffer is how much is written at once, in bytes.
const outputBuffer = 256 << 10

// NewPrinter returns a printer of table, csv, json (an array of events, as a history shows
// them), or ndjson (CloudEvents) that continues after a position.
func NewPrinter(name string, w io.Writer, after uint64) *Printer {
	out := bufio.NewWriterSize(w, outputBuffer)
	p := &Printer{last: after}
	switch name {
	case "json":
		p.format = &arrayFormat{out: out}
	case "ndjson":
		p.format = &linesFormat{out: out}
	case "csv":
		p.format = &csvFormat{out: csv.NewWriter(out), flush: out.Flush}
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
func (p *Printer) End() error { return p.format.end() }

// Resume ends what was printed before an error, and returns the position after which the
// rest follows; ok is false if that cannot be known.
func (p *Printer) Resume() (after uint64, ok bool) {
	if p.failed || p.wrote && p.End() != nil {
		return 0, false
	}
	return p.last, true
}

// An arrayFormat is a JSON array, with a line for each event.
type arrayFormat struct {
	out   *bufio.Writer
	line  []byte
	began bool
}

func (f *arrayFormat) write(batch []domain.Entry) error {
	for i := range batch {
		f.line = append(f.line[:0], "[\n"...)
		if f.began {
			f.line = append(f.line[:0], ",\n"...)
		}
		f.began = true
		if e := &batch[i]; e.Err == nil {
			f.line = cloudevent.AppendHistory(f.line, e.Record)
		} else {
			f.line = appendUnreadable(f.line, e)
		}
		if _, err := f.out.Write(f.line); err != nil {
			return err
		}
	}
	return nil
}

func (f *arrayFormat) end() error {
	closing := "\n]\n"
	if !f.began {
		closing = "[]\n"
	}
	_, err := f.out.WriteString(closing)
	return errors.Join(err, f.out.Flush())
}

// A linesFormat has a line of JSON, a CloudEvent, for each event.
type linesFormat struct {
	out  *bufio.Writer
	line []byte
}

func (f *linesFormat) write(batch []domain.Entry) error {
	for i := range batch {
		if e := &batch[i]; e.Err == nil {
			f.line = cloudevent.Append(f.line[:0], e.Record)
		} else {
			f.line = appendUnreadable(f.line[:0], e)
		}
		f.line = append(f.line, '\n')
		if _, err := f.out.Write(f.line); err != nil {
			return err
		}
	}
	return nil
}

func (f *linesFormat) end() error { return f.out.Flush() }

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

// reason says why a message cannot be read.
func reason(e *domain.Entry) string {
	var unreadable *envelope.UnreadableError
	if errors.As(e.Err, &unreadable) {
		return unreadable.Err.Error()
	}
	return e.Err.Error()
}
