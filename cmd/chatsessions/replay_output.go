package main

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"chatsessions/domain"
	"chatsessions/domain/cloudevent"
	"chatsessions/eventstore/envelope"
)

// An eventWriter writes events in one of the formats for people and programs.
type eventWriter interface {
	// write writes events, and what cannot be read as such.
	write(batch []domain.Entry) error
	// end writes what comes behind the last.
	end() error
}

// outputBuffer is how much is written at once, in bytes.
const outputBuffer = 256 << 10

// newEventWriter returns a writer of table, csv, json (an array of events as a history
// shows them) or ndjson (CloudEvents). oneSession leaves the session out of the table.
func newEventWriter(format string, w io.Writer, oneSession bool) eventWriter {
	out := bufio.NewWriterSize(w, outputBuffer)
	switch format {
	case "json":
		return &arrayWriter{out: out}
	case "ndjson":
		return &linesWriter{out: out}
	case "csv":
		return &csvWriter{out: csv.NewWriter(out), flush: out.Flush}
	}
	return &tableWriter{out: out, oneSession: oneSession, who: len("WHO")}
}

// An arrayWriter writes a JSON array, a line for each event.
type arrayWriter struct {
	out   *bufio.Writer
	line  []byte
	began bool
}

func (w *arrayWriter) write(batch []domain.Entry) error {
	for i := range batch {
		w.line = append(w.line[:0], "[\n"...)
		if w.began {
			w.line = append(w.line[:0], ",\n"...)
		}
		w.began = true
		if r := &batch[i]; r.Err == nil {
			w.line = cloudevent.AppendHistory(w.line, r.Record)
		} else {
			w.line = appendUnreadable(w.line, r)
		}
		if _, err := w.out.Write(w.line); err != nil {
			return err
		}
	}
	return nil
}

func (w *arrayWriter) end() error {
	closing := "\n]\n"
	if !w.began {
		closing = "[]\n"
	}
	_, err := w.out.WriteString(closing)
	return errors.Join(err, w.out.Flush())
}

// A linesWriter writes a line of JSON for each event, a CloudEvent.
type linesWriter struct {
	out  *bufio.Writer
	line []byte
}

func (w *linesWriter) write(batch []domain.Entry) error {
	for i := range batch {
		if r := &batch[i]; r.Err == nil {
			w.line = cloudevent.Append(w.line[:0], r.Record)
		} else {
			w.line = appendUnreadable(w.line[:0], r)
		}
		w.line = append(w.line, '\n')
		if _, err := w.out.Write(w.line); err != nil {
			return err
		}
	}
	return nil
}

func (w *linesWriter) end() error { return w.out.Flush() }

// appendUnreadable writes what stands for a message that cannot be read. It is no
// CloudEvent, so that nobody takes it for one.
func appendUnreadable(b []byte, r *domain.Entry) []byte {
	line, err := json.Marshal(struct {
		Position   uint64 `json:"position"`
		SessionID  string `json:"sessionId"`
		Unreadable string `json:"unreadable"`
	}{r.Record.Position, r.Record.Event.Session.ID, reason(r)})
	if err != nil {
		panic(err) // a number and two texts
	}
	return append(b, line...)
}

// reason says why a message cannot be read.
func reason(r *domain.Entry) string {
	var unreadable *envelope.UnreadableError
	if errors.As(r.Err, &unreadable) {
		return unreadable.Err.Error()
	}
	return r.Err.Error()
}

// A csvWriter writes comma-separated values (RFC 4180) with a header line.
type csvWriter struct {
	out   *csv.Writer
	flush func() error
	began bool
}

var csvColumns = []string{"position", "time", "type", "session", "version", "state", "actor", "changes", "id", "correlationId"}

func (w *csvWriter) begin() error {
	if w.began {
		return nil
	}
	w.began, w.out.UseCRLF = true, true
	return w.out.Write(csvColumns)
}

func (w *csvWriter) write(batch []domain.Entry) error {
	if err := w.begin(); err != nil {
		return err
	}
	for i := range batch {
		r := &batch[i]
		line := []string{strconv.FormatUint(r.Record.Position, 10), "", "unreadable", noFormula(r.Record.Event.Session.ID), "", "", "", noFormula(reasonOf(r)), "", ""}
		if e := r.Record; r.Err == nil {
			line = []string{
				line[0], e.Time.UTC().Format(domain.TimeFormat), noFormula(string(e.Event.Type)), line[3],
				strconv.FormatUint(r.Record.Event.Session.Version, 10), noFormula(string(r.Record.Event.Session.State)), noFormula(e.Request.Actor),
				string(e.Event.Changes), noFormula(e.ID), noFormula(e.Request.CorrelationID),
			}
		}
		if err := w.out.Write(line); err != nil {
			return err
		}
	}
	return nil
}

