package feathers

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"chatsessions/domain"
	"chatsessions/http/problem"
)

// A Selection is the fields that the client wants to see; empty for all. The id is always
// included, as with Feathers' own databases.
type Selection []string

func (s *Selection) add(p *Param) error {
	if !slices.Contains(domain.FieldNames(), p.Value) {
		return problem.BadRequest("%s: %q is not a field of a session; the fields are %s", p.Key, p.Value, strings.Join(domain.FieldNames(), ", "))
	}
	*s = append(*s, p.Value)
	return nil
}

// Text is Project for a string. It copies nothing when every field is selected.
func (s Selection) Text(document string) string {
	if len(s) == 0 {
		return document
	}
	return string(s.Project([]byte(document)))
}

// ReadObject reads a JSON object and calls member with each of its members. A value is valid
// until member returns.
func ReadObject(decoder *jsontext.Decoder, member func(name string, value jsontext.Value)) error {
	_, err := decoder.ReadToken()
	for err == nil && decoder.PeekKind() != '}' {
		var token jsontext.Token
		if token, err = decoder.ReadToken(); err != nil {
			return err
		}
		name := token.String() // a copy: the token is valid until the next read only
		var value jsontext.Value
		if value, err = decoder.ReadValue(); err == nil {
			member(name, value)
		}
	}
	if err == nil {
		_, err = decoder.ReadToken()
	}
	return err
}

// Project keeps the selected members of a session's JSON.
func (s Selection) Project(document []byte) []byte {
	if len(s) == 0 {
		return document
	}
	kept := []byte{'{'}
	err := ReadObject(jsontext.NewDecoder(bytes.NewReader(document)), func(name string, value jsontext.Value) {
		if name != "id" && !slices.Contains(s, name) {
			return
		}
		if len(kept) > 1 {
			kept = append(kept, ',')
		}
		kept = append(append(append(kept, '"'), name...), '"', ':')
		kept = append(kept, value...)
	})
	if err != nil {
		panic(fmt.Sprintf("a stored session is not JSON: %v", err))
	}
	return append(kept, '}')
}
