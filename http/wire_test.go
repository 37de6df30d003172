package http

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestAMethodThatAResourceDoesNotHave(t *testing.T) {
	r := newRig(t)
	for path, allow := range map[string]string{
		"/chat-sessions": "GET, HEAD, POST", "/chat-sessions/x": "GET, HEAD, PATCH", "/chat-sessions/x/events": "GET, HEAD", "/chat-sessions/events": "GET, HEAD",
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get"} {
			if slices.Contains(strings.Split(allow, ", "), method) || method == "CONNECT" {
				continue
			}
			got := r.do(method, path, "")
			if got.StatusCode != 405 || got.Header.Get("Allow") != allow || got.field("className") != "method-not-allowed" {
				t.Errorf("%s %s: %d, Allow %q, %s", method, path, got.StatusCode, got.Header.Get("Allow"), got.body)
			}
		}
	}
	for _, path := range []string{"/", "/x", "/Chat-Sessions", "/chat-sessions/x/y", "/chat-sessions/x/events/y", "/chat-sessions-x"} {
		if got := r.must(404, "GET", path, ""); !strings.Contains(got.field("detail"), "the resources are") || got.field("instance") != path {
			t.Errorf("%s: %s", path, got.body)
		}
		r.must(404, "PROPFIND", path, "")
	}
}

func TestAHeadIsAGetWithoutItsBody(t *testing.T) {
	r := newRig(t)
	id := r.create(`{}`)
	for _, path := range []string{"/chat-sessions", "/chat-sessions/" + id, "/chat-sessions/" + id + "/events", "/chat-sessions/x", "/described"} {
		get, head := r.do("GET", path, ""), r.do("HEAD", path, "")
		if head.body != "" || head.StatusCode != get.StatusCode || head.ContentLength != get.ContentLength || head.Header.Get("Etag") != get.Header.Get("Etag") {
			t.Errorf("%s: %d %q %v", path, head.StatusCode, head.body, head.Header)
		}
	}
}

func TestTheTypeOfABody(t *testing.T) {
	r := newRig(t)
	id := r.create(`{}`)
	for _, tt := range []struct {
		contentType string
		post, patch int
	}{
		{"application/json", 200, 200}, {"Application/JSON; charset=UTF-8", 200, 200}, {`application/json; charset="utf-8"`, 200, 200}, {"application/json; x=y", 200, 200},
		{"application/merge-patch+json", 415, 200}, {"application/json; charset=latin1", 415, 415}, {"text/plain", 415, 415}, {"application/jsonx", 415, 415},
		{"-", 415, 415}, {";", 415, 415}, {"application/json; charset", 200, 200},
	} {
		for _, try := range []struct {
			method, path, header, accepted string
			status                         int
		}{
			{"POST", "/chat-sessions", "Accept-Post", "application/json", tt.post},
			{"PATCH", "/chat-sessions/" + id, "Accept-Patch", "application/json, application/merge-patch+json", tt.patch},
		} {
			got := r.do(try.method, try.path, `{}`, "Content-Type", tt.contentType)
			if got.StatusCode != try.status || try.status == 415 && got.Header.Get(try.header) != try.accepted {
				t.Errorf("%s as %s: %d %v %s", try.method, tt.contentType, got.StatusCode, got.Header, got.body)
			}
		}
	}
	for coding, status := range map[string]int{"identity": 200, "IDENTITY": 200, "gzip": 415, "br": 415} {
		got := r.must(status, "POST", "/chat-sessions", `{}`, "Content-Encoding", coding)
		if status == 415 && got.Header.Get("Accept-Encoding") != "identity" {
			t.Error(got.Header)
		}
	}
	r.must(415, "POST", "/chat-sessions", "", "Content-Type", "text/plain") // even of an empty one
}

