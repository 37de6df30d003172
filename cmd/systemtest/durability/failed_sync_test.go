package durability

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

	"chatsessions/cmd/systemtest/rig"
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
	s := &rig.Service{
		T: t, Binary: rig.Build(t, "-tags", "faults"),
		Args: append([]string{"serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir", t.TempDir()}, flags...),
		Env:  []string{"CHATSESSIONS_FAULT_SYNC=fail:" + unsync, "CHATSESSIONS_FAULT_SYNC_TAKES=" + syncTakes.String()},
	}
	s.Start()
	t.Cleanup(func() {
		s.Stop()
		s.CheckSound()
		if t.Failed() {
			t.Logf("the service's log:\n%s", s.Errors.String())
		}
	})
	crm := s.As("service-crm")
	started, left := crm.Create(`{"participants": ["bob"]}`), crm.Create(`{"participants": ["bob"]}`)
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
						case <-s.Exited:
							return
						case <-time.After(time.Millisecond): // its end is near, or was
						}
						continue
					}
					during.Add(1)
					if late {
						after.Add(1)
					}
					if a.Status == 503 {
						refused.Add(1)
					} else if !q.old(a) {
						t.Errorf("%s: %d %v %s", q.what, a.Status, a.Header, a.Body)
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
			a, err := crm.Do(write[0], write[1], write[2])
			failed.Store(true)
			switch {
			case err != nil: // it came when the service had ended; one of the others did not
			case a.Status == 503 && bytes.Contains(a.Body, []byte(`"mayHaveBeenWritten":true`)):
				unknown.Add(1)
			case a.Status == 503 && bytes.Contains(a.Body, []byte(`"mayHaveBeenWritten":false`)): // it came behind the failure
			default:
				t.Errorf("%v was answered %v", write, a.Instead(err))
			}
		})
	}
	select {
	case <-s.Exited:
	case <-time.After(rig.Patience):
		t.Errorf("the service has not ended in %s", rig.Patience)
		s.Kill()
	}
	running.Wait()
	if status := s.Cmd.ProcessState.ExitCode(); status != rig.ExitFailed {
		t.Errorf("exit status %d", status)
	}
	t.Logf("%d answers since the writes began, %d of them refusals; %d to questions put when a client knew already", during.Load(), refused.Load(), after.Load())
	if unknown.Load() == 0 {
		t.Error("no client was told that its write may have been written")
	}
	if refused.Load() == 0 {
		t.Error("no request came while it had to be refused")
	}
}

// A question is a request with what may be answered beside a 503.
type question struct {
	what string
	ask  func() (rig.Answer, error)
	old  func(rig.Answer) bool
}

// questionsOfOldState asks in all ways about two sessions in which Bob takes part, of
// which one is about to be started, and Bob about to leave the other one.
func questionsOfOldState(s *rig.Service, started, left string) []question {
	var all []question
	add := func(who, method, path, body string, old func(rig.Answer) bool, headers ...string) {
		c := s.As(who)
		all = append(all, question{
			strings.Join(append([]string{who, method, path, body}, headers...), " "),
			func() (rig.Answer, error) { return c.Do(method, path, body, headers...) }, old,
		})
	}
	same := func(was rig.Answer) func(rig.Answer) bool {
		return func(is rig.Answer) bool {
			return is.Status == was.Status && bytes.Equal(is.Body, was.Body) && is.Header.Get("ETag") == was.Header.Get("ETag")
		}
	}
	bob := s.As("account-bob")
	for _, path := range []string{
		started, left, "/chat-sessions", "/chat-sessions?participants=bob", "/chat-sessions?state=started", "/chat-sessions?state=created",
	} {
		add("account-bob", "GET", path, "", same(bob.Expect(200, "GET", path, "")))
	}
	counted := bob.Expect(200, "GET", "/chat-sessions?$limit=1", "", "Prefer: count=exact")
	add("account-bob", "GET", "/chat-sessions?$limit=1", "", func(is rig.Answer) bool {
		return same(counted)(is) && is.Header.Get("X-Total-Count") == counted.Header.Get("X-Total-Count")
	}, "Prefer: count=exact")
	// The version that is there, and the one that the failed write would have made.
	now := bob.Expect(200, "GET", started, "")
	add("account-bob", "GET", started, "", func(is rig.Answer) bool { return is.Status == 304 }, "If-None-Match: "+now.Header.Get("ETag"))
	add("account-bob", "GET", started, "", same(now), `If-None-Match: "2"`)
	// A refusal tells the state too.
	add("account-bob", "PATCH", started, `{"finish": true}`, func(is rig.Answer) bool {
		return is.Status == 409 && bytes.Contains(is.Body, []byte(`"state":"created"`))
	})
	return all
}
