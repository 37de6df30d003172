package audit

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"chatsessions/cmd/systemtest/rig"
	"chatsessions/deploy/servertest"
	"chatsessions/eventstore/natstest"
)

// replayed runs `chatsessions replay` on the service's log, and returns the positions of
// the events that it tells.
func replayed(t *testing.T, s *rig.Service, flags ...string) []uint64 {
	t.Helper()
	status, stdout, stderr := rig.Command(t, nil, slices.Concat([]string{"replay", "--output", "ndjson"}, ofLog(s), flags)...)
	if status != rig.ExitDone || stderr != "" {
		t.Fatalf("%q: exit status %d, %q", flags, status, stderr)
	}
	positions := []uint64{}
	for line := range strings.Lines(stdout) {
		var event struct {
			SpecVersion string
			Position    uint64 `json:",string"`
		}
		if err := json.Unmarshal([]byte(line), &event); err != nil || event.SpecVersion != "1.0" {
			t.Fatalf("%s: %v", line, err)
		}
		positions = append(positions, event.Position)
	}
	return positions
}

func TestAReplayIsTheLogThroughAFilter(t *testing.T) {
	t.Parallel()
	nats := natstest.Start(t, natstest.Config{})
	for name, s := range map[string]*rig.Service{"embedded": rig.Start(t, "--dev"), "external": rig.Start(t, "--dev", "--nats-url", nats.URL())} {
		id, other := aLife(s)
		aLife(s)
		log := s.Log()
		end := log[len(log)-1].Sequence
		at := func(i int) string { return log[i].Header["ce-time"][0] }
		ms := func(i int) string { return fmt.Sprintf("%.0f", log[i].Session["updatedAt"]) }
		typ := func(e rig.Event) string { return strings.TrimPrefix(e.Header["ce-type"][0], "chat-session.") }
		of := func(e rig.Event, account string) bool {
			participants, _ := e.Session["participants"].([]any)
			return e.Header["ce-actor"][0] == account || e.Session["createdBy"] == account || slices.Contains(participants, any(account))
		}
		for _, c := range []struct {
			flags string
			keeps func(rig.Event) bool
		}{
			{"", func(rig.Event) bool { return true }},
			{"--type accepted --type chat-session.finished", func(e rig.Event) bool { return typ(e) == "accepted" || typ(e) == "finished" }},
			{"--type rejected", func(rig.Event) bool { return false }},
			{"--account bob", func(e rig.Event) bool { return of(e, "bob") }}, // who loses sight at the end
			{"--account crm", func(e rig.Event) bool { return of(e, "crm") }},
			{"--account alice --type created", func(e rig.Event) bool { return of(e, "alice") && typ(e) == "created" }},
			{"--account nobody", func(rig.Event) bool { return false }},
			{"--session " + id, func(e rig.Event) bool { return e.Session["id"] == id }},
			{"--session " + other + " --session " + strings.ToUpper(id) + " --type created,updated", func(e rig.Event) bool {
				return (e.Session["id"] == id || e.Session["id"] == other) && (typ(e) == "created" || typ(e) == "updated")
			}},
			{"--session " + id + " --after 1 --until-position 5", func(e rig.Event) bool {
				return e.Session["id"] == id && e.Sequence > 1 && e.Sequence <= 5
			}},
			{"--after 3", func(e rig.Event) bool { return e.Sequence > 3 }},
			{"--after 3 --until-position 6", func(e rig.Event) bool { return e.Sequence > 3 && e.Sequence <= 6 }},
			{"--until-position 1000", func(rig.Event) bool { return true }},
			{"--after 1000", func(rig.Event) bool { return false }},
			{"--after 3 --until-position 3", func(rig.Event) bool { return false }},
			{"--since " + at(5), func(e rig.Event) bool { return e.Header["ce-time"][0] >= at(5) }},
			{"--since " + ms(5) + " --until " + at(9), func(e rig.Event) bool { return e.Header["ce-time"][0] >= at(5) && e.Header["ce-time"][0] <= at(9) }},
			{"--until " + ms(2) + " --after 0 --until-position " + fmt.Sprint(end), func(e rig.Event) bool { return e.Header["ce-time"][0] <= at(2) }},
			{"--since 2000-01-01T00:00:00+01:00 --until 2000-01-02T00:00:00Z", func(rig.Event) bool { return false }},
			{"--since 2100-01-01T00:00:00Z", func(rig.Event) bool { return false }},
			{"--until 2100-01-01T00:00:00Z --account =HYPERLINK()", func(e rig.Event) bool { return of(e, "=HYPERLINK()") }},
		} {
			want := []uint64{}
			for _, e := range log {
				if c.keeps(e) {
					want = append(want, e.Sequence)
				}
			}
			if got := replayed(t, s, strings.Fields(c.flags)...); !slices.Equal(got, want) {
				t.Errorf("%s, %s: %d, want %d", name, c.flags, got, want)
			}
		}
		s.Stop()
		if got := replayed(t, s); len(got) != len(log) {
			t.Errorf("%s, stopped: %d events, want %d", name, len(got), len(log))
		}
	}
}

