package contract

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"chatsessions/cmd/systemtest/rig"
)

// randomRequests is how many requests TestNoRequestIsAnsweredWithOurDefect makes
// up; the seed makes them the same ones every time.
const (
	randomRequests = 3000
	randomSeed     = 20260101
)

// patchable are the fields of a PATCH.
var patchable = []string{
	"accept", "acceptedAt", "acceptedBy", "createdAt", "finish", "finishReason", "finishedAt", "finishedBy", "participants", "reject",
	"rejectReason", "rejectedAt", "rejectedBy", "room", "start", "startedAt", "startedBy", "type",
}

// TestNoRequestIsAnsweredWithOurDefect sends valid requests that were changed at
// random. Whatever comes of it, it is an answer, and none with a status of 500.
func TestNoRequestIsAnsweredWithOurDefect(t *testing.T) {
	s := rig.Start(t, "--dev")
	r := randomRequest{Rand: rand.New(rand.NewPCG(randomSeed, 1))}
	for _, state := range allStates {
		r.paths = append(r.paths, reach(s, t, "alice", state))
	}
	r.paths = append(r.paths, rig.NoSession)
	statuses := map[int]int{}
	for i := range randomRequests {
		sent := r.next()
		method, _, _ := strings.Cut(strings.TrimLeft(sent, "\r\n"), " ")
		if method == "" {
			continue
		}
		answers, err := exchange(s, sent, method)
		if err != nil || len(answers) == 0 {
			t.Fatalf("request %d: sent %q\ncame %v and %v", i, sent, answers, err)
		}
		for _, a := range answers {
			statuses[a.Status]++
			switch {
			case a.Status == 503 || a.Status == 504: // the contract has both
			case a.Status >= 500:
				t.Errorf("request %d: sent %q\ncame %d %s", i, sent, a.Status, a.Body)
			}
			if a.Status >= 400 && len(a.Body) > 0 {
				problemIn(t, a, fmt.Sprintf("request %d, %q", i, sent))
			}
		}
	}
	t.Logf("seed %d: answers by status: %v", randomSeed, statuses)
	for _, status := range []int{200, 400, 401, 403, 404, 405, 409, 412, 415, 422} {
		if statuses[status] == 0 {
			t.Errorf("no request came as far as a %d; the requests are too wild, or too tame: %v", status, statuses)
		}
	}
	// The sessions are still there, in a list that holds together.
	auditor := s.As("auditor-eve")
	for page := "/chat-sessions?$limit=100"; page != ""; {
		a := auditor.Expect(200, "GET", page, "")
		for _, session := range a.List(t) {
			auditor.Get("/chat-sessions/" + fmt.Sprint(session["id"]))
		}
		page = next(t, a)
	}
}

// A randomRequest makes requests up.
type randomRequest struct {
	*rand.Rand
	paths []string
}

func (r randomRequest) one(of ...string) string { return of[r.IntN(len(of))] }

// chance is true once in n times.
func (r randomRequest) chance(n int) bool { return r.IntN(n) == 0 }

func (r randomRequest) next() string {
	method := r.one("GET", "GET", "POST", "PATCH", "PATCH", "PATCH", "HEAD")
	target, body := "/chat-sessions", ""
	if method == "PATCH" || method != "POST" && r.chance(2) {
		target = r.one(r.paths...)
	} else if method != "POST" {
		target += "?" + r.query()
	}
	if method == "POST" || method == "PATCH" {
		body = r.object(3)
	}
	if r.chance(12) {
		method = r.one("PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW", "get", "PATCH", "POST", "GET", "HEAD", "")
	}
	if r.chance(12) {
		target = r.scribble(target, 1+r.IntN(3))
	}
	if r.chance(12) {
		target += "?" + r.query()
	}
	if r.chance(12) {
		body = r.scribble(body, 1+r.IntN(4))
	}
	lines := []string{
		method + " " + target + " " + "HTTP/1.1", "Host: service",
		"Authorization: Bearer " + r.one("dev-account-alice", "dev-account-alice", "dev-account-bob", "dev-service-crm", "dev-admin-root", "dev-auditor-eve", "dev-account-eve", "dev-x-y", ""),
	}
	if body != "" {
		contentType := "application/json"
		if r.chance(12) {
			contentType = r.one("application/json; charset=utf-8", "text/plain", "", r.noise(8))
		}
		lines = append(lines, "Content-Type: "+contentType)
		length := len(body)
		if r.chance(25) {
			length += r.IntN(9) - 4
		}
		if r.chance(10) {
			lines = append(lines, "Transfer-Encoding: chunked")
			body = fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", length, body)
		} else {
			lines = append(lines, fmt.Sprintf("Content-Length: %d", length))
		}
	}
	for range r.IntN(3) {
		lines = append(lines, r.header())
	}
	sent := strings.Join(lines, "\r\n") + "\r\n\r\n" + body
	if r.chance(10) {
		sent = r.scribble(sent, 1+r.IntN(3))
	}
	if r.chance(20) {
		sent = sent[:r.IntN(len(sent))+1]
	}
	return sent
}

