package redisfaults

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"chatsessions/cmd/systemtest/rig"
)

// The checks of the fault tests have to find what is wrong: each of these answers is
// judged after a session "s" was created and started, and another, "older", created.
func TestTheChecksOfTheFaultTestsFindWhatIsWrong(t *testing.T) {
	const (
		older = `{"id":"older","createdAt":1,"participants":["team"],"state":"created","version":1}`
		v1    = `{"id":"s","createdAt":2,"participants":["team"],"state":"created","version":1}`
		v2    = `{"id":"s","createdAt":2,"participants":["team"],"state":"started","version":2}`
		v3    = `{"id":"s","createdAt":2,"participants":["team"],"state":"accepted","version":3}`
	)
	ok := func(etag, body string) rig.Answer {
		return rig.Answer{Status: 200, Header: http.Header{"Etag": {`"` + etag + `"`}}, Body: []byte(body)}
	}
	refusal := rig.Answer{Status: 503, Header: http.Header{"Retry-After": {"1"}}, Body: nil}
	list := func(sessions ...string) rig.Answer {
		return rig.Answer{Status: 200, Header: http.Header{}, Body: []byte("[" + strings.Join(sessions, ",") + "]")}
	}
	get := func(a rig.Answer) func(*truth) error {
		return func(tr *truth) error { return tr.read(tr.about("s"), "s", a) }
	}
	listed := func(limit int, state string, a rig.Answer) func(*truth) error {
		return func(tr *truth) error {
			if state != "" {
				return tr.list(tr.ofState("s", state, limit), a)
			}
			return tr.list(tr.ofTeam("team", limit), a)
		}
	}
	inLog := func(texts ...string) []rig.Event {
		var events []rig.Event
		for i, text := range texts {
			s, err := parseShown([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			events = append(events, rig.Event{Subject: "chat-sessions." + s.ID, Sequence: uint64(i + 1),
				Header: nats.Header{"ce-correlationid": {fmt.Sprintf("%s-%d", s.ID, s.Version)}},
				Data:   fmt.Appendf(nil, `{"changes":{},"session":%s}`, text)})
		}
		return events
	}
	compared := func(texts ...string) func(*truth) error {
		return func(tr *truth) error { return errors.Join(tr.compare(inLog(texts...))...) }
	}
	// restoredTo has the log lose what is not among these.
	restoredTo := func(texts []string, then func(*truth) error) func(*truth) error {
		return func(tr *truth) error {
			tr.restored(inLog(texts...))
			return then(tr)
		}
	}
	for _, test := range []struct {
		name  string
		judge func(*truth) error
		found string // "" for nothing
	}{
		{"GET shows the session", get(ok("2", v2)), ""},
		{"GET is refused", get(refusal), ""},
		{"GET shows a write whose answer is under way", get(ok("3", v3)), ""},
		{"GET shows the state before the answered one", get(ok("1", v1)), "stale"},
		{"GET has an older ETag", get(ok("1", v2)), "ETag"},
		{"GET is a 404", get(rig.Answer{Status: 404, Header: http.Header{}, Body: nil}), "stale"},
		{"GET is a 503 without Retry-After", get(rig.Answer{Status: 503, Header: http.Header{}, Body: nil}), "wrong"},
		{"GET fails", get(rig.Answer{Status: 500, Header: http.Header{}, Body: nil}), "wrong"},
		{"GET shows another session", get(ok("1", older)), "wrong"},
		{"GET shows something else as the same version", get(ok("2", strings.Replace(v2, "started", "accepted", 1))), "wrong"},
		{"GET comes from nobody knows where", get(rig.Answer{Status: 200, Header: http.Header{"Etag": {`"2"`}, "Chat-Sessions-Source": {"cache"}}, Body: []byte(v2)}), "wrong"},
		{"a later GET shows less than the one before", func(tr *truth) error {
			return errors.Join(tr.read(tr.about("s"), "s", ok("3", v3)), tr.read(tr.about("s"), "s", ok("2", v2)))
		}, "stale"},
		{"a question that was sent before may show less", func(tr *truth) error {
			q := tr.about("s")
			return errors.Join(tr.read(tr.about("s"), "s", ok("3", v3)), tr.read(q, "s", ok("2", v2)))
		}, ""},
		{"a list shows both", listed(10, "", list(v2, older)), ""},
		{"a list is refused", listed(10, "", refusal), ""},
		{"a list has no room for the older one", listed(1, "", list(v2)), ""},
		{"a list is empty", listed(10, "", list()), "stale"},
		{"a list lacks the newer session", listed(10, "", list(older)), "stale"},
		{"a full list lacks the newer session", listed(1, "", list(older)), "stale"},
		{"a list lacks the older session", listed(10, "", list(v2)), "stale"},
		{"a list shows an older state", listed(10, "", list(v1, older)), "stale"},
		{"a list shows a session twice", listed(10, "", list(v2, v2, older)), "wrong"},
		{"a list is in the wrong order", listed(10, "", list(older, v2)), "wrong"},
		{"a list by state shows the session", listed(10, "started", list(v2)), ""},
		{"a list by state lacks the session", listed(10, "started", list()), "stale"},
		{"a list by state has one of another", listed(10, "started", list(v2, older)), "wrong"},
		{"a list is no list", listed(10, "", ok("2", v2)), "wrong"},
		{"a write is answered with the state before", func(tr *truth) error {
			_, err := tr.wrote(tr.about("s"), "again", ok("2", v2))
			return err
		}, "wrong"},
		{"the log has it all", compared(older, v1, v2), ""},
		{"the log lacks an answered write", compared(older, v1), "lost"},
		{"the log has a write twice", compared(older, v1, v2, v2), "wrong"},
		{"the log has something else", compared(older, strings.Replace(v1, "created\"", "started\"", 1), v2), "wrong"},
		{"after a restore GET shows what is left", restoredTo([]string{older, v1}, get(ok("1", v1))), ""},
		{"after a restore GET shows what was lost", restoredTo([]string{older, v1}, get(ok("2", v2))), "stale"},
		{"after a restore the session is a 404", restoredTo([]string{older}, get(rig.Answer{Status: 404, Header: http.Header{}, Body: nil})), ""},
		{"after a restore GET shows a session that was lost", restoredTo([]string{older}, get(ok("2", v2))), "stale"},
		{"after a restore a list shows a session that was lost", restoredTo([]string{older}, listed(10, "", list(v2, older))), "stale"},
		{"after a restore a list lacks what is left", restoredTo([]string{older, v1}, listed(10, "", list(older))), "stale"},
		{"after a restore another write is the second", restoredTo([]string{older, v1}, func(tr *truth) error {
			_, err := tr.wrote(tr.about("s"), "s-2", ok("2", strings.Replace(v2, "started", "rejected", 1)))
			return err
		}), ""},
		{"after a restore what was lost is not missed", restoredTo([]string{older, v1}, compared(older, v1)), ""},
		{"after a restore what is left is missed", restoredTo([]string{older, v1}, compared(older)), "lost"},
	} {
		t.Run(test.name, func(t *testing.T) {
			tr := newTruth()
			for _, text := range []string{older, v1, v2} {
				s, err := parseShown([]byte(text))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := tr.wrote(tr.about(s.ID), fmt.Sprintf("%s-%d", s.ID, s.Version), ok(fmt.Sprint(s.Version), text)); err != nil {
					t.Fatal(err)
				}
			}
			err := test.judge(tr)
			if test.found == "" && err != nil || test.found != "" && (err == nil || !strings.Contains(err.Error(), test.found)) {
				t.Errorf("found %v, want %q", err, test.found)
			}
		})
	}
}
