package replay

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"chatsessions/domain"
)

// NoEnd is the position of a Filter without an upper bound.
const NoEnd = math.MaxUint64

// A Filter selects events: all conditions have to hold.
type Filter struct {
	Since, Until time.Time          // time of recording, both inclusive; zero is no bound
	Types        []domain.EventType // empty: all
	Account      string             // "": all
	Sessions     []string           // empty: all
	After, UpTo  uint64             // positions, the first exclusive
}

// keeps reports whether an event is replayed. Of an unreadable message, only position and
// session are known; it is kept if the other conditions could hold.
func (f *Filter) keeps(e *domain.Entry) bool {
	r := e.Record
	session := &r.Event.Session
	if r.Position <= f.After || r.Position > f.UpTo {
		return false
	}
	if len(f.Sessions) > 0 && !slices.Contains(f.Sessions, session.ID) {
		return false
	}
	if e.Err != nil {
		return true
	}
	switch {
	case !f.Since.IsZero() && r.Time.Before(f.Since), !f.Until.IsZero() && r.Time.After(f.Until):
		return false
	case len(f.Types) > 0 && !slices.Contains(f.Types, r.Event.Type):
		return false
	}
	reader := domain.Caller{Account: f.Account, Role: domain.RoleAccount}
	return f.Account == "" || r.Request.Actor == f.Account || reader.MaySee(session)
}

// ParseTime reads a time as RFC 3339 or in epoch milliseconds; "" is the zero time.
func ParseTime(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ms, err := strconv.ParseInt(text, 10, 64); err == nil && ms >= 0 && ms <= domain.MaxTime {
		return time.UnixMilli(ms), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, fmt.Errorf("%s: want a time such as 2026-11-22T12:00:00Z (RFC 3339), or epoch milliseconds", text)
	}
	return t, nil
}

// typePrefix begins the types of all events.
const typePrefix = "chat-session."

// ParseTypes reads event types, with or without their prefix.
func ParseTypes(texts []string) ([]domain.EventType, error) {
	known := domain.EventTypes()
	var types []domain.EventType
	for _, text := range texts {
		typ := domain.EventType(typePrefix + strings.TrimPrefix(text, typePrefix))
		if !slices.Contains(known, typ) {
			names := make([]string, len(known))
			for i, k := range known {
				names[i] = strings.TrimPrefix(string(k), typePrefix)
			}
			return nil, fmt.Errorf("%s: there is no such event type; the types are %s", text, strings.Join(names, ", "))
		}
		types = append(types, typ)
	}
	return types, nil
}
