package http

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"chatsessions/domain"
	"chatsessions/http/feathers"
	"chatsessions/http/problem"
)

// A member is one name and value of a request's body.
type member struct {
	name  string
	value jsontext.Value // stays as the client wrote it
}

// parseObject reads a body as one JSON object. It refuses invalid UTF-8, lone surrogates,
// and duplicate names, at any depth (RFC 7493, section 2).
func parseObject(body []byte) ([]member, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, problem.BadRequest("the body is empty; send a JSON object, {} at least")
	}
	decoder := jsontext.NewDecoder(bytes.NewReader(body))
	if decoder.PeekKind() != '{' {
		other, err := decoder.ReadValue()
		if err != nil {
			return nil, notJSON(err)
		}
		return nil, problem.BadRequest("the body is a JSON %s; send an object", kindName(other.Kind()))
	}
	var members []member
	err := feathers.ReadObject(decoder, func(name string, value jsontext.Value) {
		members = append(members, member{name, value.Clone()})
	})
	if err != nil {
		return nil, notJSON(err)
	}
	if _, err := decoder.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, problem.BadRequest("the body has more data after the JSON object")
	}
	return members, nil
}

func notJSON(err error) error {
	var syntax *jsontext.SyntacticError
	if errors.As(err, &syntax) {
		return problem.BadRequest("the body is not valid JSON: %v at byte %d", syntax.Err, syntax.ByteOffset)
	}
	return problem.BadRequest("the body is not valid JSON: %v", err)
}

func kindName(k jsontext.Kind) string {
	switch k {
	case 'n':
		return "null"
	case 't', 'f':
		return "boolean"
	case '"':
		return "string"
	case '0':
		return "number"
	case '[':
		return "array"
	}
	return "object"
}

// A bodyReader turns members into values of a command, and collects what is wrong. A wrong value
// still counts as given, so that it is not called missing too.
type bodyReader struct {
	problems []domain.FieldError
	// unknown are members that no command has; foreign are those that a client cannot set.
	unknown []string
	foreign []member
}

func (r *bodyReader) wrong(m member, format string, args ...any) {
	r.problems = append(r.problems, domain.FieldError{Pointer: pointer(m.name), Detail: m.name + " " + fmt.Sprintf(format, args...)})
}

