package audit

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"chatsessions/cmd/systemtest/rig"
)

// A historyEvent is an event as a history in JSON has it.
type historyEvent struct {
	Position                             uint64
	ID, Type, Time, Actor, CorrelationID string
	Version                              uint64
	Changes, Session                     map[string]any
}

// aLife is the log that these tests look at: one session's life with a correction, and
// another session between. It returns their ids.
func aLife(s *rig.Service) (one, other string) {
	alice, bob := s.As("account-alice"), s.As("account-bob")
	path := alice.Create(`{"participants": ["bob"], "room": "consultation 4", "createdAt": 1700000000000}`)
	alice.Expect(200, "PATCH", path, `{"start": true}`)
	beside := s.As("account-=HYPERLINK()").Create(`{"room": "a\nb,\"c\""}`)
	bob.Expect(200, "PATCH", path, `{"accept": true}`)
	s.As("service-crm").Expect(200, "PATCH", path, `{"startedAt": 1700000100000, "acceptedAt": 1700000200000}`)
	alice.Expect(200, "PATCH", path, `{"participants": null, "finish": "all said"}`)
	return strings.TrimPrefix(path, "/chat-sessions/"), strings.TrimPrefix(beside, "/chat-sessions/")
}

// ofLog are the flags by which a command finds the service's log.
func ofLog(s *rig.Service) []string {
	if url := s.Flag("--nats-url"); url != "" {
		return []string{"--nats-url", url}
	}
	return []string{"--data-dir", s.Flag("--data-dir")}
}

func TestTheHistoryOfASession(t *testing.T) {
	t.Parallel()
	rig.OnAllSetups(t, func(t *testing.T, s *rig.Service) {
		id, other := aLife(s)
		log := s.Log()
		for _, stopped := range []bool{false, true} {
			if stopped {
				s.Stop()
			}
			history := func(output string, id string) string {
				t.Helper()
				status, stdout, stderr := rig.Command(t, nil, append([]string{"history", id, "--output", output}, ofLog(s)...)...)
				if status != rig.ExitDone || stderr != "" {
					t.Fatalf("stopped %v: exit status %d, %q, %q", stopped, status, stdout, stderr)
				}
				return stdout
			}
			var events []historyEvent
			if err := json.Unmarshal([]byte(history("json", strings.ToUpper(id))), &events); err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, want := range log {
				if want.Subject != "chat-sessions."+id {
					continue
				}
				got := events[n]
				n++
				if got.Position != want.Sequence || got.ID != want.Header["ce-id"][0] || got.Type != want.Header["ce-type"][0] || got.Time != want.Header["ce-time"][0] ||
					got.Actor != want.Header["ce-actor"][0] || got.CorrelationID != want.Header["ce-correlationid"][0] || fmt.Sprint(got.Version) != want.Header["ce-sessionversion"][0] ||
					fmt.Sprint(got.Changes) != fmt.Sprint(want.Changes) || fmt.Sprint(got.Session) != fmt.Sprint(want.Session) {
					t.Errorf("%+v, want %+v", got, want)
				}
			}
			if n != 6 || len(events) != n {
				t.Errorf("%d events, want %d", len(events), n)
			}
			// What was recorded now, as opposed to what was said to have happened then.
			table := regexp.MustCompile(`202[^3]-\d\d-\d\dT[0-9:.]+Z`).ReplaceAllString(history("table", id), "-------- just now ------")
			const want = `POSITION  TIME                      TYPE        VERSION  WHO    CHANGES
       1  -------- just now ------  created           1  alice  createdAt 2023-11-14T22:13:20.000Z, createdBy alice, room "consultation 4", participants [bob], state created
       2  -------- just now ------  started           2  alice  startedAt -------- just now ------, startedBy alice, state started
       4  -------- just now ------  accepted          3  bob    acceptedAt -------- just now ------, acceptedBy bob, state accepted
       5  -------- just now ------  corrected         4  crm    startedAt 2023-11-14T22:15:00.000Z, acceptedAt 2023-11-14T22:16:40.000Z
       6  -------- just now ------  updated           5  alice  participants removed
       7  -------- just now ------  finished          6  alice  finishedAt -------- just now ------, finishedBy alice, finishReason "all said", state finished
`
			if table != want {
				t.Errorf("%s\nwant\n%s", table, want)
			}
			records, err := csv.NewReader(strings.NewReader(history("csv", other))).ReadAll()
			if err != nil || len(records) != 2 || strings.Join(records[0], ",") != "position,time,type,session,version,state,actor,changes,id,correlationId" {
				t.Fatalf("%q, %v", records, err)
			}
			if actor, changes := records[1][6], records[1][7]; actor != "'=HYPERLINK()" || !strings.Contains(changes, `"room":"a\nb,\"c\""`) || !json.Valid([]byte(changes)) {
				t.Errorf("%q", records)
			}
		}
	})
}

