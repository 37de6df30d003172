package http

import (
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gofiber/fiber/v2"
)

// TestTheFirstErrorIsReported: of several errors, the first in the contract's order.
func TestTheFirstErrorIsReported(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxCommands = 1 })
	id := r.create(`{"participants":["bob"]}`)
	gate := make(chan string)
	r.mu.Lock()
	r.block["Transact"] = gate
	r.mu.Unlock()
	first := make(chan response, 1)
	go func() { first <- r.do("POST", "/chat-sessions", `{}`) }() // takes the only place
	eventually(t, "a command is in flight", func() bool { return r.server.Stats().Commands == 1 })

	large := `{"room":"` + strings.Repeat("x", maxBody) + `"}`
	long := "/chat-sessions/" + id + "?" + strings.Repeat("x", maxURI)
	type try struct {
		method, path, body string
		headers            []string
	}
	wrong := []string{"Authorization", "Bearer x"}
	auditor := bearer("auditor", "a")
	busy := []struct {
		status int
		try
	}{
		{414, try{"DELETE", long, large, wrong}},
		{431, try{"DELETE", "/chat-sessions", large, append([]string{"X-Large", strings.Repeat("x", maxHeader+1)}, wrong...)}},
		{405, try{"DELETE", "/chat-sessions", large, wrong}},
		{401, try{"PATCH", "/chat-sessions/" + id, large, wrong}},
		{401, try{"POST", "/chat-sessions", large, []string{"Authorization", "-"}}},
		{403, try{"PATCH", "/chat-sessions/x", large, auditor}},
		{503, try{"PATCH", "/chat-sessions/x?x=1", large, nil}},
	}
	for _, tt := range busy {
		if got := r.do(tt.method, tt.path, tt.body, tt.headers...); got.StatusCode != tt.status {
			t.Errorf("%s %.60s: %d %s, want %d", tt.method, tt.path, got.StatusCode, got.body, tt.status)
		}
	}
	<-gate
	if got := <-first; got.StatusCode != 200 {
		t.Fatal(got.body)
	}
	r.mu.Lock()
	delete(r.block, "Transact")
	r.mu.Unlock()
	for _, tt := range []struct {
		status int
		try
	}{
		{413, try{"PATCH", "/chat-sessions/x?x=1", large, []string{"Content-Type", "text/plain"}}},
		{415, try{"PATCH", "/chat-sessions/x?x=1", `nonsense`, []string{"Content-Type", "text/plain"}}},
		{400, try{"PATCH", "/chat-sessions/x?x=1", `{}`, nil}},
		{400, try{"PATCH", "/chat-sessions/x", `nonsense`, nil}},
		{400, try{"PATCH", "/chat-sessions/x", `{}`, []string{"If-Match", "1"}}},
		{400, try{"PATCH", "/chat-sessions/x", `{}`, []string{"Idempotency-Key", ""}}},
		{404, try{"PATCH", "/chat-sessions/x", `{"room":1}`, []string{"If-Match", `"9"`}}},
		{404, try{"PATCH", "/chat-sessions/" + id, `{"room":1}`, append(bearer("account", "carol"), "If-Match", `"9"`)}},
		{422, try{"PATCH", "/chat-sessions/" + id, `{"room":1,"acceptedBy":"carol","finish":true}`, []string{"If-Match", `"9"`}}},
		{412, try{"PATCH", "/chat-sessions/" + id, `{"acceptedBy":"carol","finish":true}`, []string{"If-Match", `"9"`}}},
		{403, try{"PATCH", "/chat-sessions/" + id, `{"startedBy":"carol","finish":true}`, nil}},
		{409, try{"PATCH", "/chat-sessions/" + id, `{"finish":true}`, nil}},
		{406, try{"GET", "/chat-sessions/x/events?x=1", "", []string{"Accept", "text/html"}}},
		{400, try{"GET", "/chat-sessions/x/events?x=1", "", nil}},
		{400, try{"GET", "/chat-sessions/x/events", "", []string{"If-Match", "1"}}},
		{504, try{"GET", "/chat-sessions/x/events", "", []string{"Chat-Sessions-Position", "99"}}},
		{504, try{"GET", "/chat-sessions/x", "", []string{"Chat-Sessions-Position", "99"}}},
		{404, try{"GET", "/chat-sessions/x", "", []string{"If-Match", `"9"`}}},
	} {
		if got := r.do(tt.method, tt.path, tt.body, tt.headers...); got.StatusCode != tt.status {
			t.Errorf("%s %.60s %.60s %v: %d %s, want %d", tt.method, tt.path, tt.body, tt.headers, got.StatusCode, got.body, tt.status)
		}
	}
	if got := r.position(); got != 2 {
		t.Errorf("%d events, want 2", got)
	}
}

