package http

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"chatsessions/domain"
	"chatsessions/http/problem"
)

// A feedQuery says which events a reader wants; the zero value is all of them.
type feedQuery struct {
	sessions []string // their ids
	types    []domain.EventType
	// accounts wants the events of sessions that one of these accounts may see as the
	// event has left them, and those of which one of them is the actor.
	accounts []string
	after    *uint64 // where to begin; nil is now
}

// parseFeedQuery reads the query of the feed, in the syntax of lists: name=value, or
// name[$in][]=value for several.
func parseFeedQuery(text string) (q feedQuery, err error) {
	params, err := parseParams(text)
	if err != nil {
		return q, err
	}
	given := map[string]bool{} // by name, whether as one of several
	for _, p := range params {
		name := p.path[0]
		several := len(p.path) == 2 && p.path[1] == "$in" && name != "after"
		before, again := given[name]
		switch {
		case !slices.Contains([]string{"session", "type", "account", "after"}, name):
			return q, problem.BadRequest("%s is not a parameter of the feed; there are session, type, account and after", p.key)
		case len(p.path) > 1 && !several:
			return q, problem.BadRequest("%s is not an operator for %s; there is equality%s", p.key, name, orSeveral(name))
		case again && (!several || !before), !several && strings.HasSuffix(p.key, "]"):
			return q, problem.BadRequest("%s is given twice, or as an array%s", p.key, orSeveral(name))
		}
		given[name] = several
		if err := q.add(p); err != nil {
			return q, err
		}
	}
	return q, nil
}

// orSeveral says how a filter is given more than one value.
func orSeveral(name string) string {
	if name == "after" {
		return ""
	}
	return fmt.Sprintf("; several values are given as %s[$in][]=…", name)
}

// add takes one parameter in. A value that nothing can have is refused: a stream that
// stays empty for ever tells nobody why.
func (q *feedQuery) add(p param) error {
	switch p.path[0] {
	case "session":
		if id, err := uuid.Parse(p.value); err != nil || id.String() != p.value {
			return problem.BadRequest("%s: %q is not the id of a session, a UUID in lower case", p.key, p.value)
		}
		q.sessions = append(q.sessions, p.value)
	case "type":
		if !slices.Contains(domain.EventTypes(), domain.EventType(p.value)) {
			return problem.BadRequest("%s: %q is not a type of event; there are %s", p.key, p.value, eventTypeNames())
		}
		q.types = append(q.types, domain.EventType(p.value))
	case "account":
		if wrong := domain.CheckAccount(p.value); wrong != "" {
			return problem.BadRequest("%s %s", p.key, wrong)
		}
		q.accounts = append(q.accounts, p.value)
	case "after":
		position, err := parsePlace(p.value)
		if err != nil {
			return problem.BadRequest("after must be a position, a whole number from 0, not %q", p.value)
		}
		q.after = &position
	}
	return nil
}

func eventTypeNames() string {
	var names []string
	for _, t := range domain.EventTypes() {
		names = append(names, string(t))
	}
	return strings.Join(names, ", ")
}

// wants says whether the event is one of those asked for.
func (q *feedQuery) wants(e *feedEvent) bool {
	if len(q.sessions) > 0 && !slices.Contains(q.sessions, e.session.ID) {
		return false
	}
	if e.unreadable { // it has neither a type nor an account
		return len(q.types) == 0 && len(q.accounts) == 0
	}
	if len(q.types) > 0 && !slices.Contains(q.types, e.typ) {
		return false
	}
	return len(q.accounts) == 0 || slices.ContainsFunc(q.accounts, func(account string) bool {
		return account == e.actor || (domain.Caller{Account: account, Role: domain.RoleAccount}).MaySee(&e.session)
	})
}
