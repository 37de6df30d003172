package rig

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A Client calls a service with one token.
type Client struct {
	T     *testing.T
	URL   string
	Token string
}

// An Answer is the response to one request.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Do sends a request. Headers are "Name: value"; a body is JSON unless they say
// otherwise. Do is safe for concurrent use.
func (c *Client) Do(method, path, body string, headers ...string) (Answer, error) {
	request, err := http.NewRequest(method, c.URL+path, strings.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	request.Header.Set("Authorization", "Bearer "+c.Token)
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		request.Header.Set(name, value)
	}
	response, err := HTTPClient.Do(request)
	if err != nil {
		return Answer{}, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	return Answer{response.StatusCode, response.Header, content}, err
}

// HTTPClient sends the requests of all clients.
var HTTPClient = &http.Client{
	Timeout:   30 * time.Second,
	Transport: &http.Transport{MaxIdleConnsPerHost: 1000},
}

// Expect sends a request that has to be answered with the status.
func (c *Client) Expect(status int, method, path, body string, headers ...string) Answer {
	c.T.Helper()
	a, err := c.Do(method, path, body, headers...)
	if err != nil {
		c.T.Fatalf("%s %s: %v", method, path, err)
	}
	if a.Status != status {
		c.T.Fatalf("%s %s %s: %d %s, want %d", method, path, body, a.Status, a.Body, status)
	}
	return a
}

// Create opens a session and returns its path.
func (c *Client) Create(body string) string {
	c.T.Helper()
	return c.Expect(200, "POST", "/chat-sessions", body).Header.Get("Location")
}

// As returns a client for a dev token, "account-alice" for example.
func (s *Service) As(who string) *Client { return &Client{s.T, s.URL, "dev-" + who} }

// Object decodes the body as a JSON object.
func (a Answer) Object(t *testing.T) map[string]any {
	t.Helper()
	return decode[map[string]any](t, a.Body)
}

// List decodes the body as a JSON array of objects.
func (a Answer) List(t *testing.T) []map[string]any {
	t.Helper()
	return decode[[]map[string]any](t, a.Body)
}

func decode[T any](t *testing.T, body []byte) (value T) {
	t.Helper()
	if err := json.Unmarshal(body, &value); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return value
}

// Instead returns the error for a wrong answer.
func (a Answer) Instead(err error) error {
	return errors.Join(err, fmt.Errorf("answered %d %v %s", a.Status, a.Header, a.Body))
}

// In returns the client for a subtest.
func (c *Client) In(t *testing.T) *Client { return &Client{t, c.URL, c.Token} }

// Get reads a session.
func (c *Client) Get(path string) map[string]any {
	c.T.Helper()
	return c.Expect(200, "GET", path, "").Object(c.T)
}

// List reads a list of sessions.
func (c *Client) List(query string, headers ...string) []map[string]any {
	c.T.Helper()
	return c.Expect(200, "GET", "/chat-sessions"+query, "", headers...).List(c.T)
}

// NoSession is the path of a session that does not exist.
const NoSession = "/chat-sessions/01890000-0000-7000-8000-000000000000"