func TestTheLimitsOfARequest(t *testing.T) {
	r := newRig(t)
	fill := func(head string, n int) string { return head + strings.Repeat("x", n-len(head)) }
	body := func(n int) string { return `{"x":"` + strings.Repeat("x", n-len(`{"x":""}`)) + `"}` }
	for _, tt := range []struct {
		name   string
		got    response
		status int
	}{
		{"a body at the limit", r.do("POST", "/chat-sessions", body(maxBody)), 200},
		{"a body beyond it", r.do("POST", "/chat-sessions", body(maxBody+1)), 413},
		{"a body of the usual size", r.do("POST", "/chat-sessions", body(4<<10)), 200},
		{"a body beyond that", r.do("POST", "/chat-sessions", body(4<<10+1)), 200},
		{"a URI at the limit", r.do("GET", fill("/chat-sessions?", maxURI), ""), 400},
		{"a URI beyond it", r.do("GET", fill("/chat-sessions?", maxURI+1), ""), 414},
		{"a header at the limit", r.do("GET", "/chat-sessions", "", "X-Large", fill("", maxHeader)), 200},
		{"a header beyond it", r.do("GET", "/chat-sessions", "", "X-Large", fill("", maxHeader+1)), 431},
		{"too many headers", r.do("GET", "/chat-sessions", "", "X-Large", fill("", maxHeader), "X-Larger", fill("", maxHeader)), 431},
		{"a head beyond the buffer", r.do("GET", "/chat-sessions", "", "X-Large", fill("", 20<<10)), 431},
	} {
		if tt.got.StatusCode != tt.status || tt.status == 413 && !strings.Contains(tt.got.field("detail"), "65536 bytes") || tt.status == 431 && !strings.Contains(tt.got.field("detail"), "8192 bytes, all of them together with the request line 16384") {
			t.Errorf("%s: %d %s, want %d", tt.name, tt.got.StatusCode, tt.got.body, tt.status)
		}
	}
	// The head counts as a whole, to the byte.
	head := "GET /chat-sessions HTTP/1.1\r\n"
	rest := "Host: x\r\nAuthorization: Bearer dev-account-alice\r\nConnection: close\r\nX-A: " + strings.Repeat("a", maxHeader) + "\r\nX-B: "
	room := maxHead - len("/chat-sessions") - len(rest) - len("\r\n\r\n")
	for extra, status := range map[int]string{0: "HTTP/1.1 200 ", 1: "HTTP/1.1 431 "} {
		if got := r.raw(head+rest+strings.Repeat("b", room+extra)+"\r\n\r\n", 5*time.Second); !strings.HasPrefix(got, status) {
			t.Errorf("%d bytes beyond: %.80q", extra, got)
		}
	}
}

const alice = "Host: x\r\nAuthorization: Bearer dev-account-alice\r\nContent-Type: application/json\r\n"

// TestAConnectionIsNeverReadOutOfStep: what is left of a body is not the next request.
func TestAConnectionIsNeverReadOutOfStep(t *testing.T) {
	r := newRig(t)
	next := "GET /chat-sessions HTTP/1.1\r\n" + alice + "Connection: close\r\n\r\n"
	large := strings.Repeat("x", 1<<20)
	for name, tt := range map[string]struct {
		text string
		want []string // statuses
	}{
		"a body of a request that is refused before": {"POST /nowhere HTTP/1.1\r\n" + alice + "Content-Length: 30\r\n\r\nDELETE /chat-sessions HTTP/1.1" + next, []string{"404", "200"}},
		"chunks":                          {"POST /chat-sessions HTTP/1.1\r\n" + alice + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n" + next, []string{"200", "200"}},
		"a large body is read to its end": {"POST /chat-sessions HTTP/1.1\r\n" + alice + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(large)) + large + next, []string{"413", "200"}},
		"chunks without an end":           {"POST /chat-sessions HTTP/1.1\r\n" + alice + "Transfer-Encoding: chunked\r\n\r\nzz\r\n" + next, []string{"400"}},
		"a length beyond everything":      {"POST /chat-sessions HTTP/1.1\r\n" + alice + "Content-Length: 99999999\r\n\r\n" + large[:8<<10], []string{"413"}},
		"two lengths":                     {"POST /chat-sessions HTTP/1.1\r\n" + alice + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + next, []string{"400"}},
		"chunks in HTTP/1.0":              {"POST /chat-sessions HTTP/1.0\r\n" + alice + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + next, []string{"400"}},
		"not HTTP":                        {"\x16\x03\x01 secret\r\n\r\n", []string{"400"}},
		"a header without a colon":        {"GET /chat-sessions HTTP/1.1\r\nAuthorization Bearer secret\r\n\r\n", []string{"400"}},
		"an unknown method, then another": {"BREW /chat-sessions HTTP/1.1\r\n" + alice + "\r\n" + next, []string{"405", "200"}},
		"an absolute target":              {"GET http://x/chat-sessions HTTP/1.1\r\n" + alice + "Connection: close\r\n\r\n", []string{"200"}},
	} {
		got := r.raw(tt.text, 2*time.Second)
		var statuses []string
		for _, part := range strings.Split(got, "HTTP/1.1 ")[1:] {
			statuses = append(statuses, part[:3])
		}
		if !slices.Equal(statuses, tt.want) || strings.Contains(got, "secret") {
			t.Errorf("%s: %v, want %v\n%.400s", name, statuses, tt.want, got)
		}
	}
}

