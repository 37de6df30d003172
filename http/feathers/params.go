package feathers

import (
	"fmt"
	"iter"
	"net/url"
	"strings"
	"unicode/utf8"

	"chatsessions/domain"
	"chatsessions/http/problem"
)

// A Param is one name=value of a query: createdAt[$gt]=5 has the path [createdAt $gt].
type Param struct {
	Key   string // as the client wrote it, for messages
	Path  []string
	Value string
	Again bool // an earlier parameter has the same path
}

// Params yields the parameters of a query string (URL Standard, section 5.1), or an error and
// nothing after it. The array forms name[] and name[0] are the same as name.
func Params(text string) iter.Seq2[*Param, error] {
	return func(yield func(*Param, error) bool) {
		given := map[string]bool{}
		for part := range strings.SplitSeq(text, "&") {
			if part == "" {
				continue
			}
			p, err := parseParam(part)
			if err != nil {
				yield(nil, err)
				return
			}
			path := strings.Join(p.Path, "\x00")
			p.Again, given[path] = given[path], true
			if !yield(p, nil) {
				return
			}
		}
	}
}

func parseParam(part string) (*Param, error) {
	name, value, _ := strings.Cut(part, "=")
	key, err := url.QueryUnescape(name)
	if err == nil {
		value, err = url.QueryUnescape(value)
	}
	if err != nil || !utf8.ValidString(key) || !utf8.ValidString(value) {
		return nil, problem.BadRequest("the query has %q, which is not percent-encoded UTF-8", part)
	}
	path, ok := parsePath(key)
	if !ok {
		return nil, problem.BadRequest("the query has %q, whose brackets do not match; write name[operator]=value", key)
	}
	return &Param{Key: key, Path: path, Value: value}, nil
}

func parsePath(key string) ([]string, bool) {
	name, rest, bracketed := strings.Cut(key, "[")
	path := []string{name}
	if !bracketed {
		return path, !strings.Contains(key, "]")
	}
	if !strings.HasSuffix(rest, "]") {
		return nil, false
	}
	for part := range strings.SplitSeq(strings.TrimSuffix(rest, "]"), "][") {
		if strings.ContainsAny(part, "[]") {
			return nil, false
		}
		path = append(path, part)
	}
	if last := path[len(path)-1]; last == "" || allDigits(last) {
		path = path[:len(path)-1]
	}
	return path, true
}

// Is reports whether the parameter is name=value, without an operator.
func (p *Param) Is(name string) bool { return len(p.Path) == 1 && p.Path[0] == name }

// IsIn reports whether the parameter is name[$in]=value, one of several values.
func (p *Param) IsIn() bool { return len(p.Path) == 2 && p.Path[1] == "$in" }

// HowSeveral explains how to give a filter more than one value.
func HowSeveral(name string) string {
	return fmt.Sprintf("several values are given as %s[$in][]=…", name)
}

// Untagged returns the value without the tag of a Feathers number.
func (p *Param) Untagged() string { return strings.TrimPrefix(p.Value, "#") }

// Number reads a whole number, plain (10) or tagged (#10), up to the largest time.
func (p *Param) Number() (int64, error) {
	n, ok := readWhole(p.Untagged())
	if !ok || n < 0 {
		return 0, problem.BadRequest("%s must be a whole number from 0, not %q", p.Key, p.Value)
	}
	return min(n, domain.MaxTime), nil
}
