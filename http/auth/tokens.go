package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"chatsessions/domain"
)

// tokenPrefix begins every token.
const tokenPrefix = "cs_"

// NewToken returns a new API token: 256 random bits, with a prefix by which leaks are found.
func NewToken() string {
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // never fails (crypto/rand)
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(secret[:])
}

// TokenLine is a line of the tokens file: the token's SHA-256, the role, and the account.
func TokenLine(token string, caller domain.Caller) string {
	hash := sha256.Sum256([]byte(token))
	return fmt.Sprintf("%s %s %s", hex.EncodeToString(hash[:]), caller.Role, caller.Account)
}

// CheckCaller returns an error for an account or a role that no token can stand for.
func CheckCaller(caller domain.Caller) error {
	if !slices.Contains(domain.Roles(), caller.Role) {
		return fmt.Errorf("%q is not a role; the roles are %v", caller.Role, domain.Roles())
	}
	if !utf8.ValidString(caller.Account) {
		return fmt.Errorf("the account %q is not valid UTF-8", caller.Account)
	}
	if wrong := domain.CheckAccount(caller.Account); wrong != "" {
		return fmt.Errorf("the account %s", wrong)
	}
	if strings.ContainsAny(caller.Account, "\r\n") || strings.TrimSpace(caller.Account) != caller.Account {
		return fmt.Errorf("the account %q has a line break, or a space at an end", caller.Account)
	}
	return nil
}

// A TokenFile verifies tokens by a file of TokenLines. Empty lines and # lines are ignored.
type TokenFile struct {
	path    string
	callers atomic.Pointer[map[[sha256.Size]byte]domain.Caller]
}

// OpenTokenFile reads a tokens file. The error names the first line that is wrong.
func OpenTokenFile(path string) (*TokenFile, error) {
	f := &TokenFile{path: path}
	return f, f.Reload()
}

// Reload reads the file again. If it fails, the tokens that were valid stay valid.
func (f *TokenFile) Reload() error {
	content, err := os.ReadFile(f.path)
	if err != nil {
		return fmt.Errorf("tokens file: %w", err)
	}
	callers, err := parseTokens(string(content))
	if err != nil {
		return fmt.Errorf("tokens file %s: %w", f.path, err)
	}
	f.callers.Store(&callers)
	return nil
}

// Verify implements Verifier. Its time reveals nothing, because it compares hashes.
func (f *TokenFile) Verify(token string) (domain.Caller, bool) {
	caller, ok := (*f.callers.Load())[sha256.Sum256([]byte(token))]
	return caller, ok
}

func parseTokens(text string) (map[[sha256.Size]byte]domain.Caller, error) {
	callers := map[[sha256.Size]byte]domain.Caller{}
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		hash, caller, err := parseTokenLine(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		if _, twice := callers[hash]; twice {
			return nil, fmt.Errorf("line %d: this token has a line already", i+1)
		}
		callers[hash] = caller
	}
	return callers, nil
}

func parseTokenLine(line string) (hash [sha256.Size]byte, caller domain.Caller, err error) {
	digest, rest, _ := strings.Cut(line, " ")
	role, account, ok := strings.Cut(strings.TrimLeft(rest, " "), " ")
	if !ok {
		return hash, caller, fmt.Errorf("want <SHA-256 of the token> <role> <account>; `chatsessions token` prints such lines")
	}
	if strings.HasPrefix(digest, tokenPrefix) {
		return hash, caller, errors.New("begins with a token; the file takes its SHA-256, see `chatsessions token`")
	}
	// The text is not shown: it may be a secret that was pasted by mistake.
	if decoded, err := hex.DecodeString(digest); err != nil || copy(hash[:], decoded) != len(decoded) || len(decoded) != len(hash) {
		return hash, caller, fmt.Errorf("does not begin with a SHA-256 in hex, %d digits", hex.EncodedLen(len(hash)))
	}
	caller = domain.Caller{Account: strings.TrimLeft(account, " "), Role: domain.Role(role)}
	return hash, caller, CheckCaller(caller)
}

// DevTokens accepts any token dev-<role>-<account>, for trying the service out.
type DevTokens struct{}

// Verify implements Verifier.
func (DevTokens) Verify(token string) (domain.Caller, bool) {
	rest, ok := strings.CutPrefix(token, "dev-")
	if !ok {
		return domain.Caller{}, false
	}
	role, account, _ := strings.Cut(rest, "-")
	caller := domain.Caller{Account: account, Role: domain.Role(role)}
	return caller, CheckCaller(caller) == nil
}

// AnyOf accepts a token that one of the verifiers accepts.
type AnyOf []Verifier

// Verify implements Verifier.
func (a AnyOf) Verify(token string) (domain.Caller, bool) {
	for _, v := range a {
		if caller, ok := v.Verify(token); ok {
			return caller, true
		}
	}
	return domain.Caller{}, false
}
