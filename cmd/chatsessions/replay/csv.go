package replay

import (
	"bufio"
	"encoding/csv"
	"strconv"
	"strings"
	"unicode/utf8"

	"chatsessions/domain"
)

// A csvFormat is comma-separated values (RFC 4180) with a header line.
type csvFormat struct{ out *csv.Writer }

// newCSV writes the header line. The csv.Writer has no buffer beside out's.
func newCSV(out *bufio.Writer) csvFormat {
	f := csvFormat{csv.NewWriter(out)}
	f.out.UseCRLF = true
	_ = f.out.Write([]string{"position", "time", "type", "session", "version", "state", "actor", "changes", "id", "correlationId"}) // close returns the error
	return f
}

func (f csvFormat) write(batch []domain.Entry) error {
	for i := range batch {
		if err := f.out.Write(csvLine(&batch[i])); err != nil {
			return err
		}
	}
	return nil
}

func csvLine(e *domain.Entry) []string {
	r := e.Record
	session := &r.Event.Session
	position, id := strconv.FormatUint(r.Position, 10), noFormula(session.ID)
	if e.Err != nil {
		return []string{position, "", "unreadable", id, "", "", "", noFormula(reason(e)), "", ""}
	}
	return []string{
		position, r.Time.UTC().Format(domain.TimeFormat), noFormula(string(r.Event.Type)), id,
		strconv.FormatUint(session.Version, 10), noFormula(string(session.State)), noFormula(r.Request.Actor),
		string(r.Event.Changes), noFormula(r.ID), noFormula(r.Request.CorrelationID),
	}
}

func (f csvFormat) close() error {
	f.out.Flush()
	return f.out.Error()
}

// noFormula keeps a spreadsheet from taking a text for a formula. Clients choose accounts
// and correlation ids, and a formula runs on the auditor's machine (OWASP, CSV Injection).
func noFormula(s string) string {
	if first, _ := utf8.DecodeRuneInString(s); strings.ContainsRune("=+-@\t\r\n＝＋－＠", first) && s != "" {
		return "'" + s
	}
	return s
}
