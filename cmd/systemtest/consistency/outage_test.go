package consistency

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"chatsessions/cmd/systemtest/rig"
	"chatsessions/eventstore/natstest"
	"chatsessions/projections/redistest"
)

func TestWithoutNATSWritesAreRefusedAndReadsNeverLie(t *testing.T) {
	outages := []struct {
		name      string
		gone      func(*natstest.Server)
		backAgain func(*natstest.Server)
	}{
		{"frozen", (*natstest.Server).Pause, (*natstest.Server).Resume},
		{"stopped", (*natstest.Server).Stop, (*natstest.Server).Restart},
		{"killed", (*natstest.Server).Kill, (*natstest.Server).Restart},
	}
	for _, outage := range outages {
		t.Run(outage.name, func(t *testing.T) {
			t.Parallel() // they do little but wait
			servers := rig.StartServers(t)
			s := rig.Start(t, servers.Flags()...)
			before := rig.Fill(t, s, 12)
			crm := s.As("service-crm")

			outage.gone(servers.NATS)
			var running sync.WaitGroup
			defer running.Wait()
			var writes writeAttempts
			for i := range 8 {
				running.Go(func() { writes.post(t, crm, fmt.Sprintf("during %s %d", outage.name, i)) })
			}
			for path := range before.Sessions {
				running.Go(func() { writes.patch(t, crm, path) })
			}
			neverLies(before, t, s)
			// Sooner or later nothing can be trusted any more.
			rig.Eventually(t, func() error {
				if a, err := crm.Do("GET", "/chat-sessions", ""); err != nil || a.Status != 503 {
					return a.Instead(err)
				}
				return nil
			})
			neverLies(before, t, s)
			running.Wait()

			outage.backAgain(servers.NATS)
			rig.Eventually(t, func() error {
				a, err := crm.Do("POST", "/chat-sessions", `{"room": "healed"}`)
				if err != nil || a.Status != 200 {
					return a.Instead(err)
				}
				a, err = crm.Do("GET", a.Header.Get("Location"), "")
				if err != nil || a.Status != 200 || a.Header.Get("Chat-Sessions-Source") != "" {
					return a.Instead(err)
				}
				return nil
			})
			writes.check(t, s)
			rig.CheckReadModel(t, s, s.SettledLog())
		})
	}
}

func TestWithoutRedisWritesGoOnAndSessionsComeFromTheLog(t *testing.T) {
	rig.OnRealRedis(t, func(t *testing.T, s *rig.Service, redis *redistest.Server) {
		before := rig.Fill(t, s, 6)
		crm := s.As("service-crm")
		redis.Kill()

		path := crm.Create(`{"room": "without"}`)
		changed := crm.Expect(200, "PATCH", path, `{"start": true}`)
		read := crm.Expect(200, "GET", path, "")
		if !bytes.Equal(read.Body, changed.Body) || read.Header.Get("Chat-Sessions-Source") != "log" {
			t.Errorf("written was %s; read was %s from %q", changed.Body, read.Body, read.Header.Get("Chat-Sessions-Source"))
		}
		crm.Expect(409, "PATCH", path, `{"start": true}`)
		for path, was := range before.Sessions {
			if is := crm.Expect(200, "GET", path, ""); !bytes.Equal(is.Body, was.Body) || is.Header.Get("ETag") != was.Header.Get("ETag") {
				t.Errorf("%s is %s, and was %s", path, is.Body, was.Body)
			}
		}
		crm.Expect(404, "GET", "/chat-sessions/00000000-0000-7000-8000-000000000000", "")
		s.As("account-stranger").Expect(404, "GET", path, "")
		list := crm.Expect(503, "GET", "/chat-sessions", "")
		if list.Header.Get("Retry-After") == "" {
			t.Errorf("a 503 without Retry-After: %s", list.Body)
		}

		redis.Restart()
		rig.Eventually(t, func() error {
			a, err := crm.Do("GET", path, "")
			if err != nil || a.Header.Get("Chat-Sessions-Source") != "" {
				return a.Instead(err)
			}
			return nil
		})
		rig.CheckReadModel(t, s, s.SettledLog())
	})
}

// neverLies reads every session and the list: the answer is the truth or a 503.
func neverLies(c rig.Content, t *testing.T, s *rig.Service) {
	t.Helper()
	crm := s.As("service-crm")
	paths := []string{"/chat-sessions?$limit=1000"}
	want := map[string]string{paths[0]: c.List}
	for path, a := range c.Sessions {
		paths = append(paths, path)
		want[path] = string(a.Body)
	}
	rig.AtOnce(t, len(paths), func(i int) error {
		a, err := crm.Do("GET", paths[i], "")
		switch {
		case err != nil:
			return err
		case a.Status == 503 && a.Header.Get("Retry-After") != "":
			return nil
		case a.Status != 200 || string(a.Body) != want[paths[i]]:
			return fmt.Errorf("%s: %d %s, want %s", paths[i], a.Status, a.Body, want[paths[i]])
		}
		return nil
	})
}

// writeAttempts are writes that were made while the log was away.
type writeAttempts struct {
	mu       sync.Mutex
	attempts []attempt
}

type attempt struct {
	id  string // of the request
	may bool   // the answer said that it may have been written
}

func (w *writeAttempts) post(t *testing.T, c *rig.Client, id string) {
	w.send(t, c, "POST", "/chat-sessions", `{}`, strings.ReplaceAll(id, " ", "-"))
}

func (w *writeAttempts) patch(t *testing.T, c *rig.Client, path string) {
	w.send(t, c, "PATCH", path, `{"room": "changed in between"}`, "patch-"+path[len("/chat-sessions/"):])
}

// send makes a write that has to be answered with a 503 that says whether it was
// written.
func (w *writeAttempts) send(t *testing.T, c *rig.Client, method, path, body, id string) {
	a, err := c.Do(method, path, body, "X-Request-Id: "+id)
	may := bytes.Contains(a.Body, []byte(`"mayHaveBeenWritten":true`))
	if err != nil || a.Status != 503 || a.Header.Get("Retry-After") == "" || !may && !bytes.Contains(a.Body, []byte(`"mayHaveBeenWritten":false`)) {
		t.Error(errors.Join(err, fmt.Errorf("%s %s: %d %v %s", method, path, a.Status, a.Header, a.Body)))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.attempts = append(w.attempts, attempt{id, may})
}

// check looks into the log for what was said not to be written.
func (w *writeAttempts) check(t *testing.T, s *rig.Service) {
	t.Helper()
	written := map[string]bool{}
	for _, e := range s.Log() {
		written[e.Header["ce-correlationid"][0]] = true
	}
	perhaps := 0
	for _, a := range w.attempts {
		if a.may {
			perhaps++
		} else if written[a.id] {
			t.Errorf("%s was said not to be written, and is in the log", a.id)
		}
	}
	t.Logf("%d writes refused, %d of them with an unknown outcome", len(w.attempts), perhaps)
}
