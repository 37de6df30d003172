package contract

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"chatsessions/cmd/systemtest/rig"
)

// TestASessionIsToldAsItWasAtAnyTime: for every millisecond around each of its events,
// it is what the newest event recorded by then has made of it, whatever the stamps say.
func TestASessionIsToldAsItWasAtAnyTime(t *testing.T) {
	rig.OnAllSetups(t, func(t *testing.T, s *rig.Service) {
		auditor := s.As("auditor-eve")
		for _, path := range []string{reach(s, t, "alice", "finished"), fullLife(t, s), s.As("account-alice").Create(`{}`)} {
			events := eventsOf(s.Log(), path)
			first, last := recordedAt(events[0]), recordedAt(events[len(events)-1])
			times := map[int64]bool{0: true, longAgo + 1500: true, first - 3_600_000: true, last + 1: true}
			for i, e := range events {
				at := recordedAt(e)
				times[at-1], times[at], times[at+1] = true, true, true
				if i > 0 {
					times[(at+recordedAt(events[i-1]))/2] = true
				}
			}
			for at := range times {
				var want map[string]any
				for _, e := range events {
					if recordedAt(e) <= at {
						want = e.Session
					}
				}
				if at > nowMillis() {
					t.Fatalf("%d is not over yet", at)
				}
				for _, spelt := range spellings(at) {
					target := path + "?at=" + spelt
					if want == nil {
						p := auditor.Refused(404, "GET", target, "")
						if detail := fmt.Sprint(p["detail"]); !strings.Contains(detail, "recorded at "+rfc3339(first)) || !strings.Contains(detail, "at "+rfc3339(at)) {
							t.Errorf("%s: %s", target, detail)
						}
						continue
					}
					a := auditor.Expect(200, "GET", target, "")
					if got := rig.ToJSON(a.Object(t)); got != rig.ToJSON(want) || a.Header.Get("ETag") != fmt.Sprintf(`"%v"`, want["version"]) ||
						a.Header.Get("Cache-Control") != "private, no-cache" || a.Header.Get("Content-Type") != "application/json" {
						t.Errorf("%s: %s %v, want %s", target, a.Body, a.Header, rig.ToJSON(want))
					}
				}
			}
			if got, now := auditor.Expect(200, "GET", fmt.Sprint(path, "?at=", last), ""), auditor.Expect(200, "GET", path, ""); string(got.Body) != string(now.Body) {
				t.Errorf("at its newest event %s is %s, and now %s", path, got.Body, now.Body)
			}
		}
	})
}

func recordedAt(e rig.Event) int64 { return int64(e.Session["updatedAt"].(float64)) }

func rfc3339(at int64) string { return time.UnixMilli(at).UTC().Format("2006-01-02T15:04:05.000Z") }

// spellings are ways to write a time into a query.
func spellings(at int64) []string {
	east := time.UnixMilli(at).In(time.FixedZone("", 5*3600+1800)).Format("2006-01-02T15:04:05.000-07:00")
	return []string{fmt.Sprint(at), fmt.Sprintf("%%23%d", at), rfc3339(at), strings.Replace(rfc3339(at), "Z", "999z", 1), strings.Replace(east, "+", "%2B", 1)}
}

