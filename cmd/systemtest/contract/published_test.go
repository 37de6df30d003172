package contract

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"chatsessions/cmd/systemtest/rig"
)

// The published document, as existing clients were given it.
const publishedDocument = "../../../http/testdata/api-docs-v5.116.0.txt"

// A publishedCall is one endpoint of the published document.
type publishedCall struct {
	title  string
	curl   string            // the command, as it stands there
	fields map[string]string // the documented members of a session, and their types
}

// TestPublishedCurlLinesAnswerAsDocumented runs the commands of the published
// document with curl, with nothing replaced but host, token and session id.
func TestPublishedCurlLinesAnswerAsDocumented(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Fatalf("the published commands are run with curl: %v", err)
	}
	calls := readPublished(t)
	if len(calls) != 4 {
		t.Fatalf("the document has %d curl commands, want 4: %v", len(calls), calls)
	}
	rig.OnAllSetups(t, func(t *testing.T, s *rig.Service) {
		history := []string{
			`{"type":"telemed","room":"r","participants":["me","bob"],"startedAt":1,"startedBy":"me","acceptedAt":2,"acceptedBy":"me","finishedAt":3,"finishedBy":"me"}`,
			`{"type":"telemed","room":"r","participants":["me"],"startedAt":1,"rejectedAt":2,"rejectReason":"busy","finishedAt":3}`,
		}
		me := s.As("account-me")
		for _, body := range history {
			path := me.Create(body)
			for _, call := range calls {
				t.Run(call.title, func(t *testing.T) { call.check(t, s, path) })
			}
		}
	})
}

// check runs the command and compares the answer with what is documented.
func (p publishedCall) check(t *testing.T, s *rig.Service, path string) {
	command := strings.NewReplacer(
		"https://yourdomain.com", s.URL,
		"<your-api-token>", "dev-account-me",
		"<chat-session-id>", idOf(path),
	).Replace(p.curl)
	var stderr bytes.Buffer
	run := exec.Command("sh", "-c", command+" --silent --show-error --include --max-time 30")
	run.Stderr = &stderr
	out, err := run.Output()
	if err != nil {
		t.Fatalf("%s\n%v %s", command, err, stderr.String())
	}
	response, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(out)), nil)
	if err != nil {
		t.Fatalf("%s\n%s\n%v", command, out, err)
	}
	body, _ := io.ReadAll(response.Body)
	response.Body.Close()
	if response.StatusCode != 200 || !strings.HasPrefix(response.Header.Get("Content-Type"), "application/json") {
		t.Fatalf("%s\n%s\nwant 200 and JSON", command, out)
	}
	a := rig.Answer{Status: response.StatusCode, Header: response.Header, Body: body}
	var sessions []map[string]any
	if strings.Contains(p.title, "Find") {
		sessions = a.List(t)
	} else {
		sessions = []map[string]any{a.Object(t)}
	}
	if len(sessions) == 0 {
		t.Fatalf("%s\n%s\nwant a session", command, out)
	}
	for _, session := range sessions {
		for _, name := range []string{"id", "createdAt", "createdBy"} { // those of the documented examples
			if session[name] == nil {
				t.Errorf("%s: %s is missing: %v", command, name, session)
			}
		}
		for name, value := range session {
			if want, documented := p.fields[name]; documented && jsonType(value) != want {
				t.Errorf("%s: %s is %v, want a %s: %v", command, name, value, want, session)
			}
		}
	}
	p.checkWhole(t, command, path, sessions)
}

// checkWhole looks for every documented member in the session that has them all.
func (p publishedCall) checkWhole(t *testing.T, command, path string, sessions []map[string]any) {
	if strings.Contains(p.title, "Post") {
		has(t, sessions[0], members{"participants": []string{"account-id1", "account-id2"}, "title": nil, "state": "created"})
		return
	}
	for _, session := range sessions {
		if session["id"] != idOf(path) {
			continue
		}
		for name := range p.fields {
			_, rejected := session["rejectedAt"]
			if strings.HasPrefix(name, "reject") != rejected && (strings.HasPrefix(name, "reject") || strings.HasPrefix(name, "accept")) {
				continue // a session is either accepted or rejected
			}
			if session[name] == nil {
				t.Errorf("%s: %s is missing: %v", command, name, session)
			}
		}
		return
	}
	t.Errorf("%s: %s is not among %v", command, path, sessions)
}

// jsonType names a decoded value's type in the words of the document.
func jsonType(value any) string {
	switch v := value.(type) {
	case string:
		return "string"
	case float64:
		return "number"
	case []any:
		for _, element := range v {
			if _, ok := element.(string); !ok {
				return "array"
			}
		}
		return "string[]"
	}
	return "something else"
}

// readPublished takes the commands, and the tables of what they answer, out of
// the published document.
func readPublished(t *testing.T) []publishedCall {
	t.Helper()
	text, err := os.ReadFile(publishedDocument)
	if err != nil {
		t.Fatal(err)
	}
	var calls []publishedCall
	title, inAnswer := "", false
	lines := strings.Split(string(text), "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		switch {
		case strings.HasPrefix(line, "Chat Session - "):
			title, inAnswer = line, false
		case strings.HasPrefix(line, "curl "):
			command := line
			for strings.HasSuffix(command, `\`) || strings.Count(command, "'")%2 == 1 {
				i++
				command += "\n" + lines[i]
			}
			calls = append(calls, publishedCall{title, command, map[string]string{}})
		case strings.HasPrefix(line, "Success response - "):
			inAnswer = true
		case strings.HasPrefix(line, "Success response example"):
			inAnswer = false
		case inAnswer && strings.Count(line, " | ") == 1:
			name, typ, _ := strings.Cut(line, " | ")
			name = strings.TrimPrefix(name, "chatSessions.")
			if typ = strings.TrimSuffix(typ, " |"); name != "chatSessions[]" {
				calls[len(calls)-1].fields[name] = typ
			}
		}
	}
	for _, call := range calls {
		if len(call.fields) != 14 {
			t.Fatalf("%s: %d documented fields were found, want 14: %v", call.title, len(call.fields), call.fields)
		}
	}
	return calls
}
