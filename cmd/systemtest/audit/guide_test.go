package audit

import (
	"flag"
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

	"chatsessions/cmd/systemtest/rig"
)

var writeAudit = flag.Bool("audit.write", false, "write what the commands of docs/audit.md print into it, where that has changed")

const auditGuide = "../../../docs/audit.md"

// TestTheAuditGuidePrintsWhatItSays runs each command of the guide's console blocks, and
// compares what it prints with what the guide says it does. Ids and times are others each
// time; positions are not.
func TestTheAuditGuidePrintsWhatItSays(t *testing.T) {
	s := rig.Start(t, "--dev")
	id, noon := auditedLife(s)
	environment := append(os.Environ(), "GORACE=atexit_sleep_ms=0",
		"PATH="+filepath.Dir(rig.Binary)+":"+os.Getenv("PATH"), "CHATSESSIONS_DATA_DIR="+s.Flag("--data-dir"),
		"id="+id, "noon="+noon, "api="+s.URL, "token=dev-auditor-eve")
	dir := t.TempDir()
	// The day of the guide is the one in which this is run; so is every minute of it.
	now := time.Now().UTC()
	day := strings.NewReplacer(
		"2026-11-22T00:00:00Z", now.Add(-time.Hour).Format(time.RFC3339), "2026-11-22T23:59:59.999Z", now.Add(time.Hour).Format(time.RFC3339))
	execute := func(line string) string {
		t.Helper()
		cmd := exec.Command("bash", "-c", day.Replace(line))
		cmd.Env, cmd.Dir = environment, dir
		out, err := cmd.CombinedOutput()
		if len(out) == 0 && err != nil {
			t.Errorf("%s: %v", line, err)
		}
		return strings.ReplaceAll(string(out), "\r", "")
	}

	content, err := os.ReadFile(auditGuide)
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	written := scheduled{noon: noon}
	rest := string(content)
	for {
		before, block, found := strings.Cut(rest, "```console\n")
		if !found {
			break
		}
		block, rest, _ = strings.Cut(block, "```\n")
		written.add(before + "```console\n")
		for _, part := range strings.Split("\n"+block, "\n$ ")[1:] {
			line, said, _ := strings.Cut(part, "\n")
			if said != "" && !strings.HasSuffix(said, "\n") {
				said += "\n"
			}
			ran++
			printed := execute(line)
			if one, other := anyTime(said), anyTime(printed); one != other {
				if !*writeAudit {
					t.Errorf("%s prints\n%s\nand the guide says\n%s\n(go test ./cmd/chatsessions -run AuditGuide -audit.write writes it)", line, other, one)
				}
				said = printed
			}
			written.add("$ " + line + "\n" + said)
		}
		written.add("```\n")
	}
	written.add(rest)
	if ran < 10 {
		t.Errorf("%d commands were found in the guide", ran)
	}
	if *writeAudit {
		if err := os.WriteFile(auditGuide, []byte(written.text()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// auditedLife makes what the guide tells of: a session that is corrected, at a time that
// lies between, and another one that is rejected.
func auditedLife(s *rig.Service) (id, noon string) {
	alice, bob, carol := s.As("account-alice"), s.As("account-bob"), s.As("account-carol")
	pause := func() { <-time.After(3 * time.Millisecond) } // so that a time lies between
	path := alice.Create(`{"type": "telemed", "room": "consultation 4", "participants": ["bob"]}`)
	pause()
	started := alice.Expect(200, "PATCH", path, `{"start": true}`).Object(s.T)["startedAt"].(float64)
	pause()
	bob.Expect(200, "PATCH", path, `{"accept": true}`)
	pause()
	noon = time.Now().UTC().Format("2006-01-02T15:04:05.000Z")
	pause()
	another := carol.Create(`{"participants": ["bob"]}`)
	pause()
	s.As("service-crm").Expect(200, "PATCH", path, fmt.Sprintf(`{"acceptedAt": %.0f, "acceptedBy": "dr. bob"}`, started+1))
	pause()
	carol.Expect(200, "PATCH", another, `{"start": true}`)
	pause()
	bob.Expect(200, "PATCH", another, `{"reject": "no time today"}`)
	pause()
	alice.Expect(200, "PATCH", path, `{"room": "consultation 5", "finish": true}`)
	return strings.TrimPrefix(path, "/chat-sessions/"), noon
}

// What is another each time, and has the same length.
var (
	anyUUID        = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	anyStamp       = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z|\b1[78]\d{11}\b`)
	anyTraceParent = regexp.MustCompile(`00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]`)
)

// anyTime is a text without what is another each time: times, and ids but for which are
// the same.
func anyTime(text string) string {
	ids := map[string]string{}
	text = anyUUID.ReplaceAllStringFunc(text, func(id string) string {
		if ids[id] == "" {
			ids[id] = fmt.Sprintf("<id %d>", len(ids)+1)
		}
		return ids[id]
	})
	return anyTraceParent.ReplaceAllString(anyStamp.ReplaceAllString(text, "<time>"), "<trace>")
}

// A scheduled is the guide with the times of a day on which people would do, with pauses,
// what the test does at once. $noon is noon.
type scheduled struct {
	noon  string
	parts []string
}

func (s *scheduled) add(part string) { s.parts = append(s.parts, part) }

func (s *scheduled) text() string {
	text := strings.Join(s.parts, "")
	real, err := time.Parse(time.RFC3339, s.noon)
	if err != nil {
		panic(err) // made above
	}
	read := func(stamp string) time.Time {
		if ms, err := strconv.ParseInt(stamp, 10, 64); err == nil {
			return time.UnixMilli(ms).UTC()
		}
		at, _ := time.Parse(time.RFC3339, stamp)
		return at
	}
	var before, after []time.Time
	for _, stamp := range anyStamp.FindAllString(text, -1) {
		switch at := read(stamp); {
		case at.Sub(real).Abs() > time.Hour: // the guide's own
		case at.Before(real):
			before = append(before, at)
		default:
			after = append(after, at)
		}
	}
	shown := map[time.Time]time.Time{}
	noon := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	place := func(all []time.Time, step time.Duration) {
		slices.SortFunc(all, time.Time.Compare)
		if step < 0 {
			slices.Reverse(all)
		}
		for i, at := range slices.Compact(all) {
			shown[at] = noon.Add(time.Duration(i+1) * step)
		}
	}
	place(before, -(3*time.Minute + 17*time.Second + 409*time.Millisecond))
	place(after, 11*time.Minute+41*time.Second+617*time.Millisecond)
	return anyStamp.ReplaceAllStringFunc(text, func(stamp string) string {
		at, ok := shown[read(stamp)]
		switch {
		case !ok:
			return stamp
		case strings.Contains(stamp, "T"):
			return at.Format("2006-01-02T15:04:05.000Z")
		}
		return strconv.FormatInt(at.UnixMilli(), 10)
	})
}
