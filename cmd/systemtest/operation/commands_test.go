package operation

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"chatsessions/cmd/systemtest/rig"
	"chatsessions/domain"
	"chatsessions/eventstore/natstest"
)

func TestEveryFlagCanBeGivenByItsVariable(t *testing.T) {
	nats := natstest.Start(t, natstest.Config{})
	missing := filepath.Join(t.TempDir(), "missing")
	for _, c := range []struct {
		command string
		env     map[string]string
		status  int
		says    string
	}{
		{"serve", map[string]string{"ONLY": "api"}, rig.ExitUsage, "--only api"},
		{"serve", map[string]string{"DEV": "true", "LISTEN": "0.0.0.0:0"}, rig.ExitUsage, "0.0.0.0:0"},
		{"serve", map[string]string{"AUTH_TOKENS": ""}, rig.ExitUsage, "set --auth-tokens"}, // not the current directory
		{"serve", map[string]string{"AUTH_TOKENS": missing}, rig.ExitFailed, missing},
		{"serve", map[string]string{"DEV": "1", "DATA_DIR": "/dev/null/nowhere"}, rig.ExitFailed, "/dev/null"},
		{"serve", map[string]string{"DEV": "1", "NATS_URL": "nats://127.0.0.1:1"}, rig.ExitFailed, "127.0.0.1:1"},
		{"serve", map[string]string{"DEV": "1", "NATS_URL": nats.URL(), "NATS_CREDS": missing}, rig.ExitFailed, missing},
		{"serve", map[string]string{"DEV": "1", "NATS_URL": nats.URL(), "NATS_CA": missing}, rig.ExitFailed, missing},
		{"serve", map[string]string{"DEV": "1", "NATS_URL": nats.URL(), "NATS_CERT": missing}, rig.ExitFailed, "certificate"},
		{"serve", map[string]string{"DEV": "1", "NATS_URL": nats.URL(), "NATS_KEY": missing}, rig.ExitFailed, "certificate"},
		{"serve", map[string]string{"DEV": "1", "NATS_URL": nats.URL(), "NATS_REPLICAS": "3"}, rig.ExitFailed, "replicas"},
		{"serve", map[string]string{"DEV": "1", "REDIS_URL": "http://127.0.0.1"}, rig.ExitUsage, "--redis-url"},
		{"verify", map[string]string{"DATA_DIR": ""}, rig.ExitUsage, "--data-dir"},
		{"serve", map[string]string{"DEV": "1", "RATE_LIMIT": "many"}, rig.ExitUsage, "many"},
		{"serve", map[string]string{"DEV": "1", "LOG_LEVEL": "loud"}, rig.ExitUsage, "loud"},
		{"serve", map[string]string{"DEV": "1", "LOG_FORMAT": "xml"}, rig.ExitUsage, "xml"},
		{"token", map[string]string{"ACCOUNT": "alice", "ROLE": "king"}, rig.ExitUsage, "king"},
		{"token", map[string]string{"ACCOUNT": "alice", "ROLE": "service", "OUTPUT": "json"}, rig.ExitDone, `"line":`},
	} {
		var env []string
		for name, value := range c.env {
			env = append(env, "CHATSESSIONS_"+name+"="+value)
		}
		args := []string{c.command}
		if c.command == "serve" && c.env["DATA_DIR"] == "" {
			env = append(env, "CHATSESSIONS_DATA_DIR="+t.TempDir())
		}
		if c.command == "serve" && c.env["LISTEN"] == "" {
			env = append(env, "CHATSESSIONS_LISTEN=127.0.0.1:0")
		}
		status, stdout, stderr := rig.Command(t, env, args...)
		if status != c.status || !strings.Contains(stdout+stderr, c.says) {
			t.Errorf("%s with %v: exit status %d, %q, %q; want %d and %q", c.command, c.env, status, stdout, stderr, c.status, c.says)
		}
	}
}

// newToken makes a token, and returns it with its line for the tokens file.
func newToken(t *testing.T, account string, role domain.Role) (token, line string) {
	t.Helper()
	status, stdout, stderr := rig.Command(t, nil, "token", "--account", account, "--role", string(role), "--output", "json")
	var made struct{ Token, Line string }
	if err := json.Unmarshal([]byte(stdout), &made); err != nil || status != rig.ExitDone || stderr != "" {
		t.Fatalf("exit status %d, %q, %q: %v", status, stdout, stderr, err)
	}
	return made.Token, made.Line
}

