package contract

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"chatsessions/cmd/systemtest/rig"
)

// exchange sends bytes over a connection of its own, ends the sending side, and
// returns all answers until the service closes the connection. methods are those
// of the requests, GET where they are not given: only they tell whether an answer
// has a body.
func exchange(s *rig.Service, sent string, methods ...string) ([]rig.Answer, error) {
	u, err := url.Parse(s.URL)
	if err != nil {
		return nil, err
	}
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil { // a hanging service fails the test
		return nil, err
	}
	if _, err := io.WriteString(conn, sent); err != nil && !closedByPeer(err) {
		return nil, err
	}
	_ = conn.(*net.TCPConn).CloseWrite() // fails where the service closed already
	return readAnswers(bufio.NewReader(conn), methods)
}

func closedByPeer(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// readAnswers reads answers until the connection ends; 100 Continue is none.
func readAnswers(r *bufio.Reader, methods []string) ([]rig.Answer, error) {
	var answers []rig.Answer
	for {
		if _, err := r.Peek(1); errors.Is(err, io.EOF) || closedByPeer(err) && len(answers) > 0 {
			return answers, nil
		} else if err != nil {
			return answers, err
		}
		request := &http.Request{Method: "GET"}
		if len(answers) < len(methods) {
			request.Method = methods[len(answers)]
		}
		response, err := http.ReadResponse(r, request)
		if err != nil {
			return answers, err
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil {
			return answers, err
		}
		if response.StatusCode >= 200 {
			header := response.Header
			if response.Close {
				header.Set("Connection", "close") // ReadResponse takes it out
			}
			answers = append(answers, rig.Answer{Status: response.StatusCode, Header: header, Body: body})
			if response.Close && request.Method == "HEAD" {
				// A head that could not be read may be answered with a body.
				return answers, nil
			}
		}
	}
}

// mustExchange is exchange, where it is an error to get no answer at all.
func mustExchange(s *rig.Service, t *testing.T, sent string, methods ...string) []rig.Answer {
	t.Helper()
	answers, err := exchange(s, sent, methods...)
	if err != nil || len(answers) == 0 {
		t.Fatalf("sent %.500q\ncame %d answers %v, and: %v", sent, len(answers), answers, err)
	}
	return answers
}

// raw writes a request as it goes over the wire.
func raw(method, target, body string, headers ...string) string {
	lines := []string{method + " " + target + " HTTP/1.1", "Host: service", "Authorization: Bearer dev-account-alice"}
	if body != "" {
		lines = append(lines, "Content-Type: application/json", fmt.Sprintf("Content-Length: %d", len(body)))
	}
	lines = append(lines, headers...)
	return strings.Join(lines, "\r\n") + "\r\n\r\n" + body
}

// TestAConnectionStaysUsableAfterAnError: a request behind one that fails is
// answered as if it had come alone, and the body of the first is not taken for a
// request.
func TestAConnectionStaysUsableAfterAnError(t *testing.T) {
	s := rig.Start(t, "--dev")
	path := s.As("account-alice").Create(`{"room":"behind"}`)
	smuggled := s.As("account-alice").Create(`{"room":"smuggled"}`)
	hidden := raw("GET", smuggled, "")
	chunked := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(hidden), hidden)
	large := strings.Repeat(hidden, 1+(70_000/len(hidden)))
	for _, tt := range []struct {
		name   string
		first  string
		method string
		status int
		closes bool // the rest of the first request is not read, so the connection has to end
	}{
		{"200", raw("GET", path, ""), "GET", 200, false},
		{"HEAD", raw("HEAD", path, ""), "HEAD", 200, false},
		{"HEAD of an error", raw("HEAD", rig.NoSession, ""), "HEAD", 404, false},
		{"304", raw("GET", path, "", "If-None-Match: *"), "GET", 304, false},
		{"400", raw("POST", "/chat-sessions", hidden), "POST", 400, false},
		{"400 of the query", raw("GET", "/chat-sessions?$foo", ""), "GET", 400, false},
		{"401 with a body", strings.Replace(raw("POST", "/chat-sessions", hidden), "dev-account", "x", 1), "POST", 401, false},
		{"401 with a chunked body", strings.Replace(raw("POST", "/chat-sessions", "", "Transfer-Encoding: chunked"), "dev-account", "x", 1) + chunked, "POST", 401, false},
		{"403", strings.Replace(raw("POST", "/chat-sessions", hidden), "dev-account", "dev-auditor", 1), "POST", 403, false},
		{"404", raw("PATCH", rig.NoSession, `{}`), "PATCH", 404, false},
		{"404 of nothing with a body", raw("POST", "/nothing", hidden), "POST", 404, false},
		{"405 with a body", raw("PUT", path, hidden), "PUT", 405, false},
		{"405 with a chunked body", raw("DELETE", path, "", "Transfer-Encoding: chunked") + chunked, "DELETE", 405, false},
		{"405 of an unknown method with a body", raw("BREW", path, hidden), "BREW", 405, false},
		{"405 of an unknown method with a chunked body", raw("BREW", path, "", "Transfer-Encoding: chunked") + chunked, "BREW", 405, false},
		{"405 of an unknown method with a large body", raw("BREW", path, large), "BREW", 405, true},
		{"409", raw("PATCH", path, `{"finish":true}`), "PATCH", 409, false},
		{"412", raw("PATCH", path, `{"room":"x"}`, `If-Match: "99"`), "PATCH", 412, false},
		{"413", raw("POST", "/chat-sessions", large), "POST", 413, true},
		{"413 chunked", raw("POST", "/chat-sessions", "", "Content-Type: application/json", "Transfer-Encoding: chunked") +
			fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(large), large), "POST", 413, true},
		{"401 with a large body", strings.Replace(raw("POST", "/chat-sessions", large), "dev-account", "x", 1), "POST", 401, true},
		{"415", raw("POST", "/chat-sessions", "", "Content-Type: text/plain", fmt.Sprintf("Content-Length: %d", len(hidden))) + hidden, "POST", 415, false},
		{"415 of a coding", raw("POST", "/chat-sessions", hidden, "Content-Encoding: gzip"), "POST", 415, false},
		{"422", raw("PATCH", path, `{"room":5}`), "PATCH", 422, false},
		{"a GET with a body", raw("GET", path, hidden), "GET", 200, false},
		{"a GET with a chunked body", raw("GET", path, "", "Transfer-Encoding: chunked") + chunked, "GET", 200, false},
		{"a GET with a large body", raw("GET", path, large), "GET", 200, true},
		{"a HEAD with a body", raw("HEAD", path, hidden), "HEAD", 200, false},
		{"414", raw("GET", "/"+strings.Repeat("x", 9000), ""), "GET", 414, false},
		{"414 with a body", raw("POST", "/"+strings.Repeat("x", 9000), hidden), "POST", 414, false},
		{"431", raw("GET", path, "", "X-Large: "+strings.Repeat("x", 9000)), "GET", 431, false},
		{"431 with a chunked body", raw("POST", "/chat-sessions", "", "Transfer-Encoding: chunked", "X-Large: "+strings.Repeat("x", 9000)) + chunked, "POST", 431, false},
		{"an empty line before the request", "\r\n" + raw("GET", path, ""), "GET", 200, false},
		{"Content-Length and Transfer-Encoding", raw("POST", "/chat-sessions", "", "Content-Type: application/json", "Content-Length: 7", "Transfer-Encoding: chunked") + "2\r\n{}\r\n0\r\n\r\n", "POST", 400, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sent := tt.first + raw("GET", path, "")
			answers := mustExchange(s, t, sent, tt.method)
			first := answers[0]
			if first.Status != tt.status {
				t.Fatalf("sent %.500q\ncame %d %s, want %d", sent, first.Status, first.Body, tt.status)
			}
			if first.Status >= 400 && tt.method != "HEAD" {
				problemIn(t, first, tt.name)
			}
			if closed := first.Header.Get("Connection") == "close"; closed {
				if len(answers) != 1 {
					t.Errorf("%d answers on a connection that is said to be closed: %v", len(answers), answers)
				}
				if !tt.closes {
					t.Errorf("the connection ends after %d %s", first.Status, first.Body)
				}
				return
			}
			if len(answers) != 2 || answers[1].Status != 200 {
				t.Fatalf("sent %.500q\ncame %v, want a second answer of 200", sent, answers)
			}
			has(t, answers[1].Object(t), members{"id": idOf(path), "room": "behind"})
		})
	}
}

