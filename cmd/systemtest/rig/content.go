package rig

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
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
	if err := c.Compare(s); err != nil {
		s.T.Error(err)
	}
}

// Compare returns an error unless the service has the same content again.
func (c Content) Compare(s *Service) error {
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

// Paths returns the paths of all sessions, sorted.
func (c Content) Paths() []string { return slices.Sorted(maps.Keys(c.Sessions)) }

// Ghost is a session without an event of the service in the log.
const Ghost = "01a203c8-0000-7000-8000-00000000dead"