// header makes up a header that means something, with a value that may not.
func (r randomRequest) header() string {
	name := r.one("If-Match", "If-None-Match", "Idempotency-Key", "Prefer", "Chat-Sessions-Position", "Content-Encoding", "Expect", "Connection",
		"X-Request-Id", "Traceparent", "Accept", "Range", "If-Modified-Since", "X-HTTP-Method-Override", "Upgrade", "Trailer", "Cookie")
	if r.chance(10) {
		name = r.one("Content-Length", "Transfer-Encoding", "Host", "Authorization")
	}
	if name == "Chat-Sessions-Position" { // one that will not come is waited for
		return name + ": " + r.one("0", "1", "2", "-1", "x", "", "1.5", "99999999999999999999")
	}
	if strings.HasPrefix(name, "If-") && r.chance(2) {
		return name + ": " + r.one(`"1"`, `"2"`, "*", `W/"3"`, `"x", "1"`)
	}
	return name + ": " + r.one(`"1"`, `"2"`, "*", `W/"3"`, `"x", "1"`, "k1", "k2", "k3", "handling=strict", "count=exact", "gzip", "identity", "100-continue", "close",
		"keep-alive", "chunked", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "bytes=0-5", "DELETE", "websocket", "", r.noise(12), r.noise(200))
}

// query makes up the query of a list.
func (r randomRequest) query() string {
	var parts []string
	for range 1 + r.IntN(4) {
		name := r.one("$limit", "$skip", "$sort[createdAt]", "$select[]", "$cursor", "state", "type", "room", "participants", "createdBy", "startedBy", "createdAt[$gt]", "createdAt[$lte]",
			"state[$in][]", "room[$in][]", "participants[$in]", "title", "$or[0][room]", "room[$ne]", "createdAt", r.noise(5))
		value := r.one("1", "-1", "0", "%2310", "#5", "created", "started", "telemed", "alice", "bob", "r", "1600000000000", "8640000000000000", "id", "room", "", "%", "%ff", r.noise(9))
		parts = append(parts, name+"="+value)
	}
	return strings.NewReplacer(" ", "+", "\r", "", "\n", "").Replace(strings.Join(parts, "&"))
}

// object makes up a JSON object out of the members of a session.
func (r randomRequest) object(depth int) string {
	names := append(slices.Clone(patchable), "title", "id", "state", "version", "createdBy", "updatedAt", "strt", r.noise(4))
	var members []string
	for range r.IntN(4) {
		name := r.one(names...)
		value := r.value(depth)
		switch { // mostly what fits
		case r.chance(5):
		case strings.HasSuffix(name, "At"):
			value = fmt.Sprint(longAgo + r.Int64N(5000))
		case strings.HasSuffix(name, "By"):
			value = r.one(`"alice"`, `"bob"`)
		case name == "participants":
			value = r.one(`["alice","bob"]`, `["alice"]`, `[]`, `["alice","bob","eve"]`)
		case name == "start", name == "accept", name == "reject", name == "finish":
			value = r.one("true", "false", `""`, `"why"`)
		}
		members = append(members, fmt.Sprintf("%q:%s", name, value))
	}
	return "{" + strings.Join(members, ",") + "}"
}

// value makes up a JSON value.
func (r randomRequest) value(depth int) string {
	if depth > 0 && r.chance(8) {
		return r.object(depth - 1)
	}
	return r.one("null", "true", "false", "0", "1", "-1", "1e3", "1.5", "1e999", "8640000000000000", "9007199254740993", `""`, `"telemed"`, `"alice"`, `"r"`, `"\ud83d\ude00"`, `"\ud800"`, `"\u0000"`,
		`[]`, `["bob"]`, `["bob","bob"]`, `[1]`, `[[]]`, fmt.Sprintf("%q", r.noise(20)), `"`+strings.Repeat("x", r.IntN(2000))+`"`, fmt.Sprint(r.Int64N(1<<52)))
}

// noise is bytes of any kind, most of them printable.
func (r randomRequest) noise(most int) string {
	b := make([]byte, r.IntN(most+1))
	for i := range b {
		b[i] = byte(' ' + r.IntN(95))
		if r.chance(10) {
			b[i] = byte(r.IntN(256))
		}
	}
	return string(b)
}

// scribble changes, takes out or puts in some bytes.
func (r randomRequest) scribble(text string, times int) string {
	b := []byte(text)
	for range times {
		i := r.IntN(len(b) + 1)
		switch {
		case i == len(b) || r.chance(3):
			b = append(b[:i:i], append([]byte(r.noise(4)), b[i:]...)...)
		case r.chance(2):
			b[i] = byte(r.IntN(256))
		default:
			b = append(b[:i:i], b[min(len(b), i+1+r.IntN(6)):]...)
		}
	}
	return string(b)
}
