package domain

import (
	"iter"
	"slices"
)

// A Role determines what a caller may do.
type Role string

// The roles that a token can have.
const (
	RoleAccount Role = "account" // creates, sees, and changes its own sessions
	RoleService Role = "service" // every session, in anybody's name
	RoleAuditor Role = "auditor" // reads everything, changes nothing
	RoleAdmin   Role = "admin"   // service, auditor, and operations
)

// Roles lists all roles.
func Roles() []Role { return []Role{RoleAccount, RoleService, RoleAuditor, RoleAdmin} }

// A Caller gives commands and asks questions.
type Caller struct {
	Account string // account uid
	Role    Role
}

// SeesAll reports whether the caller may see every session.
func (c Caller) SeesAll() bool { return c.Role != RoleAccount }

// MayWrite reports whether the caller may change anything at all.
func (c Caller) MayWrite() bool { return c.Role != RoleAuditor }

// MayActForOthers reports whether the caller may give stamps in another account's name.
func (c Caller) MayActForOthers() bool { return c.Role == RoleService || c.Role == RoleAdmin }

// MaySee reports whether the caller may see the session.
func (c Caller) MaySee(s *Session) bool {
	return c.SeesAll() || s.CreatedBy == c.Account || slices.Contains(s.Participants, c.Account)
}

// filterFields are the fields by which a list can be filtered, by their places.
var filterFields = sortedFilterFields()

func sortedFilterFields() []field {
	sorted := slices.DeleteFunc(slices.Clone(fields), func(f field) bool { return f.filter == 0 })
	slices.SortFunc(sorted, func(a, b field) int { return a.filter - b.filter })
	return sorted
}

// FilterFields lists the fields by which a list can be filtered; see Filterable.
func FilterFields() []string {
	names := make([]string, len(filterFields))
	for i, f := range filterFields {
		names[i] = f.name
	}
	return names
}

// Filterable returns the filter fields with their values, participants once per account,
// without absent fields. Their order is part of the read model's storage format.
func (s *Session) Filterable() iter.Seq2[string, string] {
	return func(yield func(field, value string) bool) {
		for i := range filterFields {
			f := &filterFields[i]
			if f.text != nil {
				if text := f.text(s); text != nil && *text != "" && !yield(f.name, *text) {
					return
				}
				continue
			}
			for _, uid := range s.Participants { // the only list
				if !yield(f.name, uid) {
					return
				}
			}
		}
	}
}

// FilterValues returns the session's values of a filter field, none if it is absent.
func (s *Session) FilterValues(field string) []string {
	var values []string
	for f, value := range s.Filterable() {
		if f == field {
			values = append(values, value)
		}
	}
	return values
}

// Readers lists the accounts that may see the session, its creator first, each once.
func (s *Session) Readers() []string {
	readers := []string{s.CreatedBy}
	for _, uid := range s.Participants {
		if uid != s.CreatedBy {
			readers = append(readers, uid)
		}
	}
	return readers
}