func TestCommandsBeyondTheLimitAreRefusedUnwritten(t *testing.T) {
	at := time.UnixMilli(now)
	r := newRig(t, func(c *Config) { c.MaxCommands = 2; c.Now = func() time.Time { return at } })
	gate := make(chan string)
	r.mu.Lock()
	r.block["Transact"] = gate
	r.mu.Unlock()
	done := make(chan response, 2)
	for range 2 {
		go func() { done <- r.do("POST", "/chat-sessions", `{}`) }()
	}
	eventually(t, "two are in flight", func() bool { return r.server.Stats().Commands == 2 })
	for range 3 {
		got := r.must(503, "POST", "/chat-sessions", `{}`)
		if got.field("mayHaveBeenWritten") != "false" || got.Header.Get("Retry-After") != "1" || !strings.Contains(got.field("detail"), "limit of 2 changes in flight; nothing was written") {
			t.Error(got.body)
		}
	}
	r.must(200, "GET", "/chat-sessions", "") // reads have no part in it
	at = at.Add(warnEvery)
	r.must(503, "POST", "/chat-sessions", `{}`)
	if logs := r.logs.String(); strings.Count(logs, "commands are refused") != 2 || !strings.Contains(logs, `"refused since the start"=4`) || strings.Contains(logs, "request failed") {
		t.Error(logs)
	}
	<-gate
	<-gate
	for range 2 {
		if got := <-done; got.StatusCode != 200 {
			t.Error(got.body)
		}
	}
	eventually(t, "none is in flight", func() bool { return r.server.Stats().Commands == 0 })
	if got := r.server.Stats().Refused; got != 4 {
		t.Errorf("%d refused", got)
	}
}

func TestTheRateLimitIsPerAccount(t *testing.T) {
	at := time.UnixMilli(now)
	r := newRig(t, func(c *Config) { c.RateLimit = 2; c.Now = func() time.Time { return at } })
	for i := range 4 { // as many as two seconds allow
		if got := r.do("GET", "/chat-sessions", ""); got.StatusCode != 200 {
			t.Fatalf("request %d: %d %s", i, got.StatusCode, got.body)
		}
	}
	for range 2 {
		got := r.must(429, "GET", "/chat-sessions", "")
		if got.Header.Get("Retry-After") != "1" || got.field("name") != "TooManyRequests" {
			t.Error(got.body)
		}
	}
	r.must(200, "GET", "/chat-sessions", "", bearer("account", "bob")...)
	at = at.Add(500 * time.Millisecond)
	r.must(200, "GET", "/chat-sessions", "") // refusals did not count
	r.must(429, "GET", "/chat-sessions", "")
}

func TestATokenIsNeeded(t *testing.T) {
	r := newRig(t)
	for _, tt := range []struct {
		authorization []string
		status        int
		challenge     string
	}{
		{[]string{"-"}, 401, "Bearer"}, {[]string{""}, 401, "Bearer"}, {[]string{"Bearer"}, 401, "Bearer"}, {[]string{"Basic dev-account-alice"}, 401, "Bearer"}, {[]string{"Bearer  "}, 401, "Bearer"},
		{[]string{"Bearer x"}, 401, `Bearer error="invalid_token"`}, {[]string{"Bearer dev-root-alice"}, 401, `Bearer error="invalid_token"`},
		{[]string{"Bearer dev-account-alice", "Bearer dev-account-alice"}, 401, `Bearer error="invalid_token"`},
		{[]string{"bearer  dev-account-alice "}, 200, ""}, {[]string{"BEARER dev-account-alice"}, 200, ""},
	} {
		var headers []string
		for _, value := range tt.authorization {
			headers = append(headers, "Authorization", value)
		}
		got := r.do("GET", "/chat-sessions", "", headers...)
		if got.StatusCode != tt.status || got.Header.Get("Www-Authenticate") != tt.challenge {
			t.Errorf("%q: %d, challenge %q", tt.authorization, got.StatusCode, got.Header.Get("Www-Authenticate"))
		}
	}
	if got := r.must(403, "POST", "/chat-sessions", `{}`, bearer("auditor", "a")...); got.Header.Get("Www-Authenticate") != `Bearer error="insufficient_scope"` || !strings.Contains(got.field("detail"), `"auditor"`) {
		t.Error(got.body, got.Header)
	}
	if logs := r.logs.String(); logs != "" {
		t.Errorf("refusals are logged: %s", logs)
	}
}

// fasthttp writes the next request into the memory of this one.
func TestTheNameOfARequestOutlivesIt(t *testing.T) {
	s := NewServer(Config{Now: time.Now})
	app := fiber.New()
	app.Get("/", s.trace, func(c *fiber.Ctx) error {
		c.Request().Header.Set(headerRequestID, "xxxxxx")
		return c.SendString(correlationID(c))
	})
	request := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
	request.Header.Set(headerRequestID, "first1")
	got, err := app.Test(request)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	if text, _ := io.ReadAll(got.Body); string(text) != "first1" {
		t.Errorf("the name became %s", text)
	}
}

func TestARequestKeepsItsName(t *testing.T) {
	r := newRig(t)
	for given, kept := range map[string]bool{"abc-1": true, strings.Repeat("x", 128): true, strings.Repeat("x", 129): false, "a b": false, "é": false, "-": false, "~!": true} {
		got := r.must(200, "GET", "/chat-sessions", "", "X-Request-Id", given).Header.Get("X-Request-Id")
		if (got == given) != kept || !kept && len(got) != 36 {
			t.Errorf("%q became %q", given, got)
		}
	}
	r.must(200, "POST", "/chat-sessions", `{}`, "X-Request-Id", "mine", "Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	if got := r.requests[0]; got.CorrelationID != "mine" || !strings.HasPrefix(got.TraceParent, "00-4bf92f3577b34da6a3ce929d0e0e4736-") {
		t.Errorf("%+v", got)
	}
	if got := r.must(404, "GET", "/elsewhere", "", "X-Request-Id", "mine"); got.Header.Get("X-Request-Id") != "mine" || got.field("instance") != "/elsewhere" {
		t.Error(got.body)
	}
}
