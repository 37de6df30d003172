package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"chatsessions/domain"
	"chatsessions/eventstore/natstest"
)

// inProcess runs a command line in this process; a service that it starts by
// mistake is stopped.
func inProcess(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var out, errs bytes.Buffer
	status = run(ctx, args, streams{&out, &errs})
	return status, out.String(), errs.String()
}

func TestHelpNamesEveryFlagWithItsVariable(t *testing.T) {
	flag := regexp.MustCompile(`(?m)^\s+(?:-\w, )?--([a-z-]+)`)
	want := map[string][]string{
		"serve":   {"listen", "nats-url", "redis-url", "data-dir", "auth-tokens", "only", "dev", "rate-limit"},
		"token":   {"account", "role", "output"},
		"history": {"nats-url", "data-dir", "output"},
		"replay":  {"nats-url", "data-dir", "since", "until", "type", "account", "session", "after", "until-position", "output", "file", "force", "to-subject", "rate"},
	}
	for _, name := range []string{"serve", "token", "history", "replay", "version"} {
		status, stdout, stderr := inProcess(t, name, "--help")
		if status != exitDone || stderr != "" {
			t.Errorf("%s --help: exit status %d, %q", name, status, stderr)
		}
		found := map[string]bool{}
		for _, match := range flag.FindAllStringSubmatch(stdout, -1) {
			found[match[1]] = true
			variable := "$CHATSESSIONS_" + strings.ToUpper(strings.ReplaceAll(match[1], "-", "_"))
			if match[1] != "help" && !strings.Contains(strings.Join(strings.Fields(stdout), " "), variable) {
				t.Errorf("%s --help names --%s without %s:\n%s", name, match[1], variable, stdout)
			}
		}
		for _, flag := range want[name] {
			if !found[flag] {
				t.Errorf("%s --help does not name --%s:\n%s", name, flag, stdout)
			}
		}
	}
	for _, args := range [][]string{{}, {"--help"}} {
		status, stdout, _ := inProcess(t, args...)
		for _, command := range []string{"serve", "token", "history", "replay", "version"} {
			if status != exitDone || !strings.Contains(stdout, "\n  "+command) {
				t.Errorf("%v: exit status %d, lacks %s:\n%s", args, status, command, stdout)
			}
		}
	}
}

func TestWrongUsageExits2AndSaysWhatToDo(t *testing.T) {
	for _, c := range []struct {
		args string
		says []string
	}{
		{"dance", []string{"dance", "--help"}},
		{"serve --no-such-flag", []string{"--no-such-flag", "--help"}},
		{"serve something", []string{"something"}},
		{"serve", []string{"--auth-tokens", "--dev"}},
		{"serve --only api --nats-url nats://127.0.0.1:1 --redis-url redis://127.0.0.1:1", []string{"--auth-tokens", "--dev"}},
		{"serve --dev --only api", []string{"--only api", "--nats-url", "--redis-url"}},
		{"serve --dev --only api --nats-url nats://127.0.0.1:1", []string{"--only api", "--redis-url"}},
		{"serve --only projector --redis-url redis://127.0.0.1:1", []string{"--only projector", "--nats-url"}},
		{"serve --dev --only half", []string{"--only", "api", "projector"}},
		{"serve --dev --listen 0.0.0.0:0", []string{"--dev", "loopback", "0.0.0.0:0"}},
		{"serve --dev --listen :0", []string{"--dev", "loopback"}},
		{"serve --dev --listen [::]:0", []string{"--dev", "loopback"}},
		{"serve --dev --listen example.com:0", []string{"--dev", "loopback"}},
		{"serve --dev --listen 8080", []string{"--listen", "8080"}},
		{"serve --dev --listen 127.0.0.1:99999", []string{"--listen 127.0.0.1:99999"}},
		{"serve --dev --ops-listen 9090", []string{"--ops-listen 9090"}},
		{"serve --dev --data-dir= --listen 127.0.0.1:0", []string{"--data-dir has no value"}}, // as of a variable that is not set
		{"serve --auth-tokens=", []string{"--auth-tokens has no value"}},
		{"history --nats-url nats://127.0.0.1:1 --nats-creds= ID", []string{"--nats-creds has no value"}},
		{"history --nats-url nats://127.0.0.1:1 --nats-ca= ID", []string{"--nats-ca has no value"}},
		{"serve --dev --nats-url=", []string{"--nats-url has no value"}},
		{"serve --dev --redis-url=", []string{"--redis-url has no value"}},
		{"serve --dev --nats-url nats://u:hidden@[", []string{"--nats-url", "nats://"}},
		{"history 0192f0c1-2b3c-7d4e-8f90-a1b2c3d4e5f6 --nats-url nats://%", []string{"--nats-url"}},
		{"verify --redis-url 127.0.0.1:6379", []string{"--redis-url", "redis://"}},
		{"serve --dev --rate-limit many", []string{"--rate-limit"}},
		{"serve --dev --rate-limit=-1", []string{"--rate-limit"}},
		{"serve --dev --rate-limit NaN", []string{"--rate-limit"}},
		{"serve --dev --nats-replicas=-3", []string{"--nats-replicas"}},
		{"serve --dev --log-level loud", []string{"--log-level"}},
		{"serve --dev --log-format xml", []string{"--log-format"}},
		{"serve --dev --nats-replicas few", []string{"--nats-replicas"}},
		{"token", []string{"--account", "--role"}},
		{"token --account alice", []string{"--role"}},
		{"token --account alice --role king", []string{"king", "account", "service", "auditor", "admin"}},
		{"token --account= --role account", []string{"account"}},
		{"token --account alice --role account --output xml", []string{"--output", "json"}},
		{"version now", []string{"now"}},
	} {
		status, stdout, stderr := inProcess(t, strings.Fields(c.args)...)
		if status != exitUsage || strings.Contains(stdout, "ready") {
			t.Errorf("%s: exit status %d, %q, %q", c.args, status, stdout, stderr)
		}
		for _, want := range c.says {
			if !strings.Contains(stderr, want) {
				t.Errorf("%s: %q does not say %s", c.args, stderr, want)
			}
		}
	}
}

