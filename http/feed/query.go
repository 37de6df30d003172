package feed

import (
	"slices"
	"strings"

	"github.com/google/uuid"

	"chatsessions/domain"
	"chatsessions/http/feathers"
	"chatsessions/http/problem"
)

// A query selects the events that a reader asked for. The zero value selects all.
type query struct {
	sessions []string // their ids
	types    []domain.EventType
	// accounts selects the events of sessions that one of these accounts may see after
	// the event, and the events whose actor is one of them.
	accounts []string
	after    *uint64 // the position to start after; nil is the end of the log
}

// parseQuery reads the query of the feed, in the syntax of lists.
func parseQuery(text string) (q query, err error) {
	given := map[string]bool{} // by name; true where it was one of several
	for p, err := range feathers.Params(text) {
		if err != nil {
			return q, err
		}
		name, hint := p.Path[0], ""
		if name != "after" {
			hint = "; " + feathers.HowSeveral(name)
		}
		several := p.IsIn() && name != "after"
		before, again := given[name]
		switch {
		case !slices.Contains([]string{"session", "type", "account", "after"}, name):
			return q, problem.BadRequest("%s is not a parameter of the feed; use session, type, account, or after", p.Key)
		case len(p.Path) > 1 && !several:
			return q, problem.BadRequest("%s is not an operator for %s; there is equality%s", p.Key, name, hint)
		case again && (!several || !before), !several && strings.HasSuffix(p.Key, "]"):
			return q, problem.BadRequest("%s is given twice, or as an array%s", p.Key, hint)
		}
		given[name] = several
		if err := q.add(p); err != nil {
			return q, err
		}
	}
	return q, nil
}

// add adds one parameter. It refuses a value that no event can have.
func (q *query) add(p *feathers.Param) error {
	switch p.Path[0] {
	case "session":
		if id, err := uuid.Parse(p.Value); err != nil || id.String() != p.Value {
			return problem.BadRequest("%s: %q is not the id of a session, a UUID in lower case", p.Key, p.Value)
		}
		q.sessions = append(q.sessions, p.Value)
	case "type":
		if !slices.Contains(domain.EventTypes(), domain.EventType(p.Value)) {
			return problem.BadRequest("%s: %q is not a type of event; the types are %s", p.Key, p.Value, eventTypeNames())
		}
		q.types = append(q.types, domain.EventType(p.Value))
	case "account":
		if wrong := domain.CheckAccount(p.Value); wrong != "" {
			return problem.BadRequest("%s %s", p.Key, wrong)
		}
		q.accounts = append(q.accounts, p.Value)
	case "after":
		position, err := parsePosition(p.Value)
		if err != nil {
			return problem.BadRequest("after must be a position, a whole number from 0, not %q", p.Value)
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

// selects reports whether the reader asked for the event.
func (q *query) selects(e *event) bool {
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
