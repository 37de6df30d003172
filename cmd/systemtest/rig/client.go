package main

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

// A client calls a service with one token.
type client struct {
	t     *testing.T
	url   string
	token string
}

// An answer is what the service said to one request.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// do sends a request. Headers are "Name: value"; a body is JSON unless they say
// otherwise. It is safe to call from many goroutines.
func (c *client) do(method, path, body string, headers ...string) (answer, error) {
	request, err := http.NewRequest(method, c.url+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	request.Header.Set("Authorization", "Bearer "+c.token)
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		request.Header.Set(name, value)
	}
	response, err := httpClient.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, content}, err
}

var httpClient = &http.Client{
	Timeout:   30 * time.Second,
	Transport: &http.Transport{MaxIdleConnsPerHost: 1000},
}

// expect sends a request that has to be answered with the status.
func (c *client) expect(status int, method, path, body string, headers ...string) answer {
	c.t.Helper()
	a, err := c.do(method, path, body, headers...)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	if a.status != status {
		c.t.Fatalf("%s %s %s: %d %s, want %d", method, path, body, a.status, a.body, status)
	}
	return a
}

// create opens a session and returns its path.
func (c *client) create(body string) string {
	c.t.Helper()
	return c.expect(200, "POST", "/chat-sessions", body).header.Get("Location")
}

// as returns a client for a dev token, "account-alice" for example.
func (s *service) as(who string) *client { return &client{s.t, s.url, "dev-" + who} }

// object decodes the body as a JSON object.
func (a answer) object(t *testing.T) map[string]any {
	t.Helper()
	var o map[string]any
	if err := json.Unmarshal(a.body, &o); err != nil {
		t.Fatalf("%s: %v", a.body, err)
	}
	return o
}

// list decodes the body as a JSON array of objects.
func (a answer) list(t *testing.T) []map[string]any {
	t.Helper()
	var l []map[string]any
	if err := json.Unmarshal(a.body, &l); err != nil {
		t.Fatalf("%s: %v", a.body, err)
	}
	return l
}

// instead is the error of a request that was not answered as it had to be.
func (a answer) instead(err error) error {
	return errors.Join(err, fmt.Errorf("answered %d %v %s", a.status, a.header, a.body))
}

// in returns the client for a subtest.
func (c *client) in(t *testing.T) *client { return &client{t, c.url, c.token} }

// refused sends a request that has to be refused with the status, and returns
// the problem that it is told.
func (c *client) refused(status int, method, path, body string, headers ...string) map[string]any {
	c.t.Helper()
	a := c.expect(status, method, path, body, headers...)
	sent := fmt.Sprintf("%s %s %.300s %q", method, path, body, headers)
	return a.problem(c.t, sent)
}

// problem checks that the answer speaks both error dialects, and returns its body.
func (a answer) problem(t *testing.T, sent string) map[string]any {
	t.Helper()
	if got := a.header.Get("Content-Type"); got != "application/problem+json" {
		t.Fatalf("%s: %d with Content-Type %q: %s", sent, a.status, got, a.body)
	}
	p := a.object(t)
	class, known := feathersClass[a.status]
	if !known {
		t.Errorf("%s: status %d is not one of the contract's: %s", sent, a.status, a.body)
	}
	want := map[string]any{"status": float64(a.status), "code": float64(a.status), "name": class[0], "className": class[1]}
	for name, value := range want {
		if p[name] != value {
			t.Errorf("%s: %s is %v, want %v: %s", sent, name, p[name], value, a.body)
		}
	}
	for _, name := range []string{"type", "title", "detail", "instance", "message"} {
		if text, _ := p[name].(string); text == "" {
			t.Errorf("%s: %s is not a text: %s", sent, name, a.body)
		}
	}
	return p
}

// feathersClass is what a Feathers client throws for a status: name, className.
var feathersClass = map[int][2]string{
	400: {"BadRequest", "bad-request"},
	401: {"NotAuthenticated", "not-authenticated"},
	403: {"Forbidden", "forbidden"},
	404: {"NotFound", "not-found"},
	405: {"MethodNotAllowed", "method-not-allowed"},
	406: {"NotAcceptable", "not-acceptable"},
	409: {"Conflict", "conflict"},
	412: {"PreconditionFailed", "precondition-failed"},
	413: {"PayloadTooLarge", "payload-too-large"},
	414: {"URITooLong", "uri-too-long"},
	415: {"UnsupportedMediaType", "unsupported-media-type"},
	422: {"Unprocessable", "unprocessable"},
	429: {"TooManyRequests", "too-many-requests"},
	431: {"RequestHeaderFieldsTooLarge", "request-header-fields-too-large"},
	503: {"Unavailable", "unavailable"},
	504: {"GatewayTimeout", "gateway-timeout"},
}

// get reads a session.
func (c *client) get(path string) map[string]any {
	c.t.Helper()
	return c.expect(200, "GET", path, "").object(c.t)
}

// patch changes a session, and returns it.
func (c *client) patch(path, body string, headers ...string) map[string]any {
	c.t.Helper()
	return c.expect(200, "PATCH", path, body, headers...).object(c.t)
}

// list reads a list of sessions.
func (c *client) list(query string, headers ...string) []map[string]any {
	c.t.Helper()
	return c.expect(200, "GET", "/chat-sessions"+query, "", headers...).list(c.t)
}

// nobody is the path of a session that does not exist.
const nobody = "/chat-sessions/01890000-0000-7000-8000-000000000000"

// toJSON writes a request's body.
func toJSON(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return string(text)
}