func TestATokenIsPrintedOnceWithItsLine(t *testing.T) {
	status, stdout, stderr := rig.Command(t, nil, "token", "--account", "Zoë of the desk", "--role", "service")
	if status != rig.ExitDone || stderr != "" {
		t.Fatalf("exit status %d, %q", status, stderr)
	}
	token := regexp.MustCompile(`cs_[\w-]{43}`).FindString(stdout)
	line := fmt.Sprintf("%x service Zoë of the desk", sha256.Sum256([]byte(token)))
	if token == "" || strings.Count(stdout, token) != 1 || !strings.Contains(stdout, line) {
		t.Errorf("%s\nlacks %s", stdout, line)
	}
	one, line := newToken(t, "alice", "account")
	other, _ := newToken(t, "alice", "account")
	if one == other || line != fmt.Sprintf("%x account alice", sha256.Sum256([]byte(one))) {
		t.Errorf("%s, %s, %s", one, line, other)
	}
}

func TestTheTokensFileSaysWhoMayDoWhatAndIsReadAgainOnHangup(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	write := func(lines ...string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tokens, lines := map[domain.Role]string{}, []string{"# who may call", ""}
	for _, role := range domain.Roles() {
		token, line := newToken(t, "the "+string(role), role)
		tokens[role], lines = token, append(lines, line)
	}
	write(lines...)
	s := rig.Start(t, "--auth-tokens", file)
	with := func(token string) *rig.Client { return &rig.Client{T: t, URL: s.URL, Token: token} }
	path := with(tokens[domain.RoleAccount]).Create(`{}`)
	for role, status := range map[domain.Role]int{domain.RoleAccount: 200, domain.RoleService: 200, domain.RoleAdmin: 200, domain.RoleAuditor: 403} {
		with(tokens[role]).Expect(200, "GET", path, "")
		with(tokens[role]).Expect(status, "PATCH", path, fmt.Sprintf(`{"room": %q}`, role))
	}
	with("dev-service-crm").Expect(401, "GET", path, "")

	hangup := func(until string) {
		t.Helper()
		before := strings.Count(s.Errors.String(), until)
		if err := s.Cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		rig.Eventually(t, func() error {
			if strings.Count(s.Errors.String(), until) == before {
				return fmt.Errorf("the log lacks another %q:\n%s", until, s.Errors.String())
			}
			return nil
		})
	}
	// One is added, the account's is revoked.
	added, line := newToken(t, "late", domain.RoleService)
	write(append(lines[3:], line)...)
	hangup("tokens read again")
	with(added).Expect(200, "GET", path, "")
	revoked := with(tokens[domain.RoleAccount]).Expect(401, "GET", path, "")
	if got := revoked.Header.Get("WWW-Authenticate"); got != `Bearer error="invalid_token"` {
		t.Errorf("WWW-Authenticate: %s", got)
	}
	// A file that is broken, or gone, changes nothing.
	write(lines[2], "this is not a line of a tokens file")
	hangup("tokens not read again")
	with(added).Expect(200, "GET", path, "")
	with(tokens[domain.RoleAccount]).Expect(401, "GET", path, "")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	hangup("tokens not read again")
	with(added).Expect(200, "GET", path, "")
	// And at a start it is an error that names the line.
	write(lines[2], "this is not a line of a tokens file")
	status, _, stderr := rig.Command(t, nil, "serve", "--listen", "127.0.0.1:0", "--auth-tokens", file)
	if status != rig.ExitFailed || !strings.Contains(stderr, file) || !strings.Contains(stderr, "line 2") {
		t.Errorf("exit status %d, %q", status, stderr)
	}
}

func TestAnAccountThatAsksTooOftenIsToldWhenToComeBack(t *testing.T) {
	s := rig.Start(t, "--dev", "--rate-limit", "1")
	const path = "/chat-sessions/00000000-0000-7000-8000-000000000000"
	answers := make([]rig.Answer, 20)
	rig.AtOnce(t, len(answers), func(i int) (err error) {
		answers[i], err = s.As("account-eager").Do("GET", path, "")
		return err
	})
	limited := 0
	for _, a := range answers {
		if a.Status == 404 {
			continue
		}
		limited++
		if p := a.Object(t); a.Status != 429 || a.Header.Get("Retry-After") == "" || p["name"] != "TooManyRequests" || p["status"] != 429.0 {
			t.Errorf("%d %v %s", a.Status, a.Header, a.Body)
		}
	}
	if limited == 0 || limited == len(answers) {
		t.Errorf("%d of %d were refused; one a second is allowed, and a few at once", limited, len(answers))
	}
	s.As("account-patient").Expect(404, "GET", path, "")
	rig.Eventually(t, func() error { // it passes
		a, err := s.As("account-eager").Do("GET", path, "")
		if err != nil || a.Status != 404 {
			return a.Instead(err)
		}
		return nil
	})
}
