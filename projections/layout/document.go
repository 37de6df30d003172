package layout

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"chatsessions/domain"
)

// A Stored is a session as it is read from Redis. Its value has three lines:
//
//	the JSON that a client gets
//	its index member (24 raw bytes), and between spaces its entries in the indexes
//	its version and its position in the log
//
// The JSON has no line break of its own, so a GET returns it as it is. The entries list
// what to remove from the indexes when the document is replaced. They also let visibility and
// filters be checked without parsing JSON.
type Stored struct {
	JSON     string
	Entries  Entries
	Version  uint64
	Position uint64
}

// Entries are a session's places in the indexes. The zero value is in none.
//
// To be short, each value stands once, behind one letter for each field that has it:
// " s:finished r:room-1 pcS:alice pAF:bob ".
type Entries struct {
	Member string
	values string
}

// fieldLetters are the letters of domain.FilterFields, in the same order. They are part
// of the stored format: a new field gets a new letter at the end.
const fieldLetters = "strpcSARF"

var filterFields = domain.FilterFields()

// letterOf returns the letter of a filter field.
func letterOf(field string) byte { return fieldLetters[slices.Index(filterFields, field)] }

// has reports whether a field has the value, given in its keyForm.
func (e *Entries) has(letter byte, value string) bool {
	for from := 0; value != ""; from++ {
		at := strings.Index(e.values[from:], value)
		if at < 0 {
			return false
		}
		from += at
		letters := e.values[strings.LastIndexByte(e.values[:from], ' ')+1 : from]
		isWhole := strings.IndexByte(letters, ':') == len(letters)-1 && strings.HasPrefix(e.values[from+len(value):], " ")
		if isWhole && strings.IndexByte(letters, letter) >= 0 {
			return true
		}
	}
	return false // no value is empty
}

// IsIn reports whether the session belongs in an index.
func (e *Entries) IsIn(index string) bool {
	if index == IndexAll {
		return e.Member != ""
	}
	field, value, _ := strings.Cut(index, ":")
	return slices.Contains(filterFields, field) && e.has(letterOf(field), value)
}

// Indexes yields the names of the indexes that the session belongs in.
func (e *Entries) Indexes() iter.Seq[string] {
	return func(yield func(string) bool) {
		if e.Member == "" || !yield(IndexAll) {
			return
		}
		for entry := range strings.FieldsSeq(e.values) {
			letters, value, _ := strings.Cut(entry, ":")
			for i := range len(letters) {
				if !yield(filterFields[strings.IndexByte(fieldLetters, letters[i])] + ":" + value) {
					return
				}
			}
		}
	}
}

// A Document is a session to be stored, as an event left it.
type Document struct {
	ID       string
	Position uint64
	Event    string // id of the event
	Value    []byte // nil for a parked session
	Entries  Entries
	Before   *Entries // of the session that it replaces; nil while unknown
	Reason   string   // why the session is parked; "" if it is not
}

// NewDocument encodes a session. It fails if the session cannot be shown, which parks it.
func NewDocument(r *domain.Entry) (*Document, error) {
	after := &r.Record.Event.Session
	d := &Document{ID: after.ID, Position: r.Record.Position, Event: r.Record.ID}
	session := r.Record.JSON()
	if bytes.IndexByte(session, '\n') >= 0 {
		return nil, fmt.Errorf("the JSON of session %s has a line break", d.ID)
	}
	b := append(make([]byte, 0, len(session)+256), session...)
	b = append(b, '\n')
	start := len(b)
	b, err := appendEntries(b, after)
	if err != nil {
		return nil, err
	}
	d.Entries = parseEntries(string(b[start:]))
	b = append(b, '\n')
	b = append(strconv.AppendUint(b, after.Version, 10), ' ')
	d.Value = strconv.AppendUint(b, r.Record.Position, 10)
	switch {
	case r.Before == nil:
	case !r.Before.Exists():
		d.Before = &Entries{}
	default:
		if b, err := appendEntries(make([]byte, 0, 256), r.Before); err == nil { // else it was parked before: Redis has to be read
			d.Before = new(parseEntries(string(b)))
		}
	}
	return d, nil
}

// appendEntries appends the session's index member and its values.
func appendEntries(b []byte, s *domain.Session) ([]byte, error) {
	b, err := AppendMember(b, s.CreatedAt, s.ID)
	if err != nil {
		return nil, err
	}
	type entry struct {
		value   string
		letters []byte
	}
	var room [8]entry
	all := room[:0]
	for field, value := range s.Filterable() {
		value, letter := keyForm(value), letterOf(field)
		i := slices.IndexFunc(all, func(e entry) bool { return e.value == value })
		if i < 0 {
			all, i = append(all, entry{value: value}), len(all)
		}
		if bytes.IndexByte(all[i].letters, letter) < 0 {
			all[i].letters = append(all[i].letters, letter)
		}
	}
	b = append(b, ' ')
	for _, e := range all {
		b = append(append(b, e.letters...), ':')
		b = append(append(b, e.value...), ' ')
	}
	return b, nil
}

// parseEntries splits what appendEntries wrote.
func parseEntries(text string) Entries { return Entries{text[:MemberLength], text[MemberLength:]} }

// DecodeDocument reads a value that NewDocument wrote.
func DecodeDocument(value string) (*Stored, error) {
	text, rest, ok := strings.Cut(value, "\n")
	if !ok || len(rest) < MemberLength {
		return nil, fmt.Errorf("a document of %d bytes is not in the layout %s", len(value), Version())
	}
	d := &Stored{JSON: text, Entries: Entries{Member: rest[:MemberLength]}}
	values, last, ok := strings.Cut(rest[MemberLength:], "\n")
	version, position, ok2 := strings.Cut(last, " ")
	d.Entries.values = values
	var err, err2 error
	d.Version, err = strconv.ParseUint(version, 10, 64)
	d.Position, err2 = strconv.ParseUint(position, 10, 64)
	if !ok || !ok2 || err != nil || err2 != nil {
		return nil, fmt.Errorf("a document of %d bytes is not in the layout %s", len(value), Version())
	}
	return d, nil
}

// VisibleTo reports whether an account may see the session; it parses JSON only for a hash.
func (d *Stored) VisibleTo(account string) (bool, error) {
	value := keyForm(account)
	if !d.Entries.has('c', value) && !d.Entries.has('p', value) {
		return false, nil
	}
	if value[0] != hashMark {
		return true, nil
	}
	s, err := d.Session()
	if err != nil {
		return false, err
	}
	return slices.Contains(s.Readers(), account), nil
}

// Session decodes the session.
func (d *Stored) Session() (*domain.Session, error) {
	var s domain.Session
	if err := json.Unmarshal([]byte(d.JSON), &s); err != nil {
		return nil, fmt.Errorf("stored session: %w", err)
	}
	return &s, nil
}
