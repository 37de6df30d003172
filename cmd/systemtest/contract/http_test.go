package main

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// TestAHeadIsAGetWithoutItsBody (RFC 9110, section 9.3.2).
func TestAHeadIsAGetWithoutItsBody(t *testing.T) {
	s := startService(t, "--dev")
	alice := s.as("account-alice")
	path := alice.create(`{"room":"r"}`)
	alice.create(`{}`)
	for _, target := range []string{path, path + "?$select[]=room", "/chat-sessions", "/chat-sessions?$limit=1", nobody, "/chat-sessions?$foo=1", "/nothing"} {
		get, err := alice.do("GET", target, "", "Prefer: count=exact")
		if err != nil {
			t.Fatal(err)
		}
		head := alice.expect(get.status, "HEAD", target, "", "Prefer: count=exact")
		if len(head.body) != 0 {
			t.Errorf("HEAD %s has a body: %s", target, head.body)
		}
		for _, name := range []string{"Content-Type", "Content-Length", "ETag", "Link", "X-Total-Count", "Cache-Control"} {
			if got, want := head.header.Get(name), get.header.Get(name); got != want {
				t.Errorf("HEAD %s: %s is %q, for GET it is %q", target, name, got, want)
			}
		}
	}
}

// TestAMethodThatAResourceDoesNotHaveIsRefused with those that it has, whoever asks.
func TestAMethodThatAResourceDoesNotHaveIsRefused(t *testing.T) {
	s := startService(t, "--dev")
	path := s.as("account-alice").create("{}")
	const ofAll, ofOne = "GET, HEAD, POST", "GET, HEAD, PATCH"
	for _, tt := range []struct {
		target, allow string
		methods       []string
	}{
		{"/chat-sessions", ofAll, []string{"PUT", "PATCH", "DELETE", "TRACE", "OPTIONS", "BREW", "get", "PROPFIND", "QUERY"}},
		{"/chat-sessions?$limit=1", ofAll, []string{"PUT", "BREW"}},
		{path, ofOne, []string{"PUT", "POST", "DELETE", "TRACE", "OPTIONS", "BREW", "patch", "LINK"}},
		{nobody, ofOne, []string{"PUT", "DELETE", "BREW"}},
	} {
		for _, method := range tt.methods {
			for _, token := range []string{"dev-account-alice", "dev-auditor-eve", "nonsense"} {
				for _, body := range []string{"", "{}", "nonsense"} {
					c := &client{t, s.url, token}
					a := c.expect(405, method, tt.target, body)
					a.problem(t, method+" "+tt.target)
					if got := a.header.Get("Allow"); got != tt.allow {
						t.Errorf("%s %s: Allow is %q, want %q", method, tt.target, got, tt.allow)
					}
				}
			}
		}
	}
	for _, target := range []string{"/", "/nothing", "/chat-sessions/x/y", "/Chat-Sessions", "/chat-sessionsx", "/favicon.ico"} {
		for _, method := range []string{"GET", "POST", "DELETE", "BREW", "OPTIONS"} {
			p := s.as("account-alice").refused(404, method, target, "")
			for _, resource := range []string{"/chat-sessions/<id>/events", "and /chat-sessions/events"} {
				if !strings.Contains(fmt.Sprint(p["detail"]), resource) {
					t.Errorf("%s %s: %v does not name %s", method, target, p["detail"], resource)
				}
			}
		}
	}
}

// TestABodyMayHave64KiB, not one byte more, however it is sent.
func TestABodyMayHave64KiB(t *testing.T) {
	s := startService(t, "--dev")
	alice, stranger := s.as("account-alice"), &client{t, s.url, "nonsense"}
	path := alice.create("{}")
	body := func(size int) string { return `{"title":"` + strings.Repeat("x", size-len(`{"title":""}`)) + `"}` }
	chunked := func(token, body string) string {
		half := len(body) / 2
		return strings.Replace(raw("POST", "/chat-sessions", "", "Content-Type: application/json", "Transfer-Encoding: chunked"), "dev-account-alice", token, 1) +
			fmt.Sprintf("%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n", half, body[:half], len(body)-half, body[half:])
	}
	for size, status := range map[int]int{1000: 200, 65_535: 200, 65_536: 200, 65_537: 413, 100_000: 413, 1_000_000: 413, 10_000_000: 413} {
		for _, request := range []struct{ method, path string }{{"POST", "/chat-sessions"}, {"PATCH", path}} {
			if a := alice.expect(status, request.method, request.path, body(size)); status == 413 {
				a.problem(t, fmt.Sprintf("%s with %d bytes", request.method, size))
			}
			stranger.refused(401, request.method, request.path, body(size))
		}
		for token, status := range map[string]int{"dev-account-alice": status, "nonsense": 401, "dev-auditor-eve": 403} {
			a := s.mustExchange(t, chunked(token, body(size)), "POST")[0]
			if a.status != status {
				t.Errorf("%d bytes in chunks, token %s: %d %.300s, want %d", size, token, a.status, a.body, status)
			}
			if a.status != 200 {
				a.problem(t, "chunks")
			}
		}
	}
}