// pointer writes the JSON pointer (RFC 6901) to a member of the body.
func pointer(name string) string {
	return "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}

// readCreate reads the body of a POST.
func readCreate(members []member, by domain.Caller) (domain.Values, *bodyReader) {
	r := &bodyReader{}
	var v domain.Values
	for _, m := range members {
		switch {
		case m.name == "createdBy" && by.MayActForOthers():
			v.CreatedBy = r.text(m, domain.CheckAccount)
		case !r.value(&v, m):
			r.unknown = append(r.unknown, m.name)
		}
	}
	return v, r
}

// readChange reads the body of a PATCH.
func readChange(members []member) (domain.Change, *bodyReader) {
	r := &bodyReader{}
	var c domain.Change
	for _, m := range members {
		switch {
		case r.value(&c.Values, m) || r.directive(&c, m):
		case slices.Contains(domain.FieldNames(), m.name):
			r.foreign = append(r.foreign, m)
		default:
			r.unknown = append(r.unknown, m.name)
		}
	}
	return c, r
}

// value reads a member that both a POST and a PATCH know.
func (r *bodyReader) value(v *domain.Values, m member) bool {
	switch m.name {
	case "type":
		v.Type = r.clearable(m, domain.CheckType)
	case "room":
		v.Room = r.clearable(m, domain.CheckRoom)
	case "participants":
		v.Participants = r.participants(m)
	case "createdAt":
		v.CreatedAt = r.time(m)
	default:
		return r.stamp(v, m)
	}
	return true
}

func (r *bodyReader) stamp(v *domain.Values, m member) bool {
	for _, t := range domain.Transitions() {
		switch m.name {
		case t.AtField():
			v.Stamps[t].At = r.time(m)
			return true
		case t.ByField():
			v.Stamps[t].By = r.text(m, domain.CheckAccount)
			return true
		case "":
			// A transition without a reason has no ReasonField, so "" must not match it.
		case t.ReasonField():
			v.Stamps[t].Reason = r.clearable(m, domain.CheckReason)
			return true
		}
	}
	return false
}

// directive reads start, accept, reject, or finish. false, null, and "" do not ask for it.
func (r *bodyReader) directive(c *domain.Change, m member) bool {
	i := slices.IndexFunc(domain.Transitions(), func(t domain.Transition) bool { return t.String() == m.name })
	if i < 0 {
		return false
	}
	t := domain.Transitions()[i]
	d := &c.Directives[t]
	switch m.value.Kind() {
	case 't':
		d.Asked = true
	case 'f':
		d.Refused = true
	case 'n':
	case '"':
		text := unquote(m.value)
		if text == "" {
			break
		}
		if t.ReasonField() == "" {
			r.wrong(m, "is a string; it must be true or false")
			d.Asked = true
			break
		}
		if wrong := domain.CheckReason(text); wrong != "" {
			r.wrong(m, "%s", wrong)
		}
		d.Asked, d.Reason = true, text
	default:
		what := "true or false"
		if t.ReasonField() != "" {
			what += ", or a string which is the reason"
		}
		r.wrong(m, "is a JSON %s; it must be %s", kindName(m.value.Kind()), what)
		d.Asked = true
	}
	return true
}

// text reads a string that cannot be cleared.
func (r *bodyReader) text(m member, check func(string) string) *string {
	text := ""
	switch m.value.Kind() {
	case 'n':
		r.wrong(m, "is null; it cannot be cleared, give a string or leave it out")
	case '"':
		text = unquote(m.value)
		if complaint := check(text); complaint != "" {
			r.wrong(m, "%s", complaint)
		}
	default:
		r.wrong(m, "is a JSON %s; it must be a string", kindName(m.value.Kind()))
	}
	return &text
}

// clearable reads a string that null clears.
func (r *bodyReader) clearable(m member, check func(string) string) *string {
	if m.value.Kind() == 'n' {
		return new(string)
	}
	return r.text(m, check)
}

func (r *bodyReader) time(m member) *int64 {
	var at int64
	switch m.value.Kind() {
	case 'n':
		r.wrong(m, "is null; a time cannot be cleared, give epoch milliseconds or leave it out")
	case '0':
		var ok bool
		if at, ok = feathers.Whole(string(m.value), 0, domain.MaxTime); !ok {
			r.wrong(m, "must be a whole number of milliseconds from 0 to %d", domain.MaxTime)
		}
	default:
		r.wrong(m, "is a JSON %s; it must be a number, epoch milliseconds", kindName(m.value.Kind()))
	}
	return &at
}

func (r *bodyReader) participants(m member) *[]string {
	uids := []string{}
	switch m.value.Kind() {
	case 'n':
		return &uids
	case '[':
	default:
		r.wrong(m, "is a JSON %s; it must be an array of account uids", kindName(m.value.Kind()))
		return &uids
	}
	foreign := map[string]bool{} // pointers to values that are not strings
	decoder := jsontext.NewDecoder(bytes.NewReader(m.value))
	_, _ = decoder.ReadToken() // parseObject has checked the value
	for i := 0; decoder.PeekKind() != ']'; i++ {
		value, _ := decoder.ReadValue()
		if value.Kind() == '"' {
			uids = append(uids, unquote(value))
			continue
		}
		uids = append(uids, "")
		at := fmt.Sprintf("/%d", i)
		foreign[at] = true
		r.problems = append(r.problems, domain.FieldError{
			Pointer: "/participants" + at,
			Detail:  fmt.Sprintf("participants[%d] is a JSON %s; it must be a string, an account uid", i, kindName(value.Kind())),
		})
	}
	for _, wrong := range domain.CheckParticipants(uids) {
		if foreign[wrong.Pointer] {
			continue
		}
		wrong.Pointer = "/participants" + wrong.Pointer
		wrong.Detail = "participants: " + wrong.Detail
		r.problems = append(r.problems, wrong)
	}
	return &uids
}

func unquote(v jsontext.Value) string {
	text, _ := jsontext.AppendUnquote(nil, v) // parseObject has checked the value
	return string(text)
}

// ignored lists unknown members, and foreign ones that differ from the session.
func (r *bodyReader) ignored(s *domain.Session) []string {
	names := slices.Clone(r.unknown)
	if len(r.foreign) == 0 {
		return names
	}
	has, _ := parseObject(s.AppendJSON(nil))
	for _, m := range r.foreign {
		same := func(other member) bool { return other.name == m.name && sameValue(other.value, m.value) }
		if !slices.ContainsFunc(has, same) {
			names = append(names, m.name)
		}
	}
	return names
}

// sameValue reports whether two JSON values are equal, however they are written. (RFC 8785
// rounds numbers beyond 2^53, which no session has.)
func sameValue(a, b jsontext.Value) bool {
	a, b = a.Clone(), b.Clone()
	return a.Canonicalize() == nil && b.Canonicalize() == nil && bytes.Equal(a, b)
}

// findings lists what is wrong: with strict handling (RFC 7240), ignored members too.
func (r *bodyReader) findings(s *domain.Session, strict bool) []domain.FieldError {
	if !strict {
		return r.problems
	}
	var findings []domain.FieldError
	for _, name := range r.ignored(s) {
		findings = append(findings, domain.FieldError{Pointer: pointer(name), Detail: fmt.Sprintf("%q is not a field that can be set here", name)})
	}
	return append(findings, r.problems...)
}
