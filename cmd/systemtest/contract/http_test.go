package contract

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"chatsessions/cmd/systemtest/rig"
)

// TestAHeadIsAGetWithoutItsBody (RFC 9110, section 9.3.2).
func TestAHeadIsAGetWithoutItsBody(t *testing.T) {
	s := rig.Start(t, "--dev")
	alice := s.As("account-alice")
	path := alice.Create(`{"room":"r"}`)
	alice.Create(`{}`)
	for _, target := range []string{path, path + "?$select[]=room", "/chat-sessions", "/chat-sessions?$limit=1", rig.NoSession, "/chat-sessions?$foo=1", "/nothing"} {
		get, err := alice.Do("GET", target, "", "Prefer: count=exact")
		if err != nil {
			t.Fatal(err)
		}
		head := alice.Expect(get.Status, "HEAD", target, "", "Prefer: count=exact")
		if len(head.Body) != 0 {
			t.Errorf("HEAD %s has a body: %s", target, head.Body)
		}
		for _, name := range []string{"Content-Type", "Content-Length", "ETag", "Link", "X-Total-Count", "Cache-Control"} {
			if got, want := head.Header.Get(name), get.Header.Get(name); got != want {
				t.Errorf("HEAD %s: %s is %q, for GET it is %q", target, name, got, want)
			}
		}
	}
}

// TestAMethodThatAResourceDoesNotHaveIsRefused with those that it has, whoever asks.
func TestAMethodThatAResourceDoesNotHaveIsRefused(t *testing.T) {
	s := rig.Start(t, "--dev")
	path := s.As("account-alice").Create("{}")
	const ofAll, ofOne = "GET, HEAD, POST", "GET, HEAD, PATCH"
	for _, tt := range []struct {
		target, allow string
		methods       []string
	}{
		{"/chat-sessions", ofAll, []string{"PUT", "PATCH", "DELETE", "TRACE", "OPTIONS", "BREW", "get", "PROPFIND", "QUERY"}},
		{"/chat-sessions?$limit=1", ofAll, []string{"PUT", "BREW"}},
		{path, ofOne, []string{"PUT", "POST", "DELETE", "TRACE", "OPTIONS", "BREW", "patch", "LINK"}},
		{rig.NoSession, ofOne, []string{"PUT", "DELETE", "BREW"}},
	} {
		for _, method := range tt.methods {
			for _, token := range []string{"dev-account-alice", "dev-auditor-eve", "nonsense"} {
				for _, body := range []string{"", "{}", "nonsense"} {
					c := &rig.Client{T: t, URL: s.URL, Token: token}
					a := c.Expect(405, method, tt.target, body)
					a.Problem(t, method+" "+tt.target)
					if got := a.Header.Get("Allow"); got != tt.allow {
						t.Errorf("%s %s: Allow is %q, want %q", method, tt.target, got, tt.allow)
					}
				}
			}
		}
	}
	for _, target := range []string{"/", "/nothing", "/chat-sessions/x/y", "/Chat-Sessions", "/chat-sessionsx", "/favicon.ico"} {
		for _, method := range []string{"GET", "POST", "DELETE", "BREW", "OPTIONS"} {
			p := s.As("account-alice").Refused(404, method, target, "")
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
	s := rig.Start(t, "--dev")
	alice, stranger := s.As("account-alice"), &rig.Client{T: t, URL: s.URL, Token: "nonsense"}
	path := alice.Create("{}")
	body := func(size int) string { return `{"title":"` + strings.Repeat("x", size-len(`{"title":""}`)) + `"}` }
	chunked := func(token, body string) string {
		half := len(body) / 2
		return strings.Replace(raw("POST", "/chat-sessions", "", "Content-Type: application/json", "Transfer-Encoding: chunked"), "dev-account-alice", token, 1) +
			fmt.Sprintf("%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n", half, body[:half], len(body)-half, body[half:])
	}
	for size, status := range map[int]int{1000: 200, 65_535: 200, 65_536: 200, 65_537: 413, 100_000: 413, 1_000_000: 413, 10_000_000: 413} {
		for _, request := range []struct{ method, path string }{{"POST", "/chat-sessions"}, {"PATCH", path}} {
			if a := alice.Expect(status, request.method, request.path, body(size)); status == 413 {
				a.Problem(t, fmt.Sprintf("%s with %d bytes", request.method, size))
			}
			stranger.Refused(401, request.method, request.path, body(size))
		}
		for token, status := range map[string]int{"dev-account-alice": status, "nonsense": 401, "dev-auditor-eve": 403} {
			a := mustExchange(s, t, chunked(token, body(size)), "POST")[0]
			if a.Status != status {
				t.Errorf("%d bytes in chunks, token %s: %d %.300s, want %d", size, token, a.Status, a.Body, status)
			}
			if a.Status != 200 {
				a.Problem(t, "chunks")
			}
		}
	}
}

// TestABodyIsJSONInUTF8, and not compressed.
func TestABodyIsJSONInUTF8(t *testing.T) {
	s := rig.Start(t, "--dev")
	alice := s.As("account-alice")
	path := alice.Create("{}")
	for _, contentType := range []string{
		"application/json", "application/json;charset=utf-8", "application/json; charset=UTF-8", `application/json; charset="utf-8"`, "Application/JSON", "application/json; x=y",
	} {
		alice.Expect(200, "POST", "/chat-sessions", "{}", "Content-Type: "+contentType)
		alice.Expect(200, "PATCH", path, "{}", "Content-Type: "+contentType)
	}
	alice.Expect(200, "PATCH", path, "{}", "Content-Type: application/merge-patch+json")
	for _, contentType := range []string{
		"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml", "application/jsonx", "json", "*/*", "text/json",
		"application/json; charset=iso-8859-1", "application/json; charset=utf-16", "application/json, text/plain", "application/json-patch+json", ";", "/",
	} {
		alice.Refused(415, "POST", "/chat-sessions", "{}", "Content-Type: "+contentType)
		alice.Refused(415, "PATCH", path, "{}", "Content-Type: "+contentType)
	}
	for _, coding := range []string{"gzip", "deflate", "br", "zstd", "x"} {
		a := alice.Expect(415, "POST", "/chat-sessions", "{}", "Content-Encoding: "+coding)
		a.Problem(t, "Content-Encoding: "+coding)
	}
	alice.Expect(200, "POST", "/chat-sessions", "{}", "Content-Encoding: identity")
	if a := alice.Expect(415, "PATCH", path, "{}", "Content-Type: text/plain"); !strings.Contains(a.Header.Get("Accept-Patch"), "application/json") {
		t.Errorf("Accept-Patch is %q (RFC 5789, section 2.2)", a.Header.Get("Accept-Patch"))
	}
}

// TestTheLimitsOfAHead: what is as large as promised is served, what is larger is
// told so.
func TestTheLimitsOfAHead(t *testing.T) {
	s := rig.Start(t, "--dev")
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
			a := mustExchange(s, t, tt.sent)[0]
			fits := false
			for _, status := range tt.statuses {
				fits = fits || a.Status == status
			}
			if !fits {
				t.Errorf("sent %d bytes, %.80q…\ncame %d %.500s, want %v", len(tt.sent), tt.sent, a.Status, a.Body, tt.statuses)
			}
			if a.Status != 200 {
				a.Problem(t, tt.name)
			}
		})
	}
}

