package auth

import (
	"strings"
	"testing"

	"chatsessions/domain"
)

func TestTokens(t *testing.T) {
	caller := domain.Caller{Account: "alice smith", Role: domain.RoleService}
	token := NewToken()
	callers, err := parseTokens(strings.NewReader("# comment\n\n  " + TokenLine(token, caller) + "  \r\n"))
	if err != nil || len(callers) != 1 {
		t.Fatal(callers, err)
	}
	for _, got := range callers {
		if got != caller {
			t.Errorf("got %+v, want %+v", got, caller)
		}
	}
	hash := strings.Repeat("ab", 32)
	for line, names := range map[string]string{
		"x":                                "line 1",
		hash:                               "line 1",
		hash + " account":                  "line 1",
		hash + " root alice":               `"root"`,
		"xy" + hash[2:] + " account alice": "SHA-256",
		hash[2:] + " account alice":        "SHA-256",
		hash + " account a\n" + hash + " account b":   "line 2",
		hash + " account " + strings.Repeat("x", 129): "128",
	} {
		if _, err := parseTokens(strings.NewReader(line)); err == nil || !strings.Contains(err.Error(), names) {
			t.Errorf("%.60q: %v; want an error that says %s", line, err, names)
		}
	}
	for token, want := range map[string]domain.Caller{
		"dev-account-alice":       {Account: "alice", Role: domain.RoleAccount},
		"dev-service-crm":         {Account: "crm", Role: domain.RoleService},
		"dev-account-account-id1": {Account: "account-id1", Role: domain.RoleAccount},
	} {
		if got, ok := (DevTokens{}).Verify(token); !ok || got != want {
			t.Errorf("%s stands for %+v, %v", token, got, ok)
		}
	}
	for _, token := range []string{"", "dev", "dev-", "dev-account", "dev-account-", "dev-root-alice", "account-alice", "dev--alice"} {
		if got, ok := (DevTokens{}).Verify(token); ok {
			t.Errorf("%q stands for %+v", token, got)
		}
	}
}

func TestASecretInTheTokensFileIsNotRepeated(t *testing.T) {
	token := NewToken()
	_, err := parseTokens(strings.NewReader("\n" + token + " account alice"))
	if err == nil || strings.Contains(err.Error(), token) || !strings.Contains(err.Error(), "line 2") {
		t.Error(err)
	}
}