// TestABodyIsJSONInUTF8, and not compressed.
func TestABodyIsJSONInUTF8(t *testing.T) {
	s := startService(t, "--dev")
	alice := s.as("account-alice")
	path := alice.create("{}")
	for _, contentType := range []string{
		"application/json", "application/json;charset=utf-8", "application/json; charset=UTF-8", `application/json; charset="utf-8"`, "Application/JSON", "application/json; x=y",
	} {
		alice.expect(200, "POST", "/chat-sessions", "{}", "Content-Type: "+contentType)
		alice.expect(200, "PATCH", path, "{}", "Content-Type: "+contentType)
	}
	alice.expect(200, "PATCH", path, "{}", "Content-Type: application/merge-patch+json")
	for _, contentType := range []string{
		"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml", "application/jsonx", "json", "*/*", "text/json",
		"application/json; charset=iso-8859-1", "application/json; charset=utf-16", "application/json, text/plain", "application/json-patch+json", ";", "/",
	} {
		alice.refused(415, "POST", "/chat-sessions", "{}", "Content-Type: "+contentType)
		alice.refused(415, "PATCH", path, "{}", "Content-Type: "+contentType)
	}
	for _, coding := range []string{"gzip", "deflate", "br", "zstd", "x"} {
		a := alice.expect(415, "POST", "/chat-sessions", "{}", "Content-Encoding: "+coding)
		a.problem(t, "Content-Encoding: "+coding)
	}
	alice.expect(200, "POST", "/chat-sessions", "{}", "Content-Encoding: identity")
	if a := alice.expect(415, "PATCH", path, "{}", "Content-Type: text/plain"); !strings.Contains(a.header.Get("Accept-Patch"), "application/json") {
		t.Errorf("Accept-Patch is %q (RFC 5789, section 2.2)", a.header.Get("Accept-Patch"))
	}
}

// TestTheLimitsOfAHead: what is as large as promised is served, what is larger is
// told so.
func TestTheLimitsOfAHead(t *testing.T) {
	s := startService(t, "--dev")
	const kib = 1 << 10
	uri := func(size int) string { return "/chat-sessions?" + strings.Repeat("&", size-len("/chat-sessions?")) }
	header := func(size int) string { return "X-Large: " + strings.Repeat("x", size-len("X-Large: ")) }
	head := func(size int) string {
		small := raw("GET", uri(6000), "", header(7000), header(9))
		return raw("GET", uri(6000), "", header(7000), header(9+size-len(small)))
	}
	for _, tt := range []struct {
		name, sent string
		statuses   []int
	}{
		{"a URI of 8 KiB", raw("GET", uri(8*kib), ""), []int{200}},
		{"a URI of one byte more", raw("GET", uri(8*kib+1), ""), []int{414}},
		{"a URI of 12 KiB", raw("GET", uri(12*kib), ""), []int{414}},
		{"a URI of 20 KiB", raw("GET", uri(20*kib), ""), []int{414, 431}},
		{"a URI of 1 MiB", raw("GET", uri(1024*kib), ""), []int{414, 431}},
		{"a path of 9 KiB", raw("GET", "/chat-sessions/"+strings.Repeat("x", 9*kib), ""), []int{414}},
		{"a header of 8 KiB", raw("GET", "/chat-sessions", "", header(8*kib)), []int{200}},
		{"a header of 9 KiB", raw("GET", "/chat-sessions", "", header(9*kib)), []int{431}},
		{"a header of 20 KiB", raw("GET", "/chat-sessions", "", header(20*kib)), []int{431}},
		{"a header of 1 MiB", raw("GET", "/chat-sessions", "", header(1024*kib)), []int{431}},
		{"a head of 16 KiB", head(16 * kib), []int{200}},
		{"a head of 16 KiB and a little", head(16*kib + 100), []int{431}},
		{"a head of 17 KiB", head(17 * kib), []int{431}},
		{"a head of 30 KiB", raw("GET", uri(8*kib), "", header(8*kib), header(8*kib), header(6*kib)), []int{431}},
		{"a thousand headers", raw("GET", "/chat-sessions", "", strings.Split(strings.Repeat("X: y\r\n", 1000)+"X: y", "\r\n")...), []int{200}},
		{"ten thousand headers", raw("GET", "/chat-sessions", "", strings.Split(strings.Repeat("X: y\r\n", 10000)+"X: y", "\r\n")...), []int{431}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := s.mustExchange(t, tt.sent)[0]
			fits := false
			for _, status := range tt.statuses {
				fits = fits || a.status == status
			}
			if !fits {
				t.Errorf("sent %d bytes, %.80q…\ncame %d %.500s, want %v", len(tt.sent), tt.sent, a.status, a.body, tt.statuses)
			}
			if a.status != 200 {
				a.problem(t, tt.name)
			}
		})
	}
}

