package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"chatsessions/cmd/systemtest/rig"
	"chatsessions/domain"
	"chatsessions/eventstore/natstest"
)

// inProcess runs a command line in this process; a service that it starts by
// mistake is stopped.
func inProcess(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), rig.Patience)
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

func TestVersionSaysWhatThisIs(t *testing.T) {
	status, stdout, stderr := inProcess(t, "version")
	if want := regexp.MustCompile(`^chatsessions \S+, commit \S+, ` + regexp.QuoteMeta(runtime.Version()) + "\n$"); status != exitDone || stderr != "" || !want.MatchString(stdout) {
		t.Errorf("exit status %d, %q, %q", status, stdout, stderr)
	}
}

func TestWrongUsageOfARebuildExits2(t *testing.T) {
	for _, c := range []struct {
		args string
		says []string
	}{
		{"rebuild now", []string{"now"}},
		{"rebuild --redis-partitions 0", []string{"--redis-partitions 0", "1 to 256"}},
		{"rebuild --redis-partitions 257", []string{"--redis-partitions 257", "1 to 256"}},
		{"rebuild --redis-partitions many", []string{"--redis-partitions", "many"}},
		{"rebuild --output xml", []string{"--output", "text", "json"}},
		{"rebuild --log-level loud", []string{"--log-level"}},
		{"parked one two", []string{"two"}},
		{"parked --redis-partitions 0", []string{"--redis-partitions 0", "1 to 256"}},
		{"parked --output xml", []string{"--output", "text", "json"}},
	} {
		status, stdout, stderr := inProcess(t, strings.Fields(c.args)...)
		if status != exitUsage || stdout != "" {
			t.Errorf("%s: exit status %d, %q, %q", c.args, status, stdout, stderr)
		}
		for _, want := range c.says {
			if !strings.Contains(stderr, want) {
				t.Errorf("%s: %q does not say %s", c.args, stderr, want)
			}
		}
	}
}

func TestHelpOfRebuildAndParkedNamesEveryFlagWithItsVariable(t *testing.T) {
	flag := regexp.MustCompile(`(?m)^\s+(?:-\w, )?--([a-z-]+)`)
	for name, want := range map[string][]string{
		"rebuild": {"data-dir", "nats-url", "redis-url", "redis-partitions", "compare-only", "output"},
		"parked":  {"data-dir", "nats-url", "redis-url", "redis-partitions", "retry", "output"},
	} {
		status, stdout, stderr := inProcess(t, name, "--help")
		if status != exitDone || stderr != "" || !strings.Contains(stdout, "exit status") {
			t.Errorf("%s --help: exit status %d, %q, %q", name, status, stdout, stderr)
		}
		var found []string
		for _, match := range flag.FindAllStringSubmatch(stdout, -1) {
			found = append(found, match[1])
			variable := "$CHATSESSIONS_" + strings.ToUpper(strings.ReplaceAll(match[1], "-", "_"))
			if match[1] != "help" && !strings.Contains(strings.Join(strings.Fields(stdout), " "), variable) {
				t.Errorf("%s --help names --%s without %s", name, match[1], variable)
			}
		}
		for _, flag := range want {
			if !slices.Contains(found, flag) {
				t.Errorf("%s --help does not name --%s", name, flag)
			}
		}
		if _, commands, _ := inProcess(t, "--help"); !strings.Contains(commands, "\n  "+name) {
			t.Errorf("chatsessions --help does not name %s", name)
		}
	}
}

func TestVerifySaysWhatIsWrongWithItsUse(t *testing.T) {
	for _, c := range []struct {
		args   string
		status int
		says   string
	}{
		{"verify --output table", exitUsage, "--output"},
		{"verify --redis-partitions 0", exitUsage, "--redis-partitions"},
		{"verify something", exitUsage, "something"},
		{"verify --data-dir " + t.TempDir(), exitFailed, "holds no log"},
		{"verify --log-only --nats-url nats://127.0.0.1:1", exitFailed, "127.0.0.1:1"},
	} {
		status, stdout, stderr := inProcess(t, strings.Fields(c.args)...)
		if status != c.status || !strings.Contains(stderr, c.says) || stdout != "" {
			t.Errorf("%s: exit status %d, %q, %q; want %d and %q", c.args, status, stdout, stderr, c.status, c.says)
		}
	}
	status, help, _ := inProcess(t, "verify", "--help")
	for _, kind := range append(domain.DefectKinds(), defectReadModel, defectParked) {
		if status != exitDone || !strings.Contains(help, string(kind)) {
			t.Errorf("exit status %d, and the help says nothing of %s", status, kind)
		}
	}
}