func TestAReplayToAFileIsWholeOrNotThere(t *testing.T) {
	t.Parallel()
	s := rig.Start(t, "--dev")
	one, _ := aLife(s)
	dir := t.TempDir()
	file := filepath.Join(dir, "log.ndjson")
	replay := func(status int, flags ...string) (stdout, stderr string) {
		t.Helper()
		got, stdout, stderr := rig.Command(t, nil, slices.Concat([]string{"replay"}, ofLog(s), flags)...)
		if got != status || stdout != "" {
			t.Fatalf("%q: exit status %d, %q, %q", flags, got, stdout, stderr)
		}
		return stdout, stderr
	}
	read := func() string {
		t.Helper()
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		left, err := os.ReadDir(dir)
		if err != nil || len(left) != 1 {
			t.Errorf("left in the directory: %v, %v", left, err)
		}
		return string(content)
	}
	replay(rig.ExitDone, "--output", "ndjson", "--file", file)
	first := read()
	if lines := strings.Count(first, "\n"); lines != len(s.Log()) {
		t.Errorf("%d lines of %d events", lines, len(s.Log()))
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if _, stderr := replay(rig.ExitFailed, "--output", "csv", "--file", file); !strings.Contains(stderr, "--force") || read() != first {
		t.Errorf("%q", stderr)
	}
	replay(rig.ExitDone, "--output", "json", "--file", file, "--force")
	var array []struct{ Position int }
	if err := json.Unmarshal([]byte(read()), &array); err != nil || len(array) != len(s.Log()) || array[0].Position != 1 {
		t.Errorf("%d events in the array, %v", len(array), err)
	}
	replay(rig.ExitDone, "--output", "csv", "--file", file, "--force")
	if forced := read(); !strings.HasPrefix(forced, "position,") {
		t.Errorf("%s", forced)
	}
	// One that fails, of a session that is not there, leaves what was there.
	if _, stderr := replay(rig.ExitFailed, "--session", rig.Ghost, "--file", file, "--force"); !strings.Contains(stderr, rig.Ghost) || !strings.HasPrefix(read(), "position,") {
		t.Errorf("%q", stderr)
	}
	// What cannot be read is in the file, and told.
	position := s.Publish(&nats.Msg{Subject: "chat-sessions." + rig.Ghost, Data: []byte("nonsense")})
	_, stderr := replay(rig.ExitFailed, "--type", "created", "--output", "ndjson", "--file", file, "--force")
	if !strings.Contains(stderr, fmt.Sprintf("event %d of session %s cannot be read", position, rig.Ghost)) || !strings.Contains(read(), fmt.Sprintf("{\"position\":%d,\"sessionId\":%q,\"unreadable\":", position, rig.Ghost)) {
		t.Errorf("%q\n%s", stderr, read())
	}
	if got := replayed(t, s, "--session", one); len(got) != 6 {
		t.Errorf("another session: %d", got)
	}
}

func TestAReplayToASubjectHasARateAndLeavesTheLogAlone(t *testing.T) {
	t.Parallel()
	s := rig.Start(t, "--dev")
	id, _ := aLife(s)
	for range 6 {
		aLife(s)
	}
	log := s.Log()
	bad := s.Publish(&nats.Msg{Subject: "chat-sessions." + rig.Ghost, Data: []byte("nonsense")})
	nc := rig.ConnectNATS(t, s.NATSURL())
	got, err := nc.SubscribeSync("audit.copy")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	republish := func(flags ...string) (status int, stdout, stderr string) {
		t.Helper()
		return rig.Command(t, nil, slices.Concat([]string{"replay", "--to-subject"}, flags, ofLog(s))...)
	}
	began := time.Now()
	status, stdout, stderr := republish("audit.copy", "--rate", "40")
	want := fmt.Sprintf("%d events were published to audit.copy and confirmed by the server: the first from position 1, the last from position %d.\n", len(log), len(log))
	if status != rig.ExitFailed || stdout != want || !strings.Contains(stderr, fmt.Sprintf("event %d of session %s", bad, rig.Ghost)) {
		t.Errorf("exit status %d, %q, %q; want %q", status, stdout, stderr, want)
	}
	if took, least := time.Since(began), time.Duration(len(log)-1)*time.Second/40; took < least {
		t.Errorf("%d events at 40 a second took %s", len(log), took)
	}
	for _, e := range log {
		m, err := got.NextMsg(rig.Patience)
		if err != nil {
			t.Fatal(err)
		}
		if m.Header.Get("Chat-Sessions-Position") != strconv.FormatUint(e.Sequence, 10) || m.Header.Get("Chat-Sessions-Subject") != e.Subject || string(m.Data) != string(e.Data) {
			t.Errorf("%v %s, want %d %s", m.Header, m.Data, e.Sequence, e.Data)
		}
	}
	status, stdout, stderr = republish("audit.one", "--session", id, "--type", "accepted", "--rate", "0")
	if want := "1 events were published to audit.one and confirmed by the server: the first from position 4, the last from position 4.\n"; status != rig.ExitDone || stdout != want || stderr != "" {
		t.Errorf("exit status %d, %q, %q; want %q", status, stdout, stderr, want)
	}
	// Broken off, it tells from where to go on.
	slow := exec.Command(rig.Binary, slices.Concat([]string{"replay", "--to-subject", "audit.copy", "--rate", "5"}, ofLog(s))...)
	var errs servertest.Output
	slow.Stderr = &errs
	if err := slow.Start(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := got.NextMsg(rig.Patience); err != nil {
			t.Fatal(err)
		}
	}
	if err := slow.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	err = slow.Wait()
	advice := regexp.MustCompile(`continue with --after (\d+)\n$`).FindStringSubmatch(errs.String())
	if err == nil || advice == nil {
		t.Fatalf("%v, %q", err, errs.String())
	}
	last, err := strconv.Atoi(advice[1])
	if err != nil || last < 2 || last > len(log) { // the third may not have been confirmed
		t.Errorf("after 3 events of %d: go on after %s, %v", len(log), advice[1], err)
	}
	for at := 4; at <= last; at++ { // what it says was published, was
		if m, err := got.NextMsg(rig.Patience); err != nil || m.Header.Get("Chat-Sessions-Position") != strconv.Itoa(at) {
			t.Errorf("event %d: %v, %v", at, m, err)
		}
	}
	for _, subject := range []string{"chat-sessions." + id, "chat-sessions.>", "$JS.API.STREAM.PURGE.CHAT_SESSIONS", "_INBOX.a", "a.*"} {
		if status, stdout, stderr := republish(subject); status != rig.ExitUsage || stdout != "" || !strings.Contains(stderr, "--to-subject") {
			t.Errorf("%s: exit status %d, %q, %q", subject, status, stdout, stderr)
		}
	}
	if end := s.NewestPosition(); end != bad {
		t.Errorf("the log goes to %d, want %d", end, bad)
	}
	if again, err := readLogLength(t, s); err != nil || again != bad {
		t.Errorf("the log has %d messages, want %d: %v", again, bad, err)
	}
}

// readLogLength is the position of the log's last message.
func readLogLength(t *testing.T, s *rig.Service) (uint64, error) {
	t.Helper()
	status, stdout, stderr := rig.Command(t, nil, slices.Concat([]string{"replay", "--output", "csv"}, ofLog(s))...)
	if status != rig.ExitFailed {
		return 0, fmt.Errorf("exit status %d, %q", status, stderr)
	}
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	position, _, _ := strings.Cut(lines[len(lines)-1], ",")
	return strconv.ParseUint(position, 10, 64)
}

// TestAReplayThatNobodyReadsAnyMore closes the log in good order: nothing is left of it
// but the log.
func TestAReplayThatNobodyReadsAnyMore(t *testing.T) {
	t.Parallel()
	s := rig.Start(t, "--dev")
	for range 50 {
		aLife(s)
	}
	s.Stop()
	cmd := exec.Command("sh", "-c", `"$0" replay --data-dir "$1" | head -1; ls "$1"`, rig.Binary, s.Flag("--data-dir"))
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "POSITION") || strings.Contains(string(out), rig.ConnectionFile) || strings.Contains(string(out), "panic") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestAReplayToASubjectOfAStoppedServiceIsRefused: nobody can listen there, and its log is only
// read.
func TestAReplayToASubjectOfAStoppedServiceIsRefused(t *testing.T) {
	t.Parallel()
	s := rig.Start(t, "--dev")
	aLife(s)
	s.Stop()
	status, stdout, stderr := rig.Command(t, nil, slices.Concat([]string{"replay", "--to-subject", "audit.lost"}, ofLog(s))...)
	if status != rig.ExitFailed || stdout != "" || !strings.Contains(stderr, "nobody can subscribe to audit.lost") {
		t.Errorf("exit status %d, %q, %q", status, stdout, stderr)
	}
}
