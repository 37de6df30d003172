package http

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"chatsessions/domain"
)

func TestALifeOfASession(t *testing.T) {
	r := newRig(t)
	created := r.must(200, "POST", "/chat-sessions", `{"room":"r1","participants":["bob"]}`)
	id := created.field("id")
	for name, want := range map[string]string{
		"Location": "/chat-sessions/" + id, "Etag": `"1"`, "Content-Type": "application/json", "Cache-Control": "private, no-cache", "Chat-Sessions-Position": "1",
	} {
		if got := created.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	for i, step := range []struct{ body, state string }{{`{"start":true}`, "started"}, {`{"accept":true}`, "accepted"}, {`{"finish":"done"}`, "finished"}} {
		got := r.must(200, "PATCH", "/chat-sessions/"+id, step.body)
		if got.field("state") != step.state || got.Header.Get("Etag") != fmt.Sprintf(`"%d"`, i+2) || got.Header.Get("Chat-Sessions-Position") != fmt.Sprint(i+2) {
			t.Errorf("%s: %v %s", step.body, got.Header, got.body)
		}
		if read := r.must(200, "GET", "/chat-sessions/"+id, ""); read.body != got.body || read.Header.Get("Etag") != got.Header.Get("Etag") {
			t.Errorf("read as %s %v", read.body, read.Header)
		}
	}
	refused := r.must(409, "PATCH", "/chat-sessions/"+id, `{"start":true}`)
	if refused.field("state") != "finished" || refused.field("allowed") != "[]" || !strings.Contains(refused.body, `"conflict":{"type":"chat-session.finished","by":"alice","at":1795348800000}`) {
		t.Errorf("%s", refused.body)
	}
	if refused.Header.Get("Chat-Sessions-Position") != "" {
		t.Error("a refusal has a position")
	}
	if got := r.requests[0]; got.Actor != "alice" || !got.New || got.SessionID != id || got.Key != "" || got.Digest != "" || len(got.TraceParent) != 55 {
		t.Errorf("%+v", got)
	}
	if r.requests[1].New {
		t.Error("a PATCH creates its session")
	}
}

// TestEveryAnswerWaitsForTheReadModel, refusals included, because no later GET may show less.
func TestEveryAnswerWaitsForTheReadModel(t *testing.T) {
	r := newRig(t)
	id := r.create(`{}`)
	r.must(200, "PATCH", "/chat-sessions/"+id, `{"start":true}`)
	r.must(409, "PATCH", "/chat-sessions/"+id, `{"start":true,"startedAt":5}`)
	r.must(422, "POST", "/chat-sessions", `{"room":5}`) // shows nothing of a session
	r.must(404, "PATCH", "/chat-sessions/"+newID(), `{"start":true}`)
	if want := []uint64{1, 2, 2}; !slices.Equal(r.waited, want) || !slices.Equal(r.observed, want) {
		t.Errorf("waited for %v, observed %v, want %v", r.waited, r.observed, want)
	}
	r.failing("WaitFor", errors.New("not yet"))
	if got := r.must(200, "PATCH", "/chat-sessions/"+id, `{"accept":true}`); got.Header.Get("Chat-Sessions-Position") != "3" {
		t.Error("a read model that is late is no reason to refuse")
	}
}

func TestAGetWaitsForThePosition(t *testing.T) {
	r := newRig(t)
	id := r.create(`{}`)
	for _, path := range []string{"/chat-sessions/" + id, "/chat-sessions"} {
		r.must(200, "GET", path, "", "Chat-Sessions-Position", "1")
		if got := r.must(504, "GET", path, "", "Chat-Sessions-Position", "7"); !strings.Contains(got.field("detail"), "position 7 within 5 s") || got.field("name") != "GatewayTimeout" {
			t.Error(got.body)
		}
		r.must(400, "GET", path, "", "Chat-Sessions-Position", "x")
		r.must(400, "GET", path, "", "Chat-Sessions-Position", "-1")
	}
	if want := []uint64{1, 1, 7, 1, 7}; !slices.Equal(r.waited, want) {
		t.Errorf("waited for %v, want %v", r.waited, want)
	}
	for _, path := range []string{"/chat-sessions/" + id + "/events", "/chat-sessions/" + id + "?at=" + fmt.Sprint(now)} {
		r.must(200, "GET", path, "", "Chat-Sessions-Position", "1")
		if got := r.must(504, "GET", path, "", "Chat-Sessions-Position", "2"); !strings.Contains(got.field("detail"), "position 2; its newest event is at 1") {
			t.Error(got.body)
		}
		r.must(400, "GET", path, "", "Chat-Sessions-Position", "x")
	}
	r.failing("End", domain.ErrUnavailable)
	r.must(503, "GET", "/chat-sessions/"+id+"/events", "", "Chat-Sessions-Position", "1")
}

func TestConditions(t *testing.T) {
	r := newRig(t)
	id := r.create(`{}`)
	path := "/chat-sessions/" + id
	for _, tt := range []struct {
		method, name, value string
		status              int
	}{
		{"GET", "If-None-Match", `"1"`, 304}, {"GET", "If-None-Match", `W/"1"`, 304}, {"GET", "If-None-Match", `*`, 304}, {"GET", "If-None-Match", `"9", "1"`, 304},
		{"GET", "If-None-Match", `"2"`, 200}, {"GET", "If-None-Match", ``, 200}, {"GET", "If-None-Match", `1`, 400}, {"GET", "If-None-Match", `"1`, 400},
		{"GET", "If-Match", `"1"`, 200}, {"GET", "If-Match", `*`, 200}, {"GET", "If-Match", `"2"`, 412}, {"GET", "If-Match", `W/"1"`, 412}, {"GET", "If-Match", `1`, 400},
		{"HEAD", "If-None-Match", `"1"`, 304}, {"HEAD", "If-Match", `"2"`, 412},
		{"PATCH", "If-Match", `"1"`, 200}, {"PATCH", "If-Match", `"2", "1"`, 200}, {"PATCH", "If-Match", `*`, 200}, {"PATCH", "If-Match", `"2"`, 412}, {"PATCH", "If-Match", `W/"1"`, 412},
		{"PATCH", "If-Match", ``, 400}, {"PATCH", "If-Match", ` , `, 400}, {"PATCH", "If-Match", `1`, 400}, {"PATCH", "If-Match", `"1" "2"`, 400},
		{"PATCH", "If-None-Match", `"1"`, 412}, {"PATCH", "If-None-Match", `*`, 412}, {"PATCH", "If-None-Match", `"2"`, 200}, {"PATCH", "If-None-Match", `x`, 400},
	} {
		body := ""
		if tt.method == "PATCH" {
			body = `{}`
		}
		got := r.must(tt.status, tt.method, path, body, tt.name, tt.value)
		if tt.status < 400 || tt.status == 412 {
			if got.Header.Get("Etag") != `"1"` {
				t.Errorf("%s %s %s: ETag %q", tt.method, tt.name, tt.value, got.Header.Get("Etag"))
			}
		}
		if tt.status == 304 && (got.body != "" || got.Header.Get("Cache-Control") != cachePrivately) {
			t.Errorf("%s: 304 with %q %v", tt.value, got.body, got.Header)
		}
	}
	// Lists may come in several lines.
	r.must(200, "PATCH", path, `{}`, "If-Match", `"7"`, "If-Match", `"1"`)
	if got := r.must(412, "PATCH", path, `{"room":"x"}`, "If-Match", `"7"`); !strings.Contains(got.field("detail"), "version 1") {
		t.Error(got.body)
	}
	if r.position() != 1 {
		t.Error("something was written")
	}
}

func TestARepeatedRequestGetsItsFirstResponse(t *testing.T) {
	r := newRig(t)
	first := r.must(200, "POST", "/chat-sessions", `{"room":"r"}`, "Idempotency-Key", "k1")
	id := first.field("id")
	if id[14] != '8' || !strings.ContainsRune("89ab", rune(id[19])) {
		t.Errorf("%s is not a UUIDv8", id)
	}
	r.must(200, "PATCH", "/chat-sessions/"+id, `{"start":true}`, "Idempotency-Key", "k1") // another method, another key
	again := r.must(200, "POST", "/chat-sessions", `{"room":"r"}`, "Idempotency-Key", "k1")
	if again.body != first.body || again.Header.Get("Chat-Sessions-Position") != "1" || r.position() != 2 {
		t.Errorf("repeated: %s, want %s", again.body, first.body)
	}
	change := r.must(200, "PATCH", "/chat-sessions/"+id+"/", `{"start":true}`, "Idempotency-Key", "k1", "If-Match", `"9"`)
	if change.field("state") != "started" || change.Header.Get("Etag") != `"2"` {
		t.Errorf("%s", change.body)
	}
	for what, do := range map[string]func() response{
		"another body": func() response { return r.do("POST", "/chat-sessions", `{"room": "r"}`, "Idempotency-Key", "k1") },
		"of the PATCH": func() response {
			return r.do("PATCH", "/chat-sessions/"+id, `{"accept":true}`, "Idempotency-Key", "k1")
		},
		"a body with two": func() response { return r.do("POST", "/chat-sessions", `{"room":"s"}`, "Idempotency-Key", "k1") },
	} {
		if got := do(); got.StatusCode != 422 || !strings.Contains(got.field("detail"), "used before with another body") {
			t.Errorf("%s: %d %s", what, got.StatusCode, got.body)
		}
	}
	other := r.must(200, "POST", "/chat-sessions", `{"room":"r"}`, "Idempotency-Key", "k2")
	bobs := r.must(200, "POST", "/chat-sessions", `{"room":"r"}`, append(bearer("account", "bob"), "Idempotency-Key", "k1")...)
	if other.field("id") == id || bobs.field("id") == id {
		t.Error("keys of two requests, or of two callers, are one")
	}
	for _, key := range []string{"", strings.Repeat("k", 256), "a\tb", "é"} {
		r.must(400, "POST", "/chat-sessions", `{}`, "Idempotency-Key", key)
	}
	r.must(200, "POST", "/chat-sessions", `{}`, "Idempotency-Key", strings.Repeat("k", 255))
	r.must(200, "POST", "/chat-sessions", `{}`, "Idempotency-Key", " ~ ~")
	if got := r.must(400, "POST", "/chat-sessions", `{}`, "Idempotency-Key", "a", "Idempotency-Key", "b"); !strings.Contains(got.field("detail"), "2 times") {
		t.Error(got.body)
	}
	for _, request := range r.requests {
		if (len(request.Key) != 0) != (len(request.Digest) != 0) || len(request.Key) != 0 && len(request.Key) != 64 {
			t.Errorf("%+v", request)
		}
	}
}

// The hash of a key is in the log for good.
func TestTheHashOfAKeyStays(t *testing.T) {
	r := newRig(t)
	id := r.create(`{}`, "Idempotency-Key", "k")
	if want := "e60a987d-8d49-8695-9f3d-6b35ec0e3a77"; id != want {
		t.Errorf("%s, want %s", id, want)
	}
}

func TestIgnoredFieldsAreNamed(t *testing.T) {
	r := newRig(t)
	created := r.must(200, "POST", "/chat-sessions", `{"title":"Hello","seen":true,"a,b":1,"":2,"state":"finished"}`)
	if got := created.Header.Get("Ignored-Fields"); got != `title, seen, a%2Cb, "", state` {
		t.Errorf("%q", got)
	}
	id := created.field("id")
	// What a client sends back as it got it is not worth a word.
	back := r.must(200, "PATCH", "/chat-sessions/"+id, created.body)
	if got, ok := back.Header["Ignored-Fields"]; ok {
		t.Errorf("%q", got)
	}
	changed := r.must(200, "PATCH", "/chat-sessions/"+id, `{"id":"x","version":9,"updatedAt":1795348800000.0,"createdBy":"alice","colour":true,"start":true}`)
	if got := changed.Header.Get("Ignored-Fields"); got != "colour, id, version" || changed.field("state") != "started" {
		t.Errorf("%q %s", got, changed.body)
	}
	// It is the session before the change that they are compared with.
	if got := r.must(200, "PATCH", "/chat-sessions/"+id, `{"state":"started","version":2,"accept":true}`).Header["Ignored-Fields"]; got != nil {
		t.Errorf("%q", got)
	}
	for value, strict := range map[string]bool{
		"handling=strict": true, "handling=lenient": false, "HANDLING = \"Strict\"": true, "respond-async, handling=strict;x=1": true,
		"handling=lenient, handling=strict": false, "handling": false, "": false, "strict": false,
	} {
		want := 200
		if strict {
			want = 422
		}
		got := r.must(want, "PATCH", "/chat-sessions/"+id, `{"titel":1,"version":7}`, "Prefer", value)
		if strict && got.pointers() != "/titel /version" {
			t.Errorf("%s: %s", value, got.body)
		}
	}
	if got := r.must(200, "PATCH", "/chat-sessions/"+id, `{}`, "Prefer", "handling=strict"); got.Header.Get("Preference-Applied") != "handling=strict" {
		t.Error(got.Header)
	}
	if got := r.must(200, "PATCH", "/chat-sessions/"+id, `{}`); got.Header.Get("Preference-Applied") != "" {
		t.Error(got.Header)
	}
	// What is ignored comes first, then what is wrong.
	if got := r.must(422, "POST", "/chat-sessions", `{"room":1,"x/y":1}`, "Prefer", "handling=strict").pointers(); got != "/x~1y /room" {
		t.Error(got)
	}
}

func TestASelection(t *testing.T) {
	r := newRig(t)
	created := r.must(200, "POST", "/chat-sessions?$select=room", `{"room":"r"}`)
	id := created.field("id")
	want := `{"id":"` + id + `","room":"r"}`
	if created.body != want {
		t.Error(created.body)
	}
	for _, got := range []response{
		r.must(200, "GET", "/chat-sessions/"+id+"?$select[]=room", ""), r.must(200, "PATCH", "/chat-sessions/"+id+"?%24select=room", `{}`),
		r.must(200, "GET", "/chat-sessions/"+id+"?$select=room&at="+fmt.Sprint(now), ""),
	} {
		if got.body != want || got.Header.Get("Etag") != `"1"` {
			t.Errorf("%s, want %s", got.body, want)
		}
	}
	if got := r.must(200, "GET", "/chat-sessions?$select=room", "").body; got != "["+want+"]" {
		t.Error(got)
	}
	r.must(400, "POST", "/chat-sessions?$select=rom", `{}`)
	r.must(400, "PATCH", "/chat-sessions/"+id+"?$limit=1", `{}`)
	r.must(400, "GET", "/chat-sessions/"+id+"?x=1", "")
	if r.position() != 1 {
		t.Error("a refused write was written")
	}
}

func TestWhoMaySeeASession(t *testing.T) {
	r := newRig(t)
	id := r.create(`{"participants":["bob"]}`)
	paths := []string{"/chat-sessions/" + id, "/chat-sessions/" + id + "/events", "/chat-sessions/" + id + "?at=" + fmt.Sprint(now)}
	for caller, status := range map[string]int{"account-alice": 200, "account-bob": 200, "account-carol": 404, "service-crm": 200, "auditor-a": 200, "admin-root": 200} {
		for _, path := range paths {
			got := r.do("GET", path, "", "Authorization", "Bearer dev-"+caller)
			if got.StatusCode != status {
				t.Errorf("%s GET %s: %d %s", caller, path, got.StatusCode, got.body)
			}
			if status == 404 && got.field("detail") != r.must(404, "GET", "/chat-sessions/"+newID(), "").field("detail") {
				t.Errorf("%s learns that the session exists: %s", caller, got.body)
			}
		}
	}
	r.must(404, "PATCH", "/chat-sessions/"+id, `{"start":true}`, bearer("account", "carol")...)
	for _, wrong := range []string{strings.ToUpper(id), id[:35], id + "0", "x", strings.ReplaceAll(id, "-", ""), "%zz", "{" + id + "}"} {
		for _, suffix := range []string{"", "/events", "?at=0"} {
			r.must(404, "GET", "/chat-sessions/"+wrong+suffix, "")
		}
		r.must(404, "PATCH", "/chat-sessions/"+wrong, `{}`)
	}
	// However it is spelled in the target.
	r.must(200, "GET", "/chat-sessions/"+strings.Replace(id, "-", "%2D", 1), "")
	r.must(200, "GET", "/chat-sessions/"+id+"/", "")
}

// The log answers for a read model that is slow, gone, or behind.
func TestAGetFallsBackToTheLog(t *testing.T) {
	r := newRig(t)
	id := r.create(`{"participants":["bob"]}`)
	plain := r.must(200, "GET", "/chat-sessions/"+id, "")
	if plain.Header.Get("Chat-Sessions-Source") != "" {
		t.Error("the read model has an answer, and the log was asked")
	}
	for _, failure := range []error{domain.ErrUnavailable, domain.ErrNotFound} {
		r.failing("Get", failure)
		got := r.must(200, "GET", "/chat-sessions/"+id, "")
		if got.body != plain.body || got.Header.Get("Chat-Sessions-Source") != "log" || got.Header.Get("Etag") != `"1"` {
			t.Errorf("%s %v", got.body, got.Header)
		}
		r.must(404, "GET", "/chat-sessions/"+id, "", bearer("account", "carol")...)
		r.must(404, "GET", "/chat-sessions/"+newID(), "")
	}
	before := len(r.observed)
	r.must(200, "GET", "/chat-sessions/"+id, "")
	if len(r.observed) != before+1 || r.observed[before] != 1 {
		t.Errorf("observed %v", r.observed)
	}
	r.failing("AwaitEverywhere", domain.ErrUnavailable) // another node may still show less
	r.must(503, "GET", "/chat-sessions/"+id, "")
	r.failing("AwaitEverywhere", nil)
	r.failing("Load", domain.ErrUnreadable)
	if got := r.must(503, "GET", "/chat-sessions/"+id, ""); got.Header.Get("Retry-After") != "3600" || !strings.Contains(got.field("detail"), "parked") {
		t.Errorf("%s", got.body)
	}
	r.failing("Get", errors.New("a defect"))
	r.must(500, "GET", "/chat-sessions/"+id, "")
	r.failing("Load", nil)
	hanging := make(chan string)
	r.mu.Lock()
	delete(r.fail, "Get")
	r.block["Get"] = hanging
	r.mu.Unlock()
	began := time.Now()
	if got := r.must(200, "GET", "/chat-sessions/"+id, ""); got.Header.Get("Chat-Sessions-Source") != "log" || time.Since(began) < hangingReads {
		t.Errorf("%v after %s", got.Header, time.Since(began))
	}
}

// TestWhatGoesWrongBelow: the errors of the log, as a write and as a read show them.
func TestWhatGoesWrongBelow(t *testing.T) {
	r := newRig(t)
	id := r.create(`{}`)
	for _, tt := range []struct {
		err            error
		key            string
		status         int
		written, after string
		says           string
	}{
		{domain.ErrUnavailable, "", 503, "false", "1", "was not written"},
		{fmt.Errorf("%w: %w", domain.ErrUnavailable, domain.ErrNotWritable), "", 503, "false", "60", "until the operator"},
		{domain.ErrOutcomeUnknown, "", 503, "true", "1", "read the session to see"},
		{domain.ErrOutcomeUnknown, "k", 503, "true", "1", "same Idempotency-Key again"},
		{domain.ErrHistoryTooLong, "k", 503, "true", "3600", "too many events"},
		{domain.ErrUnreadable, "", 503, "false", "3600", "cannot be read"},
		{domain.ErrUnreadable, "k", 503, "true", "3600", "cannot be read"},
		{errors.New("secret cause"), "", 500, "", "", "something went wrong"},
	} {
		r.failing("Transact", tt.err)
		for _, request := range [][2]string{{"POST", "/chat-sessions"}, {"PATCH", "/chat-sessions/" + id}} {
			headers := []string{"Idempotency-Key", "-"}
			if tt.key != "" {
				headers[1] = tt.key
			}
			got := r.must(tt.status, request[0], request[1], `{}`, headers...)
			if got.field("mayHaveBeenWritten") != tt.written || got.Header.Get("Retry-After") != tt.after || !strings.Contains(got.field("detail"), tt.says) || strings.Contains(got.body, "secret") {
				t.Errorf("%v %q: %v %s", tt.err, tt.key, got.Header, got.body)
			}
		}
	}
	if logs := r.logs.String(); !strings.Contains(logs, "secret cause") || strings.Count(logs, "level=ERROR") != 16 {
		t.Errorf("%s", logs)
	}
}

func TestAPanicIsA500WithItsStack(t *testing.T) {
	r := newRig(t)
	r.server.Now = nil
	got := r.must(500, "POST", "/chat-sessions", `{}`, "X-Request-Id", "request-7")
	if !strings.Contains(got.body, "something went wrong on our side") || strings.Contains(got.body, "nil pointer") {
		t.Error(got.body)
	}
	if logs := r.logs.String(); !strings.Contains(logs, "msg=panic") || !strings.Contains(logs, "request=request-7") || !strings.Contains(logs, "sessions.go") {
		t.Error(logs)
	}
	r.server.Now = time.Now
	r.must(200, "POST", "/chat-sessions", `{}`)
}

func TestACommandIsDecidedOnTheSessionThatTheLogHas(t *testing.T) {
	r := newRig(t)
	got := r.must(422, "POST", "/chat-sessions", `{"room":"","participants":["a","a"],"acceptedAt":"x"}`)
	if got.pointers() != "/room /participants/1 /acceptedAt" || !strings.HasSuffix(got.field("detail"), "; and 2 more, see errors") || got.field("detail") != got.field("message") {
		t.Error(got.body)
	}
	if got := r.must(403, "POST", "/chat-sessions", `{"startedAt":5,"startedBy":"bob"}`); got.pointers() != "/startedBy" || strings.Contains(got.field("detail"), "more") {
		t.Error(got.body)
	}
	if got := r.must(200, "POST", "/chat-sessions", `{"createdBy":"bob"}`, bearer("service", "crm")...); got.field("createdBy") != "bob" {
		t.Error(got.body)
	}
	if got := r.must(200, "POST", "/chat-sessions", `{"createdBy":"bob"}`); got.field("createdBy") != "alice" || got.Header.Get("Ignored-Fields") != "createdBy" {
		t.Error(got.body, got.Header)
	}
	for _, method := range []string{"POST", "PATCH"} {
		path := "/chat-sessions"
		if method == "PATCH" {
			path += "/" + newID()
		}
		for body, says := range map[string]string{`[]`: "array", `{} {}`: "more data", `{"a":1,"a":2}`: "duplicate", `nonsense`: "not valid JSON"} {
			if got := r.must(400, method, path, body); !strings.Contains(got.field("detail"), says) {
				t.Error(got.body)
			}
		}
		if got := r.must(400, method, path, ""); !strings.Contains(got.field("detail"), "empty") {
			t.Error(got.body)
		}
	}
}