func TestWhatAReplayIsNotAskedFor(t *testing.T) {
	for _, c := range []struct {
		flags string
		says  []string
	}{
		{"--type acepted", []string{"acepted", "accepted", "corrected"}},
		{"--since noon", []string{"--since", "noon", "RFC 3339", "milliseconds"}},
		{"--until=-5", []string{"--until", "-5"}},
		{"--since 2026-11-22T12:00:00Z --until 2026-11-22T11:00:00Z", []string{"--since", "--until"}},
		{"--session nonsense", []string{"nonsense"}},
		{"--after=-1", []string{"--after"}},
		{"--after 5 --until-position 4", []string{"--after 5", "--until-position 4"}},
		{"--rate=-1 --to-subject a", []string{"--rate"}},
		{"--rate NaN --to-subject a", []string{"--rate"}},
		{"--to-subject a --file b", []string{"--to-subject", "--file"}},
		{"--force", []string{"--force", "--file"}},
		{"--file -", []string{"--file -"}},
		{"--to-subject a --output ndjson", []string{"--to-subject", "--output"}},
		{"--rate 5", []string{"--rate", "--to-subject"}},
		{"--to-subject=", []string{"--to-subject has no value"}}, // as of a variable that is not set
		{"--account=", []string{"--account has no value"}},
		{"--since=", []string{"--since has no value"}},
		{"--until=", []string{"--until has no value"}},
		{"--file=", []string{"--file has no value"}},
		{"--session=", []string{"--session has no value"}},
		{"--session 0192f0c1-2b3c-7d4e-8f90-a1b2c3d4e5f6 --session=", []string{"--session"}},
		{"--type=", []string{"--type has no value"}},
		{"--output xml", []string{"--output", "ndjson"}},
		{"something", []string{"something"}},
	} {
		status, stdout, stderr := inProcess(t, append([]string{"replay"}, strings.Fields(c.flags)...)...)
		if status != exitUsage || stdout != "" {
			t.Errorf("%s: exit status %d, %q, %q", c.flags, status, stdout, stderr)
		}
		for _, want := range c.says {
			if !strings.Contains(stderr, want) {
				t.Errorf("%s: %q does not say %s", c.flags, stderr, want)
			}
		}
	}
	if status, _, stderr := inProcess(t, "replay", "--session", ""); status != exitUsage || !strings.Contains(stderr, "--session") {
		t.Errorf("exit status %d, %q", status, stderr)
	}
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Join(dir, "of-others"), link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, link, "/dev/null"} {
		status, _, stderr := inProcess(t, "replay", "--data-dir", dir, "--force", "--file", path)
		if status != exitFailed || !strings.Contains(stderr, path+" is not a regular file") {
			t.Errorf("%s: exit status %d, %q", path, status, stderr)
		}
	}
	if status, _, stderr := inProcess(t, "replay", "--data-dir", dir); status != exitFailed || !strings.Contains(stderr, "holds no log") {
		t.Errorf("exit status %d, %q", status, stderr)
	}
	if _, err := os.Stat(filepath.Join(dir, logDir)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a log was made: %v", err)
	}
	empty := natstest.Start(t, natstest.Config{})
	if status, _, stderr := inProcess(t, "replay", "--nats-url", empty.URL()); status != exitFailed || !strings.Contains(stderr, "--nats-url") {
		t.Errorf("exit status %d, %q", status, stderr)
	}
}

// A log may hold anything, and a terminal would do what it says.
func TestVerifyPrintsNothingThatATerminalWouldObey(t *testing.T) {
	var out bytes.Buffer
	v := &verifier{text: true, out: &out}
	if err := v.report(defectLine{Kind: domain.DefectUnreadable, Position: 7, SessionID: "\x1b[2J", Detail: "a\nb\tc"}); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), "position 7, session \uFFFD[2J, unreadable: a\uFFFDb\uFFFDc\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