func TestEveryFlagCanBeGivenByItsVariable(t *testing.T) {
	nats := natstest.Start(t, natstest.Config{})
	missing := filepath.Join(t.TempDir(), "missing")
	for _, c := range []struct {
		command string
		env     map[string]string
		status  int
		says    string
	}{
		{"serve", map[string]string{"ONLY": "api"}, exitUsage, "--only api"},
		{"serve", map[string]string{"DEV": "true", "LISTEN": "0.0.0.0:0"}, exitUsage, "0.0.0.0:0"},
		{"serve", map[string]string{"AUTH_TOKENS": ""}, exitUsage, "set --auth-tokens"}, // not the current directory
		{"serve", map[string]string{"AUTH_TOKENS": missing}, exitFailed, missing},
		{"serve", map[string]string{"DEV": "1", "DATA_DIR": "/dev/null/nowhere"}, exitFailed, "/dev/null"},
		{"serve", map[string]string{"DEV": "1", "NATS_URL": "nats://127.0.0.1:1"}, exitFailed, "127.0.0.1:1"},
		{"serve", map[string]string{"DEV": "1", "NATS_URL": nats.URL(), "NATS_CREDS": missing}, exitFailed, missing},
		{"serve", map[string]string{"DEV": "1", "NATS_URL": nats.URL(), "NATS_CA": missing}, exitFailed, missing},
		{"serve", map[string]string{"DEV": "1", "NATS_URL": nats.URL(), "NATS_CERT": missing}, exitFailed, "certificate"},
		{"serve", map[string]string{"DEV": "1", "NATS_URL": nats.URL(), "NATS_KEY": missing}, exitFailed, "certificate"},
		{"serve", map[string]string{"DEV": "1", "NATS_URL": nats.URL(), "NATS_REPLICAS": "3"}, exitFailed, "replicas"},
		{"serve", map[string]string{"DEV": "1", "REDIS_URL": "http://127.0.0.1"}, exitUsage, "--redis-url"},
		{"verify", map[string]string{"DATA_DIR": ""}, exitUsage, "--data-dir"},
		{"serve", map[string]string{"DEV": "1", "RATE_LIMIT": "many"}, exitUsage, "many"},
		{"serve", map[string]string{"DEV": "1", "LOG_LEVEL": "loud"}, exitUsage, "loud"},
		{"serve", map[string]string{"DEV": "1", "LOG_FORMAT": "xml"}, exitUsage, "xml"},
		{"token", map[string]string{"ACCOUNT": "alice", "ROLE": "king"}, exitUsage, "king"},
		{"token", map[string]string{"ACCOUNT": "alice", "ROLE": "service", "OUTPUT": "json"}, exitDone, `"line":`},
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
		status, stdout, stderr := command(t, env, args...)
		if status != c.status || !strings.Contains(stdout+stderr, c.says) {
			t.Errorf("%s with %v: exit status %d, %q, %q; want %d and %q", c.command, c.env, status, stdout, stderr, c.status, c.says)
		}
	}
}