func TestAHistoryThatCannotBeShown(t *testing.T) {
	t.Parallel()
	s := rig.Start(t, "--dev")
	id, _ := aLife(s)
	position := s.Publish(&nats.Msg{Subject: "chat-sessions." + id, Data: []byte("nonsense")})
	for _, c := range []struct {
		args   string
		status int
		says   string
	}{
		{"nonsense", rig.ExitUsage, "is not the id of a session"},
		{"{" + id + "}", rig.ExitUsage, "is not the id of a session"},
		{rig.Ghost, rig.ExitFailed, "there is no session " + rig.Ghost},
		{rig.Ghost + " --data-dir /dev/null", rig.ExitFailed, "/dev/null"},
		{rig.Ghost + " --nats-url nats://127.0.0.1:1", rig.ExitFailed, "127.0.0.1:1"},
		{rig.Ghost + " --output xml", rig.ExitUsage, "--output"},
	} {
		args := append([]string{"history"}, strings.Fields(c.args)...)
		if !strings.Contains(c.args, " --") {
			args = append(args, ofLog(s)...)
		}
		status, stdout, stderr := rig.Command(t, nil, args...)
		if status != c.status || stdout != "" || !strings.Contains(stderr, c.says) {
			t.Errorf("%s: exit status %d, %q, %q; want %d, %q", c.args, status, stdout, stderr, c.status, c.says)
		}
	}
	for output, want := range map[string]string{
		"table": fmt.Sprintf("\n%8d  %24s  unreadable  %7s  %-5s  ", position, "", "", ""),
		"json":  fmt.Sprintf(",\n{\"position\":%d,\"sessionId\":%q,\"unreadable\":", position, id),
		"csv":   fmt.Sprintf("\n%d,,unreadable,%s,", position, id),
	} {
		status, stdout, stderr := rig.Command(t, nil, append([]string{"history", id, "--output", output}, ofLog(s)...)...)
		if status != rig.ExitFailed || !strings.Contains(stdout, want) || !strings.Contains(stderr, fmt.Sprintf("event %d of session %s cannot be read", position, id)) {
			t.Errorf("exit status %d\n%s\n%s\nwant %q", status, stdout, stderr, want)
		}
		if lines := strings.Count(stdout, "\n"); lines < 7 {
			t.Errorf("what can be read is left out:\n%s", stdout)
		}
	}
}

// TestAHistoryIsOnDiskBeforeItIsShown: the service's server may show what it has not
// synced yet, so the command syncs the log's file itself.
func TestAHistoryIsOnDiskBeforeItIsShown(t *testing.T) {
	t.Parallel()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Fatalf("this test needs strace, make deps installs it: %v", err)
	}
	s := rig.Start(t, "--dev")
	id, _ := aLife(s)
	calls := filepath.Join(t.TempDir(), "calls")
	args := append([]string{"-f", "-qq", "-y", "-e", "trace=fdatasync,write", "-e", "signal=none", "-o", calls, rig.Binary, "history", id}, ofLog(s)...)
	if out, err := exec.Command(strace, args...).Output(); err != nil || !strings.HasPrefix(string(out), "POSITION") {
		t.Fatalf("%v\n%s", err, out)
	}
	content, err := os.ReadFile(calls)
	if err != nil {
		t.Fatal(err)
	}
	synced := regexp.MustCompile(`fdatasync\(\d+<[^>]*/1\.blk>`).FindIndex(content)
	shown := regexp.MustCompile(`write\(1<[^>]*>, "POSITION`).FindIndex(content)
	if synced == nil || shown == nil || synced[0] > shown[0] {
		t.Errorf("synced at %v, shown at %v of\n%s", synced, shown, content)
	}
}
