package audit

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/redis/go-redis/v9"

	"chatsessions/cmd/systemtest/rig"
	"chatsessions/domain"
	"chatsessions/projections/redistest"
)

// A defect is a line that chatsessions verify --output json prints.
type defect struct {
	Kind             domain.DefectKind
	Position         uint64
	SessionID, Index string
	Detail           string
}

// A verified is its last line.
type verified struct {
	Position, Events, Sessions uint64
	ReadModel                  bool
	Defects                    uint64
}

// verify runs chatsessions verify, and returns what it tells of defects and in the end,
// and of its defects as text.
func verify(t *testing.T, wantStatus int, flags ...string) (defects []defect, end verified, text string) {
	t.Helper()
	status, text, stderr := rig.Command(t, nil, append([]string{"verify"}, flags...)...)
	if status != wantStatus || status == rig.ExitFailed && !strings.Contains(stderr, wereFound(strings.Count(text, "\n")-1)) {
		t.Fatalf("verify %v: exit status %d, want %d: %q, %q", flags, status, wantStatus, text, stderr)
	}
	status, stdout, stderr := rig.Command(t, nil, append([]string{"verify", "--output", "json"}, flags...)...)
	if status != wantStatus {
		t.Fatalf("verify --output json %v: exit status %d, want %d: %q, %q", flags, status, wantStatus, stdout, stderr)
	}
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	for _, line := range lines[:len(lines)-1] {
		var d defect
		if err := json.Unmarshal([]byte(line), &d); err != nil || d.Kind == "" {
			t.Fatalf("%s: %v", line, err)
		}
		defects = append(defects, d)
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &end); err != nil {
		t.Fatalf("%s: %v", stdout, err)
	}
	if end.Defects != uint64(len(defects)) || strings.Count(text, "\n") != len(lines) {
		t.Fatalf("%+v with %d defects, and as text:\n%s", end, len(defects), text)
	}
	return defects, end, text
}

// wereFound is what is said of so many defects in the end.
func wereFound(defects int) string {
	if defects == 1 {
		return "1 defect was found"
	}
	return fmt.Sprint(defects, " defects were found")
}

// checkTold fails the test unless these are the defects, in any order, with details that
// say what they have to.
func checkTold(t *testing.T, got []defect, want ...defect) {
	t.Helper()
	left := slices.Clone(want)
	for _, d := range got {
		i := slices.IndexFunc(left, func(w defect) bool {
			says := w.Detail
			w.Detail = d.Detail
			return w == d && strings.Contains(d.Detail, says)
		})
		if i < 0 {
			t.Errorf("is no defect: %+v", d)
			continue
		}
		left = slices.Delete(left, i, i+1)
	}
	for _, d := range left {
		t.Errorf("was not told: %+v", d)
	}
}

// TestVerifyOfARunningService: an honest one has no defect, and each defect that is
// written to its log or its read model is told.
func TestVerifyOfARunningService(t *testing.T) {
	t.Parallel()
	rig.OnAllSetups(t, func(t *testing.T, s *rig.Service) {
		t.Parallel()
		flags := s.Stores()
		honest := rig.Fill(t, s, 12)
		crm := s.As("service-crm")
		path := crm.Create(`{"room": "r1", "createdAt": 1000, "startedAt": 2000, "rejectedAt": 3000, "rejectReason": "zażółć", "finishedAt": 4000}`)
		crm.Expect(200, "PATCH", path, `{"rejectReason": "because", "room": null}`)
		victim := crm.Create(`{"room": "r2"}`)
		crm.Expect(200, "PATCH", victim, `{"start": true}`)
		id := strings.TrimPrefix(victim, "/chat-sessions/")
		log := s.Log()
		_, end, text := verify(t, rig.ExitDone, flags...)
		if want := (verified{uint64(len(log)), uint64(len(log)), uint64(len(honest.Paths()) + 2), true, 0}); end != want {
			t.Errorf("%+v, want %+v", end, want)
		}
		if !strings.Contains(text, "Defects: 0.") {
			t.Errorf("%s", text)
		}
		if after := s.Log(); len(after) != len(log) {
			t.Errorf("the log went from %d to %d events", len(log), len(after))
		}

		// A forged event: finished, which the machine forbids, as if by the service.
		forged := forgedFinish(log, id)
		position := s.Publish(forged)
		defects, _, text := verify(t, rig.ExitFailed, append(flags, "--log-only")...)
		checkTold(t, defects, defect{Kind: domain.DefectTransition, Position: position, SessionID: id, Detail: "finish is not possible: the session is started"})
		if want := fmt.Sprintf("position %d, session %s, transition: finish is not possible: the session is started\n", position, id); !strings.HasPrefix(text, want) {
			t.Errorf("%q, want %q", text, want)
		}
		// A stranger's message parks its session.
		strange := s.Publish(&nats.Msg{Subject: "chat-sessions." + rig.Ghost, Data: []byte("hello")})
		rig.Eventually(t, func() error {
			if n := s.Metrics()["chatsessions_parked_sessions"]; n != 1 {
				return fmt.Errorf("%v sessions are parked", n)
			}
			return nil
		})
		defects, end, _ = verify(t, rig.ExitFailed, flags...)
		checkTold(t, defects,
			defect{Kind: domain.DefectTransition, Position: position, SessionID: id, Detail: "finish"},
			defect{Kind: domain.DefectUnreadable, Position: strange, SessionID: rig.Ghost},
			defect{Kind: "parked", Position: strange, SessionID: rig.Ghost}, // follows
		)
		if want := (verified{strange, position, uint64(len(honest.Paths()) + 2), true, 3}); end != want {
			t.Errorf("%+v, want %+v", end, want)
		}

		// What was done to the read model.
		at := slices.Index(flags, "--redis-url")
		if at < 0 {
			return
		}
		rdb := redisClient(t, flags[at+1])
		lost := honest.Paths()[0][len("/chat-sessions/"):]
		newest := uint64(0)
		for _, e := range log {
			if e.Subject == "chat-sessions."+lost {
				newest = e.Sequence
			}
		}
		keys, err := rdb.Keys(t.Context(), "cs2:*:doc:"+lost).Result()
		if err != nil || len(keys) != 1 {
			t.Fatalf("%v, %v", keys, err)
		}
		if err := rdb.Del(t.Context(), keys...).Err(); err != nil {
			t.Fatal(err)
		}
		defects, _, _ = verify(t, rig.ExitFailed, flags...)
		checkTold(t, defects,
			defect{Kind: domain.DefectTransition, Position: position, SessionID: id, Detail: "finish"},
			defect{Kind: domain.DefectUnreadable, Position: strange, SessionID: rig.Ghost},
			defect{Kind: "parked", Position: strange, SessionID: rig.Ghost},
			defect{Kind: "read-model", Position: newest, SessionID: lost, Detail: "the session is missing"},
		)
	}, "--ops-listen", "127.0.0.1:0")
}