// TestABodyIsAskedForWhereItIsExpected (RFC 9110, section 10.1.1): a client that
// waits for 100 Continue is answered, with it or with the final status.
func TestABodyIsAskedForWhereItIsExpected(t *testing.T) {
	s := rig.Start(t, "--dev")
	for _, tt := range []struct {
		token, body string
		status      int
	}{{"dev-account-alice", `{"room":"r"}`, 200}, {"nonsense", `{}`, 401}, {"dev-account-alice", `{"room":5}`, 422}} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
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
		if err != nil || len(answers) != 1 || answers[0].Status != tt.status {
			t.Errorf("sent %q\ncame %v %v, want %d", sent, answers, err, tt.status)
		}
	}
}

// TestATargetIsReadAsHTTPSays: absolute, escaped, with what clients do to it.
func TestATargetIsReadAsHTTPSays(t *testing.T) {
	s := rig.Start(t, "--dev")
	path := s.As("account-alice").Create(`{"room":"#10"}`)
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
			a := mustExchange(s, t, raw(method, target, ""), method)[0]
			if a.Status != status {
				t.Errorf("%s %q: %d %.300s, want %d", method, target, a.Status, a.Body, status)
			}
		}
	}
	same(t, "a tagged limit", s.As("account-alice").List("?room=%2310")[:1], s.As("account-alice").List("?$limit=%231"))
}

// TestAMadeUpCursorIsRefused, whatever is in it.
func TestAMadeUpCursorIsRefused(t *testing.T) {
	s := rig.Start(t, "--dev")
	alice := s.As("account-alice")
	place := strings.Repeat("\x00", 24)
	for _, content := range []string{
		"", "q", "d", "x" + place, "d" + place, "d" + place + "no such digest", "d" + place + strings.Repeat("f", 64), "d" + place + "\x00\r\n*:{}[]?\xff",
		"q\xff\xff\xff\xff\xff\xff\xff\xff" + place, "q" + place + "$cursor=x", "q" + place + "$foo=1", "q" + place + "%zz", "q" + place + "$limit=x",
	} {
		alice.Refused(400, "GET", "/chat-sessions?$cursor="+base64.RawURLEncoding.EncodeToString([]byte(content)), "")
	}
}
