package replay

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"chatsessions/domain"
)

// A tableFormat has lines for people. The column of accounts widens as longer ones come.
type tableFormat struct {
	out        *bufio.Writer
	oneSession bool
	began      bool
	actorWidth int // characters
}

func (f *tableFormat) write(batch []domain.Entry) error {
	for i := range batch {
		f.actorWidth = max(f.actorWidth, utf8.RuneCountInString(plain(batch[i].Record.Request.Actor)))
	}
	if !f.began {
		f.began = true
		f.line("POSITION", "TIME", "TYPE", "SESSION", "VERSION", "WHO", "CHANGES")
	}
	for i := range batch {
		r := batch[i].Record
		position, id := strconv.FormatUint(r.Position, 10), plain(r.Event.Session.ID)
		if batch[i].Err != nil {
			f.line(position, "", "unreadable", id, "", "", plain(reason(&batch[i])))
			continue
		}
		f.line(position, r.Time.UTC().Format(domain.TimeFormat), plain(strings.TrimPrefix(string(r.Event.Type), typePrefix)),
			id, strconv.FormatUint(r.Event.Session.Version, 10), plain(r.Request.Actor), describe(r.Event.Changes))
	}
	// People want to see lines at once; a bufio.Writer keeps the first error.
	return f.out.Flush()
}

func (f *tableFormat) line(position, at, typ, session, version, actor, changes string) {
	if !f.oneSession {
		typ = fmt.Sprintf("%-10s  %-36s", typ, session)
	}
	_, _ = fmt.Fprintf(f.out, "%8s  %-24s  %-10s  %7s  %-*s  %s\n", position, at, typ, version, f.actorWidth, actor, changes)
}

func (f *tableFormat) close() error {
	if !f.began {
		_, _ = f.out.WriteString("No event matches.\n")
	}
	return f.out.Flush()
}

// describe writes a merge patch of a session in one line, with times in full and "removed"
// for null, and without what the other columns have.
func describe(changes json.RawMessage) string {
	members := json.NewDecoder(bytes.NewReader(changes))
	members.UseNumber()
	if _, err := members.Token(); err != nil {
		return plain(string(changes))
	}
	var described []string
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
			described = append(described, plain(name)+" "+describeValue(name, value))
		}
	}
	return strings.Join(described, ", ")
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

// plain is a text for a terminal, quoted if it could be misread or could drive the terminal.
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
