package contract

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"chatsessions/cmd/systemtest/rig"
)

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