func TestABodyThatIsCutShort(t *testing.T) {
	r := newRig(t)
	for declared, says := range map[int]string{50: "unexpected EOF", 60_000: "the body could not be read"} {
		got := r.halfClosed("POST /chat-sessions HTTP/1.1\r\n" + alice + fmt.Sprintf("Content-Length: %d\r\n\r\n{}", declared) + strings.Repeat(" ", min(declared/5, 9000)))
		if !strings.HasPrefix(got, "HTTP/1.1 400 ") || !strings.Contains(got, says) || !strings.Contains(got, "Connection: close") {
			t.Errorf("%.300q", got)
		}
	}
	if r.position() != 0 {
		t.Error("it was written")
	}
}

func TestEveryRequestIsObserved(t *testing.T) {
	type seen struct {
		endpoint Endpoint
		status   int
	}
	var mu sync.Mutex
	var all []seen
	r := newRig(t, func(c *Config) {
		c.Observe = func(e Endpoint, status int, took time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			if took <= 0 {
				t.Error("it took no time")
			}
			all = append(all, seen{e, status})
		}
	})
	id := r.create(`{}`)
	path := "/chat-sessions/" + id
	for _, request := range []struct {
		method, path string
		want         seen
	}{
		{"POST", "/chat-sessions", seen{EndpointCreate, 400}}, {"POST", "/chat-sessions/", seen{EndpointCreate, 400}},
		{"GET", "/chat-sessions", seen{EndpointList, 200}}, {"HEAD", "/chat-sessions?x=1", seen{EndpointList, 400}}, {"PUT", "/chat-sessions", seen{EndpointOther, 405}},
		{"GET", path, seen{EndpointGet, 200}}, {"HEAD", path, seen{EndpointGet, 200}}, {"GET", "/chat-sessions/x", seen{EndpointGet, 404}}, {"PATCH", path, seen{EndpointChange, 400}},
		{"DELETE", path, seen{EndpointOther, 405}}, {"GET", path + "/events", seen{EndpointHistory, 200}}, {"GET", path + "/events/", seen{EndpointHistory, 200}}, {"PATCH", path + "/events", seen{EndpointOther, 405}},
		{"GET", "/chat-sessions/events?x=1", seen{EndpointFeed, 400}}, {"HEAD", "/chat-sessions/events", seen{EndpointFeed, 200}}, {"POST", "/chat-sessions/events", seen{EndpointOther, 405}},
		{"GET", "/elsewhere", seen{EndpointOther, 404}}, {"GET", path + "/x", seen{EndpointOther, 404}}, {"BREW", path, seen{EndpointOther, 405}},
		{"GET", "/chat-sessions?" + strings.Repeat("x", maxURI), seen{EndpointList, 414}}, // refused before its route
	} {
		r.do(request.method, request.path, "")
		mu.Lock()
		if got := all[len(all)-1]; got != request.want {
			t.Errorf("%s %.60s is %v, want %v", request.method, request.path, got, request.want)
		}
		mu.Unlock()
	}
	for i, e := range Endpoints() {
		if int(e) != i {
			t.Errorf("endpoint %d is %d", i, e)
		}
		if method, path := e.Route(); (method == "other") != (e == EndpointOther) || (path == "other") != (e == EndpointOther) {
			t.Errorf("%d: %s %s", e, method, path)
		}
	}
}

