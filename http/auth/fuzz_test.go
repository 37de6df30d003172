package auth

import (
	"testing"

	"chatsessions/domain"
)

func FuzzToken(f *testing.F) {
	for _, seed := range []string{
		"Bearer dev-account-alice", "bearer  x", "Basic x", "Bearer", "", "Bearer dev-admin-", "Bearer dev-service-a b",
		TokenLine("t", domain.Caller{Account: "alice", Role: domain.RoleAccount}),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if token, given := bearer(text); given {
			if caller, ok := (DevTokens{}).Verify(token); ok {
				if err := CheckCaller(caller); err != nil || token != "dev-"+string(caller.Role)+"-"+caller.Account {
					t.Fatalf("%q stands for %+v (%v)", token, caller, err)
				}
			}
		}
		callers, err := parseTokens(text)
		if err != nil {
			return
		}
		for _, caller := range callers {
			again, err := parseTokens(TokenLine("t", caller))
			if err != nil || len(again) != 1 {
				t.Fatalf("%+v is let in, but its own line is not: %v", caller, err)
			}
		}
	})
}
