package domain

import "slices"

// A Role says what a caller may do; see Caller.
type Role string

// The roles that a token can stand for.
const (
	RoleAccount Role = "account" // its own sessions: creates, sees and changes them
	RoleService Role = "service" // every session, in anybody's name
	RoleAuditor Role = "auditor" // reads everything, changes nothing
	RoleAdmin   Role = "admin"   // service, auditor and operations
)

// Roles lists all roles.
func Roles() []Role { return []Role{RoleAccount, RoleService, RoleAuditor, RoleAdmin} }

// A Caller is who gives a command or asks a question.
type Caller struct {
	Account string // account uid
	Role    Role
}

// SeesAll says whether every session is the caller's to see.
func (c Caller) SeesAll() bool { return c.Role != RoleAccount }

// MayWrite says whether the caller may change anything at all.
func (c Caller) MayWrite() bool { return c.Role != RoleAuditor }

// MayActForOthers says whether the caller may give stamps in another's name.
func (c Caller) MayActForOthers() bool { return c.Role == RoleService || c.Role == RoleAdmin }

// MaySee says whether the session is the caller's to see.
func (c Caller) MaySee(s *Session) bool {
	return c.SeesAll() || s.CreatedBy == c.Account || slices.Contains(s.Participants, c.Account)
}
