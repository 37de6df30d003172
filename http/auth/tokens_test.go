package auth

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chatsessions/domain"
)

func TestTokens(t *testing.T) {
	caller := domain.Caller{Account: "alice smith", Role: domain.RoleService}
	token := NewToken()
	callers, err := parseTokens("# comment\n\n  " + TokenLine(token, caller) + "  \r\n")
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
		if _, err := parseTokens(line); err == nil || !strings.Contains(err.Error(), names) {
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
	_, err := parseTokens("\n" + token + " account alice")
	if err == nil || strings.Contains(err.Error(), token) || !strings.Contains(err.Error(), "line 2") {
		t.Error(err)
	}
}

func TestATokensFileIsReloadedWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := OpenTokenFile(path); err == nil || !strings.Contains(err.Error(), "tokens file") {
		t.Errorf("a file that does not exist: %v", err)
	}
	alice, bob := domain.Caller{Account: "alice", Role: domain.RoleAccount}, domain.Caller{Account: "bob", Role: domain.RoleAuditor}
	write(TokenLine("ta", alice))
	f, err := OpenTokenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{TokenLine("tb", bob) + "\nnonsense", "nonsense"} {
		write(text)
		if err := f.Reload(); err == nil || !strings.Contains(err.Error(), path+": line ") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if got, ok := f.Verify("ta"); !ok || got != alice {
		t.Errorf("what was valid is %+v, %v", got, ok)
	}
	write(TokenLine("tb", bob))
	if err := f.Reload(); err != nil {
		t.Fatal(err)
	}
	if _, ok := f.Verify("ta"); ok {
		t.Error("a token that was taken out is valid")
	}
	for _, v := range []Verifier{f, AnyOf{DevTokens{}, f}} {
		if got, ok := v.Verify("tb"); !ok || got != bob {
			t.Errorf("%+v, %v", got, ok)
		}
	}
	if got, ok := (AnyOf{f, DevTokens{}}).Verify("dev-account-bob"); !ok || got.Account != "bob" {
		t.Error("the second verifier is not asked")
	}
	if _, ok := (AnyOf{f, DevTokens{}}).Verify("x"); ok {
		t.Error("a token of neither is valid")
	}
	if a, b := NewToken(), NewToken(); a == b || len(a) != 46 || !strings.HasPrefix(a, "cs_") {
		t.Error(a, b)
	}
}

func TestWhoATokenCanStandFor(t *testing.T) {
	for account, says := range map[string]string{"alice": "", "a b": "", "": "account", "a\nb": "account", " a": "space", "a ": "space", "a\xff": "UTF-8", "a\rb": "account"} {
		err := CheckCaller(domain.Caller{Account: account, Role: domain.RoleAdmin})
		if (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", account, err)
		}
	}
	if err := CheckCaller(domain.Caller{Account: "a", Role: "root"}); err == nil {
		t.Error("root is a role")
	}
}
