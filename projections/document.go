package projections

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
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
	json     string
	member   string
	indexes  string // " all reader:alice state:created "
	version  uint64
	position uint64
}

// encodeDocument returns the value under which a session is stored.
func encodeDocument(r *domain.Recorded) (string, error) {
	member, err := memberOf(r.Session.CreatedAt, r.Session.ID)
	if err != nil {
		return "", err
	}
	b := r.Session.AppendJSON(make([]byte, 0, 1024))
	if bytes.IndexByte(b, '\n') >= 0 {
		return "", fmt.Errorf("the JSON of session %s has a line break", r.Session.ID)
	}
	b = append(b, '\n')
	b = append(b, member...)
	b = append(b, ' ')
	for _, name := range indexNames(&r.Session) {
		b = append(b, name...)
		b = append(b, ' ')
	}
	b = append(b, '\n')
	b = strconv.AppendUint(b, r.Session.Version, 10)
	b = append(b, ' ')
	b = strconv.AppendUint(b, r.Position, 10)
	return string(b), nil
}

// indexNames lists the indexes that a session belongs in.
func indexNames(s *domain.Session) []string {
	names := []string{indexAll}
	add := func(name string) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, account := range s.Readers() {
		add(readerIndex(account))
	}
	for _, field := range domain.FilterFields() {
		for _, value := range s.FilterValues(field) {
			add(fieldIndex(field, value))
		}
	}
	return names
}

// decodeDocument reads what encodeDocument wrote.
func decodeDocument(value string) (*stored, error) {
	text, rest, ok := strings.Cut(value, "\n")
	if !ok || len(rest) < memberLength {
		return nil, fmt.Errorf("a document of %d bytes is not in the layout %s", len(value), layoutVersion)
	}
	d := &stored{json: text, member: rest[:memberLength]}
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

// isIn says whether the document belongs in an index.
func (d *stored) isIn(index string) bool {
	return strings.Contains(d.indexes, " "+index+" ")
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