func (w *csvWriter) end() error {
	if err := w.begin(); err != nil {
		return err
	}
	w.out.Flush()
	return errors.Join(w.out.Error(), w.flush())
}

// reasonOf is reason for any event, "" for one that can be read.
func reasonOf(r *domain.Entry) string {
	if r.Err == nil {
		return ""
	}
	return reason(r)
}

// noFormula keeps a spreadsheet from taking a text for a formula. Clients choose
// accounts and correlation ids, and a formula runs on the auditor's machine
// (OWASP, CSV Injection).
func noFormula(s string) string {
	if first, _ := utf8.DecodeRuneInString(s); strings.ContainsRune("=+-@\t\r\n＝＋－＠", first) && s != "" {
		return "'" + s
	}
	return s
}

// A tableWriter writes lines for people. The column of accounts is as wide as the
// longest so far: how long others are is not known.
type tableWriter struct {
	out        *bufio.Writer
	oneSession bool
	began      bool
	who        int // characters of the longest account
}

func (w *tableWriter) write(batch []domain.Entry) error {
	for i := range batch {
		if r := batch[i].Record; r != nil {
			w.who = max(w.who, utf8.RuneCountInString(plain(r.Request.Actor)))
		}
	}
	if !w.began {
		w.began = true
		w.line("POSITION", "TIME", "TYPE", "SESSION", "VERSION", "WHO", "CHANGES")
	}
	for i := range batch {
		r := &batch[i]
		position := strconv.FormatUint(r.Record.Position, 10)
		if r.Err != nil {
			w.line(position, "", "unreadable", plain(r.Record.Event.Session.ID), "", "", plain(reason(r)))
			continue
		}
		e := r.Record
		w.line(position, e.Time.UTC().Format(domain.TimeFormat), plain(strings.TrimPrefix(string(e.Event.Type), eventTypePrefix)),
			plain(r.Record.Event.Session.ID), strconv.FormatUint(r.Record.Event.Session.Version, 10), plain(e.Request.Actor), describe(e.Event.Changes))
	}
	// People want to see what is there; a bufio.Writer keeps the error.
	return w.out.Flush()
}

func (w *tableWriter) line(position, at, typ, session, version, who, changes string) {
	if !w.oneSession {
		typ = fmt.Sprintf("%-10s  %-36s", typ, session)
	}
	_, _ = fmt.Fprintf(w.out, "%8s  %-24s  %-10s  %7s  %-*s  %s\n", position, at, typ, version, w.who, who, changes)
}

func (w *tableWriter) end() error {
	if !w.began {
		_, _ = w.out.WriteString("No event matches.\n")
	}
	return w.out.Flush()
}

// describe tells a merge patch of a session in one line: what the other columns have is
// left out, times are written out, and null is what went.
func describe(changes json.RawMessage) string {
	members := json.NewDecoder(bytes.NewReader(changes))
	members.UseNumber()
	if _, err := members.Token(); err != nil {
		return plain(string(changes))
	}
	var told []string
	for members.More() {
		name, err := members.Token()
		var value any
		if err == nil {
			err = members.Decode(&value)
		}
		if err != nil {
			return plain(string(changes))
		}
		switch name := fmt.Sprint(name); name {
		case "id", "version", "updatedAt":
		default:
			told = append(told, plain(name)+" "+describeValue(name, value))
		}
	}
	return strings.Join(told, ", ")
}

func describeValue(name string, value any) string {
	switch v := value.(type) {
	case nil:
		return "removed"
	case json.Number:
		if ms, err := v.Int64(); err == nil && strings.HasSuffix(name, "At") {
			return time.UnixMilli(ms).UTC().Format(domain.TimeFormat)
		}
		return v.String()
	case []any:
		var all []string
		for _, one := range v {
			all = append(all, describeValue("", one))
		}
		return "[" + strings.Join(all, ", ") + "]"
	case string:
		if v == "" || name == "room" || strings.HasSuffix(name, "Reason") {
			return strconv.Quote(v)
		}
		return plain(v)
	}
	return plain(fmt.Sprint(value))
}

// plain is a text on a terminal: quoted where it could be taken for something else, or
// would do something to the terminal.
func plain(s string) string {
	if strings.TrimSpace(s) != s {
		return strconv.Quote(s)
	}
	for _, c := range s {
		if c == ',' || c == '[' || c == ']' || c == '"' || c == utf8.RuneError || !unicode.IsPrint(c) {
			return strconv.Quote(s)
		}
	}
	return s
}
