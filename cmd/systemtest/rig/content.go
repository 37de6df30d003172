package rig

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"
)

// A Content is everything that a service shows, to the byte.
type Content struct {
	Sessions map[string]Answer // by path
	List     string            // of all, newest first
}

// Fill writes n sessions, of all states, and returns the content of the service.
func Fill(t *testing.T, s *Service, n int) Content {
	t.Helper()
	changes := []string{`{}`, `{"start": true}`, `{"start": true, "accept": true}`, `{"start": true, "reject": "busy"}`,
		`{"start": true, "accept": true, "finish": "bye"}`, `{"room": "Grüße & <b>", "type": "telemed"}`}
	for i := range n {
		c := s.As(fmt.Sprintf("account-owner-%d", i%3))
		path := c.Create(fmt.Sprintf(`{"room": "room %d", "participants": ["alice"]}`, i))
		c.Expect(200, "PATCH", path, changes[i%len(changes)])
	}
	return s.Content()
}

// Content reads everything that the service shows.
func (s *Service) Content() Content {
	s.T.Helper()
	crm := s.As("service-crm")
	all := crm.Expect(200, "GET", "/chat-sessions?$limit=1000", "")
	c := Content{Sessions: map[string]Answer{}, List: string(all.Body)}
	for _, session := range all.List(s.T) {
		path := fmt.Sprint("/chat-sessions/", session["id"])
		c.Sessions[path] = crm.Expect(200, "GET", path, "")
	}
	return c
}

// Check fails the test unless the service has the same content again.
func (c Content) Check(s *Service) {
	s.T.Helper()
	if err := c.compare(s); err != nil {
		s.T.Error(err)
	}
}

func (c Content) compare(s *Service) error {
	crm := s.As("service-crm")
	all, err := crm.Do("GET", "/chat-sessions?$limit=1000", "")
	if err != nil {
		return err
	}
	if all.Status != 200 || string(all.Body) != c.List {
		return fmt.Errorf("the list is %d %s, and was %s", all.Status, all.Body, c.List)
	}
	for path, was := range c.Sessions {
		is, err := crm.Do("GET", path, "")
		if err != nil {
			return err
		}
		if is.Status != 200 || !bytes.Equal(is.Body, was.Body) || is.Header.Get("ETag") != was.Header.Get("ETag") {
			return fmt.Errorf("%s is %d %s %s, and was %s %s", path, is.Status, is.Header.Get("ETag"), is.Body, was.Header.Get("ETag"), was.Body)
		}
		if source := is.Header.Get("Chat-Sessions-Source"); source != "" {
			return fmt.Errorf("%s comes from the %s", path, source)
		}
	}
	return nil
}

// EventuallyHealed returns when the read model shows all of the content again.
func (c Content) EventuallyHealed(s *Service) {
	s.T.Helper()
	Eventually(s.T, func() error { return c.compare(s) })
}

// NewestPosition returns the position of the newest event. A PATCH that changes nothing
// gets the position of its session's newest event.
func (s *Service) NewestPosition() uint64 {
	s.T.Helper()
	var newest uint64
	for path := range s.Content().Sessions {
		a := s.As("service-crm").Expect(200, "PATCH", path, `{}`)
		position, err := strconv.ParseUint(a.Header.Get("Chat-Sessions-Position"), 10, 64)
		if err != nil {
			s.T.Fatal(err)
		}
		newest = max(newest, position)
	}
	return newest
}

// Paths returns the paths of all sessions, sorted.
func (c Content) Paths() []string { return slices.Sorted(maps.Keys(c.Sessions)) }

// AwaitParked returns when the service counts n parked sessions.
func AwaitParked(t *testing.T, s *Service, n int) {
	t.Helper()
	Eventually(t, func() error {
		if got := s.Metrics()["chatsessions_parked_sessions"]; got != float64(n) {
			return fmt.Errorf("%v sessions are parked, want %d", got, n)
		}
		return nil
	})
}

// Sessions without an event of the service in the log.
const (
	Ghost    = "01a203c8-0000-7000-8000-00000000dead"
	NotAUUID = "not-a-uuid"
)
