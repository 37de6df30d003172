package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chatsessions/projections/redistest"
)

// A write whose sync fails is in the log's file, and perhaps in the read model, and
// nobody knows whether it will be there after a crash. From then on until the process
// has ended, nobody is to see it by any question.
func TestAfterAFailedSyncNothingOfItIsShownUntilTheServiceHasEnded(t *testing.T) {
	for name, flags := range map[string]func(t *testing.T) []string{
		"embedded": func(*testing.T) []string { return nil },
		"redis": func(t *testing.T) []string {
			return []string{"--redis-url", redistest.Start(t, redistest.Config{}).URL()}
		},
	} {
		t.Run(name, func(t *testing.T) {
			for round := range 2 {
				t.Run(fmt.Sprintf("round %d", round), func(t *testing.T) { failASync(t, flags(t)) })
			}
		})
	}
}

// syncTakes is how long the sync takes that fails, which is how long those who read
// meanwhile have to resist.
const syncTakes = 100 * time.Millisecond

func failASync(t *testing.T, flags []string) {
	unsync := filepath.Join(t.TempDir(), "unsync")
	s := &service{
		t: t, binary: requireFaultBuild(t),
		args: append([]string{"serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir", t.TempDir()}, flags...),
		env:  []string{"CHATSESSIONS_FAULT_SYNC=fail:" + unsync, "CHATSESSIONS_FAULT_SYNC_TAKES=" + syncTakes.String()},
	}
	s.start()
	t.Cleanup(func() {
		s.stop()
		s.checkSound()
		if t.Failed() {
			t.Logf("the service's log:\n%s", s.errors.String())
		}
	})
	crm := s.as("service-crm")
	started, left := crm.create(`{"participants": ["bob"]}`), crm.create(`{"participants": ["bob"]}`)
	questions := questionsOfOldState(s, started, left)

	if err := os.WriteFile(unsync, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var failed atomic.Bool // the client has been told
	var during, after, refused, unknown atomic.Int64
	var running sync.WaitGroup
	for _, q := range questions {
		for range 4 {
			running.Go(func() {
				for {
					late := failed.Load()
					a, err := q.ask()
					if err != nil {
						select {
						case <-s.exited:
							return
						case <-time.After(time.Millisecond): // its end is near, or was
						}
						continue
					}
					during.Add(1)
					if late {
						after.Add(1)
					}
					if a.status == 503 {
						refused.Add(1)
					} else if !q.old(a) {
						t.Errorf("%s: %d %v %s", q.what, a.status, a.header, a.body)
						return
					}
				}
			})
		}
	}
	for _, write := range [][3]string{
		{"PATCH", started, `{"start": true}`},
		{"PATCH", left, `{"participants": []}`}, // then it is not Bob's to see
		{"POST", "/chat-sessions", `{"participants": ["bob"]}`},
	} {
		running.Go(func() {
			a, err := crm.do(write[0], write[1], write[2])
			failed.Store(true)
			switch {
			case err != nil: // it came when the service had ended; one of the others did not
			case a.status == 503 && bytes.Contains(a.body, []byte(`"mayHaveBeenWritten":true`)):
				unknown.Add(1)
			case a.status == 503 && bytes.Contains(a.body, []byte(`"mayHaveBeenWritten":false`)): // it came behind the failure
			default:
				t.Errorf("%v was answered %v", write, a.instead(err))
			}
		})
	}
	select {
	case <-s.exited:
	case <-time.After(patience):
		t.Errorf("the service has not ended in %s", patience)
		s.kill()
	}
	running.Wait()
	if status := s.cmd.ProcessState.ExitCode(); status != exitFailed {
		t.Errorf("exit status %d", status)
	}
	t.Logf("%d answers since the writes began, %d of them refusals; %d to questions put when a client knew already", during.Load(), refused.Load(), after.Load())
	if unknown.Load() == 0 {
		t.Error("no client was told that his write may have been written")
	}
	if refused.Load() == 0 {
		t.Error("no question came at a time when it had to be refused")
	}
}

// A question is a request with what may be answered beside a 503.
type question struct {
	what string
	ask  func() (answer, error)
	old  func(answer) bool
}

// questionsOfOldState asks in all ways about two sessions in which Bob takes part, of
// which one is about to be started, and Bob about to leave the other one.
func questionsOfOldState(s *service, started, left string) []question {
	var all []question
	add := func(who, method, path, body string, old func(answer) bool, headers ...string) {
		c := s.as(who)
		all = append(all, question{
			strings.Join(append([]string{who, method, path, body}, headers...), " "),
			func() (answer, error) { return c.do(method, path, body, headers...) }, old,
		})
	}
	same := func(was answer) func(answer) bool {
		return func(is answer) bool {
			return is.status == was.status && bytes.Equal(is.body, was.body) && is.header.Get("ETag") == was.header.Get("ETag")
		}
	}
	bob := s.as("account-bob")
	for _, path := range []string{
		started, left, "/chat-sessions", "/chat-sessions?participants=bob", "/chat-sessions?state=started", "/chat-sessions?state=created",
	} {
		add("account-bob", "GET", path, "", same(bob.expect(200, "GET", path, "")))
	}
	counted := bob.expect(200, "GET", "/chat-sessions?$limit=1", "", "Prefer: count=exact")
	add("account-bob", "GET", "/chat-sessions?$limit=1", "", func(is answer) bool {
		return same(counted)(is) && is.header.Get("X-Total-Count") == counted.header.Get("X-Total-Count")
	}, "Prefer: count=exact")
	// The version that is there, and the one that the failed write would have made.
	now := bob.expect(200, "GET", started, "")
	add("account-bob", "GET", started, "", func(is answer) bool { return is.status == 304 }, "If-None-Match: "+now.header.Get("ETag"))
	add("account-bob", "GET", started, "", same(now), `If-None-Match: "2"`)
	// A refusal tells the state too.
	add("account-bob", "PATCH", started, `{"finish": true}`, func(is answer) bool {
		return is.status == 409 && bytes.Contains(is.body, []byte(`"state":"created"`))
	})
	return all
}
