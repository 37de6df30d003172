package main

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"
)

// A content is all that a service has, to the byte.
type content struct {
	sessions map[string]answer // by path
	list     string            // of all, newest first
}

// fill writes some sessions in all states, and returns what the service has then.
func fill(t *testing.T, s *service, n int) content {
	t.Helper()
	changes := []string{`{}`, `{"start": true}`, `{"start": true, "accept": true}`, `{"start": true, "reject": "busy"}`,
		`{"start": true, "accept": true, "finish": "bye"}`, `{"room": "Grüße & <b>", "type": "telemed"}`}
	for i := range n {
		c := s.as(fmt.Sprintf("account-owner-%d", i%3))
		path := c.create(fmt.Sprintf(`{"room": "room %d", "participants": ["alice"]}`, i))
		c.expect(200, "PATCH", path, changes[i%len(changes)])
	}
	return s.content()
}

func (s *service) content() content {
	s.t.Helper()
	crm := s.as("service-crm")
	all := crm.expect(200, "GET", "/chat-sessions?$limit=1000", "")
	c := content{sessions: map[string]answer{}, list: string(all.body)}
	for _, session := range all.list(s.t) {
		path := fmt.Sprint("/chat-sessions/", session["id"])
		c.sessions[path] = crm.expect(200, "GET", path, "")
	}
	return c
}

// check fails the test unless the service has the same again.
func (c content) check(s *service) {
	s.t.Helper()
	if err := c.compare(s); err != nil {
		s.t.Error(err)
	}
}

func (c content) compare(s *service) error {
	crm := s.as("service-crm")
	all, err := crm.do("GET", "/chat-sessions?$limit=1000", "")
	if err != nil {
		return err
	}
	if all.status != 200 || string(all.body) != c.list {
		return fmt.Errorf("the list is %d %s, and was %s", all.status, all.body, c.list)
	}
	for path, was := range c.sessions {
		is, err := crm.do("GET", path, "")
		if err != nil {
			return err
		}
		if is.status != 200 || !bytes.Equal(is.body, was.body) || is.header.Get("ETag") != was.header.Get("ETag") {
			return fmt.Errorf("%s is %d %s %s, and was %s %s", path, is.status, is.header.Get("ETag"), is.body, was.header.Get("ETag"), was.body)
		}
		if source := is.header.Get("Chat-Sessions-Source"); source != "" {
			return fmt.Errorf("%s comes from the %s", path, source)
		}
	}
	return nil
}

// eventuallyHealed returns when the read model answers everything again.
func (c content) eventuallyHealed(s *service) {
	s.t.Helper()
	eventually(s.t, func() error { return c.compare(s) })
}

// newestPosition is the position of the newest event of all, as a PATCH that
// changes nothing tells it of the newest session changed.
func (s *service) newestPosition() uint64 {
	s.t.Helper()
	var newest uint64
	for path := range s.content().sessions {
		a := s.as("service-crm").expect(200, "PATCH", path, `{}`)
		position, err := strconv.ParseUint(a.header.Get("Chat-Sessions-Position"), 10, 64)
		if err != nil {
			s.t.Fatal(err)
		}
		newest = max(newest, position)
	}
	return newest
}

func (c content) paths() []string { return slices.Sorted(maps.Keys(c.sessions)) }

// awaitParked returns when the service counts so many parked sessions.
func awaitParked(t *testing.T, s *service, n int) {
	t.Helper()
	eventually(t, func() error {
		if got := s.metrics()["chatsessions_parked_sessions"]; got != float64(n) {
			return fmt.Errorf("%v sessions are parked, want %d", got, n)
		}
		return nil
	})
}

// Sessions that the log has no event of, or only what somebody else put there.
const (
	ghost    = "01a203c8-0000-7000-8000-00000000dead"
	notAUUID = "not-a-uuid"
)