func redisClient(t *testing.T, url string) *redis.Client {
	t.Helper()
	o, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	rdb := redis.NewClient(o)
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// forgedFinish is an event that finishes a session whose newest event is its start.
func forgedFinish(log []rig.Event, id string) *nats.Msg {
	var last rig.Event
	for _, e := range log {
		if e.Subject == "chat-sessions."+id {
			last = e
		}
	}
	session := maps.Clone(last.Session)
	version := int(session["version"].(float64)) + 1
	changes := map[string]any{"state": "finished", "finishedAt": session["startedAt"], "finishedBy": "mallory", "version": version}
	maps.Copy(session, changes)
	data, _ := json.Marshal(map[string]any{"changes": changes, "session": session})
	m := &nats.Msg{Subject: last.Subject, Header: nats.Header{}, Data: data}
	for name, values := range last.Header {
		if strings.HasPrefix(name, "ce-") {
			m.Header[name] = slices.Clone(values)
		}
	}
	m.Header.Set("ce-type", "chat-session.finished")
	m.Header.Set("ce-dataschema", "/chat-sessions/events/schemas/chat-session.finished.json")
	m.Header.Set("ce-sessionversion", strconv.Itoa(version))
	m.Header.Set("ce-previous", strconv.FormatUint(last.Sequence, 10))
	m.Header.Set("ce-id", "0192f5c6-3c00-7000-8000-0000000000ff")
	return m
}

// TestVerifyOfAStoppedService: the log in its data directory, and in a copy of that into
// which a defect was written.
func TestVerifyOfAStoppedService(t *testing.T) {
	redis := redistest.Start(t, redistest.Config{})
	s := rig.Start(t, "--dev", "--redis-url", redis.URL())
	rig.Fill(t, s, 6)
	dir := s.Flag("--data-dir")
	victim := s.As("service-crm").Create(`{}`)
	s.As("service-crm").Expect(200, "PATCH", victim, `{"start": true}`)
	log := s.Log()
	if status := s.Stop(); status != rig.ExitDone {
		t.Fatalf("exit status %d", status)
	}
	_, end, text := verify(t, rig.ExitDone, "--data-dir", dir)
	if want := uint64(len(log)); end.Position != want || end.Events != want || end.ReadModel || !strings.Contains(text, "the service is not running") {
		t.Errorf("%+v, want %d events: %s", end, want, text)
	}
	if _, end, _ = verify(t, rig.ExitDone, "--data-dir", dir, "--redis-url", redis.URL()); !end.ReadModel {
		t.Errorf("%+v", end)
	}

	copied := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	id := strings.TrimPrefix(victim, "/chat-sessions/")
	forger := rig.Start(t, "--dev", "--data-dir", copied)
	position := forger.Publish(forgedFinish(log, id))
	if status := forger.Stop(); status != rig.ExitDone {
		t.Fatalf("exit status %d", status)
	}
	forgery := defect{Kind: domain.DefectTransition, Position: position, SessionID: id, Detail: "finish is not possible"}
	defects, _, _ := verify(t, rig.ExitFailed, "--data-dir", copied)
	checkTold(t, defects, forgery)
	// The read model is that of the original.
	status, stdout, stderr := rig.Command(t, nil, "verify", "--data-dir", copied, "--redis-url", redis.URL())
	if status != rig.ExitFailed || !strings.Contains(stdout, "read-model: the read model is at position "+strconv.FormatUint(position-1, 10)) {
		t.Errorf("exit status %d: %q, %q", status, stdout, stderr)
	}
	verify(t, rig.ExitDone, "--data-dir", dir)
}
