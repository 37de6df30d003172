package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

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
			servers := startServers(t)
			s := startService(t, servers.flags()...)
			before := fill(t, s, 12)
			crm := s.as("service-crm")

			outage.gone(servers.nats)
			var running sync.WaitGroup
			defer running.Wait()
			var writes writeAttempts
			for i := range 8 {
				running.Go(func() { writes.post(t, crm, fmt.Sprintf("during %s %d", outage.name, i)) })
			}
			for path := range before.sessions {
				running.Go(func() { writes.patch(t, crm, path) })
			}
			before.neverLies(t, s)
			// Sooner or later nothing can be trusted any more.
			eventually(t, func() error {
				if a, err := crm.do("GET", "/chat-sessions", ""); err != nil || a.status != 503 {
					return a.instead(err)
				}
				return nil
			})
			before.neverLies(t, s)
			running.Wait()

			outage.backAgain(servers.nats)
			eventually(t, func() error {
				a, err := crm.do("POST", "/chat-sessions", `{"room": "healed"}`)
				if err != nil || a.status != 200 {
					return a.instead(err)
				}
				a, err = crm.do("GET", a.header.Get("Location"), "")
				if err != nil || a.status != 200 || a.header.Get("Chat-Sessions-Source") != "" {
					return a.instead(err)
				}
				return nil
			})
			writes.check(t, s)
			checkReadModel(t, s, s.settledLog())
		})
	}
}

func TestWithoutRedisWritesGoOnAndSessionsComeFromTheLog(t *testing.T) {
	onRealRedis(t, func(t *testing.T, s *service, redis *redistest.Server) {
		before := fill(t, s, 6)
		crm := s.as("service-crm")
		redis.Kill()

		path := crm.create(`{"room": "without"}`)
		changed := crm.expect(200, "PATCH", path, `{"start": true}`)
		read := crm.expect(200, "GET", path, "")
		if !bytes.Equal(read.body, changed.body) || read.header.Get("Chat-Sessions-Source") != "log" {
			t.Errorf("written was %s; read was %s from %q", changed.body, read.body, read.header.Get("Chat-Sessions-Source"))
		}
		crm.expect(409, "PATCH", path, `{"start": true}`)
		for path, was := range before.sessions {
			if is := crm.expect(200, "GET", path, ""); !bytes.Equal(is.body, was.body) || is.header.Get("ETag") != was.header.Get("ETag") {
				t.Errorf("%s is %s, and was %s", path, is.body, was.body)
			}
		}
		crm.expect(404, "GET", "/chat-sessions/00000000-0000-7000-8000-000000000000", "")
		s.as("account-stranger").expect(404, "GET", path, "")
		list := crm.expect(503, "GET", "/chat-sessions", "")
		if list.header.Get("Retry-After") == "" {
			t.Errorf("a 503 without Retry-After: %s", list.body)
		}

		redis.Restart()
		eventually(t, func() error {
			a, err := crm.do("GET", path, "")
			if err != nil || a.header.Get("Chat-Sessions-Source") != "" {
				return a.instead(err)
			}
			return nil
		})
		checkReadModel(t, s, s.settledLog())
	})
}

// neverLies reads every session and the list: the answer is the truth or a 503.
func (c content) neverLies(t *testing.T, s *service) {
	t.Helper()
	crm := s.as("service-crm")
	paths := []string{"/chat-sessions?$limit=1000"}
	want := map[string]string{paths[0]: c.list}
	for path, a := range c.sessions {
		paths = append(paths, path)
		want[path] = string(a.body)
	}
	atOnce(t, len(paths), func(i int) error {
		a, err := crm.do("GET", paths[i], "")
		switch {
		case err != nil:
			return err
		case a.status == 503 && a.header.Get("Retry-After") != "":
			return nil
		case a.status != 200 || string(a.body) != want[paths[i]]:
			return fmt.Errorf("%s: %d %s, want %s", paths[i], a.status, a.body, want[paths[i]])
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

func (w *writeAttempts) post(t *testing.T, c *client, id string) {
	w.send(t, c, "POST", "/chat-sessions", `{}`, strings.ReplaceAll(id, " ", "-"))
}

func (w *writeAttempts) patch(t *testing.T, c *client, path string) {
	w.send(t, c, "PATCH", path, `{"room": "changed in between"}`, "patch-"+path[len("/chat-sessions/"):])
}

// send makes a write that has to be answered with a 503 that says whether it was
// written.
func (w *writeAttempts) send(t *testing.T, c *client, method, path, body, id string) {
	a, err := c.do(method, path, body, "X-Request-Id: "+id)
	may := bytes.Contains(a.body, []byte(`"mayHaveBeenWritten":true`))
	if err != nil || a.status != 503 || a.header.Get("Retry-After") == "" || !may && !bytes.Contains(a.body, []byte(`"mayHaveBeenWritten":false`)) {
		t.Error(errors.Join(err, fmt.Errorf("%s %s: %d %v %s", method, path, a.status, a.header, a.body)))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.attempts = append(w.attempts, attempt{id, may})
}

// check looks into the log for what was said not to be written.
func (w *writeAttempts) check(t *testing.T, s *service) {
	t.Helper()
	written := map[string]bool{}
	for _, e := range s.log() {
		written[e.header["ce-correlationid"][0]] = true
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