func TestThePastOfASessionIsAskedForAsTheSessionIs(t *testing.T) {
	s := rig.Start(t, "--dev", "--ops-listen", "127.0.0.1:0")
	path := fullLife(t, s)
	alice := s.As("account-alice")
	at := path + "?at=" + rfc3339(recordedAt(eventsOf(s.Log(), path)[1])) // started, version 2
	for _, tt := range []struct {
		header string
		status int
	}{
		{`If-None-Match: "2"`, 304}, {"If-None-Match: *", 304}, {`If-None-Match: "7"`, 200}, {`If-Match: "2"`, 200}, {`If-Match: "7"`, 412},
		{"Chat-Sessions-Position: 1", 200}, {"Chat-Sessions-Position: x", 400}, {"Chat-Sessions-Position: 999", 504}, {"If-Match: 2", 400},
	} {
		a := alice.Expect(tt.status, "GET", at, "", tt.header)
		if tag := a.Header.Get("ETag"); (tt.status < 400 || tt.status == 412) && tag != `"2"` {
			t.Errorf("%s: ETag is %s", tt.header, tag)
		}
		if head := alice.Expect(tt.status, "HEAD", at, "", tt.header); len(head.Body) > 0 || head.Header.Get("ETag") != a.Header.Get("ETag") {
			t.Errorf("HEAD with %s: %v %s", tt.header, head.Header, head.Body)
		}
	}
	selected := alice.Expect(200, "GET", at+"&$select[]=state&$select[]=acceptedBy", "")
	if got, want := string(selected.Body), fmt.Sprintf(`{"id":%q,"state":"started"}`, idOf(path)); got != want {
		t.Errorf("selected %s, want %s", got, want)
	}
	for _, tt := range []struct {
		query  string
		status int
		says   string
	}{
		{"at=2026-11-22T12:00:00+01:00", 400, "%2B"}, {"at=noon", 400, "RFC 3339"}, {"at=", 400, "RFC 3339"}, {"at=1&at=2", 400, "twice"}, {"at=1&room=x", 400, "room"},
		{fmt.Sprint("at=", nowMillis()+60_000), 422, "leave at out"}, {"at=9999-12-31T23:59:59Z", 422, "9999-12-31"}, {"at=0", 404, "1970-01-01T00:00:00.000Z"},
	} {
		if p := alice.Refused(tt.status, "GET", path+"?"+tt.query, ""); !strings.Contains(fmt.Sprint(p["detail"]), tt.says) {
			t.Errorf("%s: %v, want it to say %q", tt.query, p["detail"], tt.says)
		}
	}
	alice.Refused(400, "PATCH", path+"?at=1", "{}")
	alice.Refused(400, "GET", "/chat-sessions?at=1", "")

	// The same rules for its history.
	history, stranger := path+"/events", &rig.Client{T: t, URL: s.URL, Token: "nonsense"}
	for _, tt := range []struct {
		c      *rig.Client
		status int
		method string
		target string
		header string
	}{
		{stranger, 405, "POST", history, ""}, {stranger, 405, "PATCH", rig.NoSession + "/events", ""}, {stranger, 405, "DELETE", history + "/?foo=1", ""},
		{stranger, 401, "GET", history + "?foo=1", "Accept: text/html"}, {alice, 406, "GET", rig.NoSession + "/events?foo=1", "Accept: text/html"},
		{alice, 400, "GET", rig.NoSession + "/events?foo=1", ""}, {alice, 400, "GET", rig.NoSession + "/events", "If-Match: 1"}, {alice, 400, "GET", rig.NoSession + "/events", "Chat-Sessions-Position: x"},
		{alice, 404, "GET", rig.NoSession + "/events", `If-Match: "0"`}, {alice, 404, "GET", "/chat-sessions/events/events", ""}, {alice, 404, "GET", "/chat-sessions/x/events", ""},
		{alice, 404, "GET", history + "/x", ""}, {alice, 412, "GET", history, `If-Match: "0"`}, {alice, 504, "GET", history, "Chat-Sessions-Position: 999"},
	} {
		headers := []string{}
		if tt.header != "" {
			headers = append(headers, tt.header)
		}
		p := tt.c.Refused(tt.status, tt.method, tt.target, "", headers...)
		if tt.status == 406 && !strings.Contains(fmt.Sprint(p["detail"]), batchType) {
			t.Errorf("a 406 says %v", p["detail"])
		}
	}
	if allow := alice.Expect(405, "PUT", history, "").Header.Get("Allow"); allow != "GET, HEAD" {
		t.Errorf("Allow is %q", allow)
	}
	alice.Expect(200, "GET", history+"/", "", "Chat-Sessions-Position: 7")
	const counted = `chatsessions_http_requests_total{method="GET",route="/chat-sessions/:id/events",status="200"}`
	if got := s.Metrics()[counted]; got != 1 {
		t.Errorf("%s is %v, want 1", counted, got)
	}
}