func TestVersionSaysWhatThisIs(t *testing.T) {
	status, stdout, stderr := inProcess(t, "version")
	if want := regexp.MustCompile(`^chatsessions \S+, commit \S+, ` + regexp.QuoteMeta(runtime.Version()) + "\n$"); status != exitDone || stderr != "" || !want.MatchString(stdout) {
		t.Errorf("exit status %d, %q, %q", status, stdout, stderr)
	}
}

// newToken makes a token, and returns it with its line for the tokens file.
func newToken(t *testing.T, account string, role domain.Role) (token, line string) {
	t.Helper()
	status, stdout, stderr := inProcess(t, "token", "--account", account, "--role", string(role), "--output", "json")
	var made struct{ Token, Line string }
	if err := json.Unmarshal([]byte(stdout), &made); err != nil || status != exitDone || stderr != "" {
		t.Fatalf("exit status %d, %q, %q: %v", status, stdout, stderr, err)
	}
	return made.Token, made.Line
}

func TestATokenIsPrintedOnceWithItsLine(t *testing.T) {
	status, stdout, stderr := inProcess(t, "token", "--account", "Zoë of the desk", "--role", "service")
	if status != exitDone || stderr != "" {
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
	s := startService(t, "--auth-tokens", file)
	with := func(token string) *client { return &client{t, s.url, token} }
	path := with(tokens[domain.RoleAccount]).create(`{}`)
	for role, status := range map[domain.Role]int{domain.RoleAccount: 200, domain.RoleService: 200, domain.RoleAdmin: 200, domain.RoleAuditor: 403} {
		with(tokens[role]).expect(200, "GET", path, "")
		with(tokens[role]).expect(status, "PATCH", path, fmt.Sprintf(`{"room": %q}`, role))
	}
	with("dev-service-crm").expect(401, "GET", path, "")

	hangup := func(until string) {
		t.Helper()
		before := strings.Count(s.errors.String(), until)
		if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error {
			if strings.Count(s.errors.String(), until) == before {
				return fmt.Errorf("the log lacks another %q:\n%s", until, s.errors.String())
			}
			return nil
		})
	}
	// One is added, the account's is revoked.
	added, line := newToken(t, "late", domain.RoleService)
	write(append(lines[3:], line)...)
	hangup("tokens read again")
	with(added).expect(200, "GET", path, "")
	revoked := with(tokens[domain.RoleAccount]).expect(401, "GET", path, "")
	if got := revoked.header.Get("WWW-Authenticate"); got != `Bearer error="invalid_token"` {
		t.Errorf("WWW-Authenticate: %s", got)
	}
	// A file that is broken, or gone, changes nothing.
	write(lines[2], "this is not a line of a tokens file")
	hangup("tokens not read again")
	with(added).expect(200, "GET", path, "")
	with(tokens[domain.RoleAccount]).expect(401, "GET", path, "")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	hangup("tokens not read again")
	with(added).expect(200, "GET", path, "")
	// And at a start it is an error that names the line.
	write(lines[2], "this is not a line of a tokens file")
	status, _, stderr := command(t, nil, "serve", "--listen", "127.0.0.1:0", "--auth-tokens", file)
	if status != exitFailed || !strings.Contains(stderr, file) || !strings.Contains(stderr, "line 2") {
		t.Errorf("exit status %d, %q", status, stderr)
	}
}

func TestAnAccountThatAsksTooOftenIsToldWhenToComeBack(t *testing.T) {
	s := startService(t, "--dev", "--rate-limit", "1")
	const path = "/chat-sessions/00000000-0000-7000-8000-000000000000"
	answers := make([]answer, 20)
	atOnce(t, len(answers), func(i int) (err error) {
		answers[i], err = s.as("account-eager").do("GET", path, "")
		return err
	})
	limited := 0
	for _, a := range answers {
		if a.status == 404 {
			continue
		}
		limited++
		if p := a.object(t); a.status != 429 || a.header.Get("Retry-After") == "" || p["name"] != "TooManyRequests" || p["status"] != 429.0 {
			t.Errorf("%d %v %s", a.status, a.header, a.body)
		}
	}
	if limited == 0 || limited == len(answers) {
		t.Errorf("%d of %d were refused; one a second is allowed, and a few at once", limited, len(answers))
	}
	s.as("account-patient").expect(404, "GET", path, "")
	eventually(t, func() error { // it passes
		a, err := s.as("account-eager").do("GET", path, "")
		if err != nil || a.status != 404 {
			return a.instead(err)
		}
		return nil
	})
}