// A client that leaves frees what waits for it, and is counted as 499.
func TestAClientThatLeaves(t *testing.T) {
	statuses := make(chan int, 10)
	r := newRig(t, func(c *Config) { c.Observe = func(_ Endpoint, status int, _ time.Duration) { statuses <- status } })
	r.mu.Lock()
	r.block["Transact"] = make(chan string)
	r.block["WaitFor"] = make(chan string)
	r.mu.Unlock()
	post := "POST /chat-sessions HTTP/1.1\r\n" + alice + "Content-Length: 2\r\n\r\n{}"
	if got := r.halfClosed(post); !strings.HasPrefix(got, "HTTP/1.1 503 ") || !strings.Contains(got, "the client closed the connection") || !strings.Contains(got, `"mayHaveBeenWritten":false`) {
		t.Errorf("%q", got)
	}
	if got := <-statuses; got != statusClientGone {
		t.Errorf("observed as %d", got)
	}
	r.mu.Lock()
	delete(r.block, "Transact")
	r.mu.Unlock()
	// The write is done, and only its response waits.
	if got := r.halfClosed(post); !strings.HasPrefix(got, "HTTP/1.1 503 ") || !strings.Contains(got, `"mayHaveBeenWritten":true`) {
		t.Errorf("%q", got)
	}
	if got := r.server.Stats().Gone; got != 2 {
		t.Errorf("%d gone", got)
	}
	if logs := r.logs.String(); strings.Contains(logs, "level=ERROR") || strings.Count(logs, "level=DEBUG msg=\"request failed\"") != 2 {
		t.Error(logs)
	}
}

func TestADocumentIsTheSameForEverybody(t *testing.T) {
	r := newRig(t)
	got := r.must(200, "GET", "/described", "", "Authorization", "-")
	tag := got.Header.Get("Etag")
	if got.body != "a description" || got.Header.Get("Content-Type") != "text/plain" || got.Header.Get("Cache-Control") != "public, max-age=3600" || len(tag) != 34 {
		t.Errorf("%s %v", got.body, got.Header)
	}
	for value, status := range map[string]int{tag: 304, "W/" + tag: 304, "*": 304, `"x"`: 200, "x": 400, "": 200} {
		if got := r.must(status, "GET", "/described", "", "If-None-Match", value); status == 304 && (got.body != "" || got.Header.Get("Etag") != tag) {
			t.Errorf("%s: %q", value, got.body)
		}
	}
	r.must(405, "POST", "/described", "{}")
}

func TestAShutdownAnswersWhatIsInFlight(t *testing.T) {
	r := newRig(t)
	gate := make(chan string)
	r.mu.Lock()
	r.block["Transact"] = gate
	r.mu.Unlock()
	r.must(200, "GET", "/chat-sessions", "") // its connection stays, at rest
	answered := make(chan response, 1)
	other := &http.Client{Transport: &http.Transport{}}
	r.client = other
	go func() { answered <- r.do("POST", "/chat-sessions", `{}`) }()
	eventually(t, "a command is in flight", func() bool { return r.server.Stats().Commands == 1 })
	done := make(chan error, 1)
	go func() { done <- r.server.Shutdown(t.Context()) }()
	select {
	case err := <-done:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	<-gate
	if got := <-answered; got.StatusCode != 200 || !got.Close {
		t.Errorf("%d %v", got.StatusCode, got.Header)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
