package projections

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"chatsessions/domain"
)

// A stored is a session as it lies in Redis. Its value is three lines:
//
//	the JSON that a client gets
//	its index member (24 raw bytes), and between spaces the names of its indexes
//	its version and its position in the log
//
// JSON comes first and has no line break of its own, so that a GET hands it out
// as it is. The indexes stand beside it so that whoever replaces the document knows
// its old entries, and so that visibility and filters are checked without parsing
// the JSON.
type stored struct {
	json string
	entries
	version  uint64
	position uint64
}

// entries say where the indexes have a session. The zero value is in none.
type entries struct {
	member  string
	indexes string // " all reader:alice state:created "
}

// isIn says whether the session belongs in an index.
func (e *entries) isIn(index string) bool {
	return strings.Contains(e.indexes, " "+index+" ")
}

// A document is a session as it is to be stored, as an event left it.
type document struct {
	id       string
	position uint64
	value    []byte
	entries
	before *entries // of the session that it replaces; nil while that is not known
}

// newDocument encodes a session.
func newDocument(r *domain.Recorded) (*document, error) {
	d := &document{id: r.Session.ID, position: r.Position}
	session := r.JSON()
	if bytes.IndexByte(session, '\n') >= 0 {
		return nil, fmt.Errorf("the JSON of session %s has a line break", r.Session.ID)
	}
	b := make([]byte, 0, len(session)+512)
	b = append(b, session...)
	b = append(b, '\n')
	start := len(b)
	b, err := appendEntries(b, &r.Session)
	if err != nil {
		return nil, err
	}
	d.entries = parseEntries(string(b[start:]))
	b = append(b, '\n')
	b = strconv.AppendUint(b, r.Session.Version, 10)
	b = append(b, ' ')
	d.value = strconv.AppendUint(b, r.Position, 10)
	if r.Before != nil {
		d.before, err = entriesOf(r.Before)
	}
	return d, err
}

// entriesOf returns the entries of a session, none for one that does not exist.
func entriesOf(s *domain.Session) (*entries, error) {
	if !s.Exists() {
		return &entries{}, nil
	}
	b, err := appendEntries(make([]byte, 0, 256), s)
	if err != nil {
		return nil, err
	}
	e := parseEntries(string(b))
	return &e, nil
}

// appendEntries writes the index member of a session and the names of the indexes
// that it belongs in.
func appendEntries(b []byte, s *domain.Session) ([]byte, error) {
	b, err := appendMember(b, s.CreatedAt, s.ID)
	if err != nil {
		return nil, err
	}
	names := len(b)
	b = append(b, " "+indexAll+" "...)
	add := func(prefix, value string) {
		start := len(b)
		b = append(append(append(b, prefix...), bounded(value)...), ' ')
		if bytes.Contains(b[names:start], b[start-1:]) {
			b = b[:start]
		}
	}
	for _, account := range s.Readers() {
		add(readerPrefix, account)
	}
	for field, value := range s.Filterable() {
		add(fieldPrefix(field), value)
	}
	return b, nil
}

// parseEntries takes apart what appendEntries wrote.
func parseEntries(text string) entries { return entries{text[:memberLength], text[memberLength:]} }

// decodeDocument reads what newDocument wrote.
func decodeDocument(value string) (*stored, error) {
	text, rest, ok := strings.Cut(value, "\n")
	if !ok || len(rest) < memberLength {
		return nil, fmt.Errorf("a document of %d bytes is not in the layout %s", len(value), layoutVersion)
	}
	d := &stored{json: text, entries: entries{member: rest[:memberLength]}}
	indexes, last, ok := strings.Cut(rest[memberLength:], "\n")
	version, position, ok2 := strings.Cut(last, " ")
	d.indexes = indexes
	var err, err2 error
	d.version, err = strconv.ParseUint(version, 10, 64)
	d.position, err2 = strconv.ParseUint(position, 10, 64)
	if !ok || !ok2 || err != nil || err2 != nil {
		return nil, fmt.Errorf("a document of %d bytes is not in the layout %s", len(value), layoutVersion)
	}
	return d, nil
}

// readers lists the accounts that may see the session. Only where one of them
// went into its index's name as a hash does this parse the JSON.
func (d *stored) readers() ([]string, error) {
	var readers []string
	for name := range strings.FieldsSeq(d.indexes) {
		account, ok := strings.CutPrefix(name, readerPrefix)
		if !ok {
			continue
		}
		if isHashed(account) {
			s, err := d.session()
			if err != nil {
				return nil, err
			}
			return s.Readers(), nil
		}
		readers = append(readers, account)
	}
	return readers, nil
}

func (d *stored) session() (*domain.Session, error) {
	var s domain.Session
	if err := json.Unmarshal([]byte(d.json), &s); err != nil {
		return nil, fmt.Errorf("stored session: %w", err)
	}
	return &s, nil
}