// TestARequestThatIsNotHTTPIsRefusedAsAProblem, without an echo of what it sent:
// its headers may hold a token.
func TestARequestThatIsNotHTTPIsRefusedAsAProblem(t *testing.T) {
	s := rig.Start(t, "--dev")
	const secret = "dev-account-alice"
	list := raw("GET", "/chat-sessions", "")
	post := raw("POST", "/chat-sessions", "{}")
	with := func(line string) string {
		return strings.Replace(list, "Host: service\r\n", "Host: service\r\n"+line+"\r\n", 1)
	}
	body := func(line, body string) string {
		return raw("POST", "/chat-sessions", "", "Content-Type: application/json", line) + body
	}
	for name, sent := range map[string]string{
		"nonsense":                         "nonsense " + secret + "\r\n\r\n",
		"no version":                       "GET /chat-sessions\r\nAuthorization: Bearer " + secret + "\r\n\r\n",
		"no target":                        strings.Replace(list, "/chat-sessions", "", 1),
		"a space in the target":            strings.Replace(list, "/chat-sessions", "/chat sessions", 1),
		"another protocol":                 strings.Replace(list, "HTTP/1.1", "ICY/1.1", 1),
		"no host":                          strings.Replace(list, "Host: service\r\n", "", 1),
		"two hosts":                        with("Host: other"),
		"a header without a colon":         with("nonsense"),
		"a space before the colon":         with("X-Header : x"),
		"an empty header name":             with(": x"),
		"a NUL in a header":                with("X-Header: a\x00b"),
		"a bare CR in a header":            with("X-Header: a\rb"),
		"a NUL in a header's name":         with("X\x00: a"),
		"the head ends early":              strings.TrimSuffix(list, "\r\n"),
		"two lengths":                      body("Content-Length: 2\r\nContent-Length: 3", "{}x"),
		"a negative length":                body("Content-Length: -2", "{}"),
		"a length with a sign":             body("Content-Length: +2", "{}"),
		"a length that is no number":       body("Content-Length: two", "{}"),
		"a length beyond all numbers":      body("Content-Length: 99999999999999999999999", "{}"),
		"a list of lengths":                body("Content-Length: 2, 2", "{}"),
		"an unknown transfer coding":       body("Transfer-Encoding: gzip", "{}"),
		"two transfer codings":             body("Transfer-Encoding: gzip, chunked", "2\r\n{}\r\n0\r\n\r\n"),
		"chunked twice":                    body("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "2\r\n{}\r\n0\r\n\r\n"),
		"a chunk size that is no number":   body("Transfer-Encoding: chunked", "zz\r\n{}\r\n0\r\n\r\n"),
		"a negative chunk size":            body("Transfer-Encoding: chunked", "-2\r\n{}\r\n0\r\n\r\n"),
		"a chunk longer than its size":     body("Transfer-Encoding: chunked", "2\r\n{}xx\r\n0\r\n\r\n"),
		"a chunk size beyond all numbers":  body("Transfer-Encoding: chunked", "fffffffffffffffffff\r\n{}\r\n0\r\n\r\n"),
		"the body ends early":              strings.TrimSuffix(post, "}"),
		"the body does not come":           strings.TrimSuffix(post, "{}"),
		"the chunks end early":             body("Transfer-Encoding: chunked", "5\r\n{}"),
		"a long body ends early":           body("Content-Length: 60000", "{"+strings.Repeat(" ", 30000)),
		"a too long body ends early":       body("Content-Length: 700000", "{"+strings.Repeat(" ", 30000)),
		"a too long body that never comes": body("Content-Length: 9000000000000000000", ""),
		"TLS":                              "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("\x00", 200) + "\r\n\r\n",
		"HTTP/2":                           "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			answers := mustExchange(s, t, sent, "POST")
			first := answers[0]
			if first.Status < 400 || first.Status >= 500 {
				t.Fatalf("sent %.500q\ncame %d %s, want a 4xx", sent, first.Status, first.Body)
			}
			problemIn(t, first, name)
			if strings.Contains(string(first.Body), secret) || len(first.Body) > 2000 {
				t.Errorf("sent %.500q\nis echoed: %.2000s", sent, first.Body)
			}
			if len(answers) != 1 {
				t.Errorf("sent %.500q\ncame more than one answer: %v", sent, answers)
			}
		})
	}
	same(t, "sessions", s.As("account-alice").List(""), nil)
}