// TestABodyIsAskedForWhereItIsExpected (RFC 9110, section 10.1.1): a client that
// waits for 100 Continue is answered, with it or with the final status.
func TestABodyIsAskedForWhereItIsExpected(t *testing.T) {
	s := startService(t, "--dev")
	for _, tt := range []struct {
		token, body string
		status      int
	}{{"dev-account-alice", `{"room":"r"}`, 200}, {"nonsense", `{}`, 401}, {"dev-account-alice", `{"room":5}`, 422}} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		sent := strings.TrimSuffix(raw("POST", "/chat-sessions", tt.body, "Expect: 100-continue"), tt.body)
		sent = strings.Replace(sent, "dev-account-alice", tt.token, 1)
		if _, err := io.WriteString(conn, sent); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(conn)
		line, err := r.Peek(len("HTTP/1.1 100"))
		if err != nil {
			t.Fatalf("sent %q\ncame %q and %v", sent, line, err)
		}
		if string(line) == "HTTP/1.1 100" {
			if _, err := io.WriteString(conn, tt.body); err != nil {
				t.Fatal(err)
			}
		}
		_ = conn.(*net.TCPConn).CloseWrite()
		answers, err := readAnswers(r, []string{"POST"})
		if err != nil || len(answers) != 1 || answers[0].status != tt.status {
			t.Errorf("sent %q\ncame %v %v, want %d", sent, answers, err, tt.status)
		}
	}
}

// TestATargetIsReadAsHTTPSays: absolute, escaped, with what clients do to it.
func TestATargetIsReadAsHTTPSays(t *testing.T) {
	s := startService(t, "--dev")
	path := s.as("account-alice").create(`{"room":"#10"}`)
	for target, status := range map[string]int{
		"http://service" + path: 200, "http://other:99/chat-sessions": 200, "/chat-sessions?": 200, path + "?": 200,
		"/chat-sessions?$limit=#10":      200, // a number tagged by its type, as existing clients send it
		"/chat-sessions/" + idOf(path):   200,
		"/chat-sessions/%30" + path[16:]: 200, // ids begin with 0 for some centuries to come
		strings.ToUpper(path):            404, "/chat-sessions/" + strings.ToUpper(idOf(path)): 404,
		path + "%00": 404, path + "%20": 404, path + "%2F": 404, "/chat-sessions/%zz": 404, "/chat-sessions/%": 404, "/chat-sessions/\xff": 404,
		"/chat-sessions/{" + idOf(path) + "}": 404, "/chat-sessions/urn:uuid:" + idOf(path): 404, "/chat-sessions/" + strings.ReplaceAll(idOf(path), "-", ""): 404,
		"//chat-sessions": 404, "/./chat-sessions": 404, "/x/../chat-sessions": 404, "/chat-sessions/..%2f": 404, "*": 404,
		"/chat-sessions?%zz": 400, "/chat-sessions?x=%": 400, "/chat-sessions?\xff": 400, path + "?$foo": 400, path + "?room=x": 400,
	} {
		for _, method := range []string{"GET", "HEAD"} {
			a := s.mustExchange(t, raw(method, target, ""), method)[0]
			if a.status != status {
				t.Errorf("%s %q: %d %.300s, want %d", method, target, a.status, a.body, status)
			}
		}
	}
	same(t, "a tagged limit", s.as("account-alice").list("?room=%2310")[:1], s.as("account-alice").list("?$limit=%231"))
}

// TestAMadeUpCursorIsRefused, whatever is in it.
func TestAMadeUpCursorIsRefused(t *testing.T) {
	s := startService(t, "--dev")
	alice := s.as("account-alice")
	place := strings.Repeat("\x00", 24)
	for _, content := range []string{
		"", "q", "d", "x" + place, "d" + place, "d" + place + "no such digest", "d" + place + strings.Repeat("f", 64), "d" + place + "\x00\r\n*:{}[]?\xff",
		"q\xff\xff\xff\xff\xff\xff\xff\xff" + place, "q" + place + "$cursor=x", "q" + place + "$foo=1", "q" + place + "%zz", "q" + place + "$limit=x",
	} {
		alice.refused(400, "GET", "/chat-sessions?$cursor="+base64.RawURLEncoding.EncodeToString([]byte(content)), "")
	}
}
