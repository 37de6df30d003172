package feathers

import (
	"strings"
	"time"

	"chatsessions/domain"
	"chatsessions/http/problem"
)

// A Session is the query of a GET of a single session.
type Session struct {
	Select Selection
	At     *int64 // epoch milliseconds; nil for the session as it is
}

// ParseSession reads the query of a GET of a single session.
func ParseSession(text string) (Session, error) {
	var q Session
	for p, err := range Params(text) {
		switch {
		case err != nil:
		case p.Is("$select"):
			err = q.Select.add(p)
		case p.Is("at") && p.Again:
			err = problem.BadRequest("at is given twice")
		case p.Is("at"):
			var at int64
			at, err = p.instant()
			q.At = &at
		default:
			err = problem.BadRequest("%s is not a parameter of a single session; use $select, or at for the session as it was", p.Key)
		}
		if err != nil {
			return q, err
		}
	}
	return q, nil
}

// ParseSelect reads the query of a write.
func ParseSelect(text string) (Selection, error) {
	var s Selection
	for p, err := range Params(text) {
		if err == nil && !p.Is("$select") {
			err = problem.BadRequest("%s is not a parameter of a single session; use $select", p.Key)
		}
		if err == nil {
			err = s.add(p)
		}
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

// instant reads a time, in milliseconds or RFC 3339. What is finer than those is cut off.
func (p *Param) instant() (int64, error) {
	if ms, ok := readWhole(p.Untagged()); ok {
		if ms < 0 || ms > domain.MaxTime {
			return 0, problem.BadRequest("%s in epoch milliseconds is from 0 to %d, not %s", p.Key, domain.MaxTime, p.Value)
		}
		return ms, nil
	}
	if t, ok := parseRFC3339(p.Value); ok {
		return t.UnixMilli(), nil
	}
	if _, ok := parseRFC3339(strings.ReplaceAll(p.Value, " ", "+")); ok {
		return 0, problem.BadRequest("%s is %q: in a query, + stands for a space; write %%2B, or give the time in UTC, with Z", p.Key, p.Value)
	}
	return 0, problem.BadRequest("%s must be epoch milliseconds, such as 1795348800000, or RFC 3339 with Z or an offset, such as 2026-11-22T12:00:00Z, not %q", p.Key, p.Value)
}

// parseRFC3339 reads a time, whose T and Z may be in lower case (RFC 3339, section 5.6).
func parseRFC3339(text string) (time.Time, bool) {
	t, err := time.Parse(time.RFC3339, strings.ToUpper(text))
	return t, err == nil
}
