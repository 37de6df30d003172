package http

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"chatsessions/domain"
	"chatsessions/http/feed/feedtest"
)

// An eventError is about an event that cannot be read, as the log returns it.
type eventError struct{ position uint64 }

func (e eventError) Error() string         { return "event is not readable" }
func (e eventError) EventPosition() uint64 { return e.position }
func (e eventError) Unwrap() error         { return domain.ErrUnreadable }

// events returns the positions in a history.
func (r response) events(t *testing.T) string {
	t.Helper()
	var all []struct{ Position, Type, Time string }
	if err := json.Unmarshal([]byte(r.body), &all); err != nil {
		var numbers []struct{ Position uint64 }
		if err := json.Unmarshal([]byte(r.body), &numbers); err != nil {
			t.Fatalf("%s: %v", r.body, err)
		}
		var positions []string
		for _, e := range numbers {
			positions = append(positions, fmt.Sprint(e.Position))
		}
		return strings.Join(positions, " ")
	}
	var positions []string
	for _, e := range all {
		positions = append(positions, e.Position)
	}
	return strings.Join(positions, " ")
}

func TestAHistoryInPages(t *testing.T) {
	r := newRig(t)
	id := r.create(`{}`)
	r.create(`{}`)
	for i := range 4 {
		r.must(200, "PATCH", "/chat-sessions/"+id, fmt.Sprintf(`{"room":"r%d"}`, i))
	}
	path := "/chat-sessions/" + id + "/events"
	for query, want := range map[string]string{
		"": "1 3 4 5 6", "?after=3": "4 5 6", "?after=6": "", "?after=99": "", "?$limit=2": "1 3", "?$limit=2&after=1": "3 4", "?$limit=0": "", "?$limit=%235": "1 3 4 5 6", "?after=0": "1 3 4 5 6",
	} {
		got := r.must(200, "GET", path+query, "")
		if events := got.events(t); events != want {
			t.Errorf("%s: %s, want %s", query, events, want)
		}
		if got.Header.Get("Etag") != `"5"` || got.Header.Get("Vary") != "Accept" || got.Header.Get("Content-Type") != "application/json" || got.Header.Get("Cache-Control") != cachePrivately {
			t.Errorf("%s: %v", query, got.Header)
		}
	}
	var all []string
	for next := path + "?$limit=2"; next != ""; {
		page := r.must(200, "GET", next, "")
		all = append(all, page.events(t))
		next = page.next()
	}
	if got := strings.Join(all, "|"); got != "1 3|4 5|6" {
		t.Error(got)
	}
	cloud := r.must(200, "GET", path, "", "Accept", "application/cloudevents-batch+json")
	if cloud.Header.Get("Etag") != `"5-cloudevents"` || cloud.Header.Get("Content-Type") != "application/cloudevents-batch+json" || !strings.Contains(cloud.body, `"specversion":"1.0"`) || cloud.events(t) != "1 3 4 5 6" {
		t.Errorf("%v %.300s", cloud.Header, cloud.body)
	}
	r.must(304, "GET", path, "", "If-None-Match", `"5"`)
	r.must(200, "GET", path, "", "If-None-Match", `"5-cloudevents"`)
	r.must(412, "GET", path, "", "If-Match", `"4"`)
	if got := r.must(406, "GET", path, "", "Accept", "text/html", "Accept", "image/*"); got.Header.Get("Vary") != "Accept" || !strings.Contains(got.field("detail"), "application/json or application/cloudevents-batch+json") || !strings.Contains(got.field("detail"), "image/*") {
		t.Error(got.body)
	}
	r.must(200, "GET", path, "", "Accept", "text/html", "Accept", "application/json")
	r.must(404, "GET", "/chat-sessions/"+newID()+"/events", "")
}

func TestTheSessionAtATime(t *testing.T) {
	at := now
	r := newRig(t, func(c *Config) { c.Now = func() time.Time { return time.UnixMilli(at) } })
	id := r.create(`{"room":"r0"}`)
	for i := range 3 {
		at += 1000
		r.must(200, "PATCH", "/chat-sessions/"+id, fmt.Sprintf(`{"room":"r%d"}`, i+1))
	}
	path := "/chat-sessions/" + id
	for offset, want := range map[int64]string{0: "r0", 999: "r0", 1000: "r1", 1001: "r1", 2999: "r2", 3000: "r3"} {
		got := r.must(200, "GET", fmt.Sprintf("%s?at=%d", path, now+offset), "")
		if got.field("room") != want || got.Header.Get("Etag") != fmt.Sprintf(`"%d"`, want[1]-'0'+1) {
			t.Errorf("at %d: %s %v, want %s", offset, got.body, got.Header, want)
		}
	}
	if got := r.must(404, "GET", fmt.Sprintf("%s?at=%d", path, now-1), ""); !strings.Contains(got.field("detail"), "at 2026-11-22T11:59:59.999Z there was no such session yet: its first event was recorded at 2026-11-22T12:00:00.000Z") {
		t.Error(got.body)
	}
	if got := r.must(422, "GET", fmt.Sprintf("%s?at=%d", path, at+1), ""); !strings.Contains(got.field("detail"), "12:00:03.001Z, and here it is 2026-11-22T12:00:03.000Z") {
		t.Error(got.body)
	}
	at -= 2000 // the newest event is of a node whose clock is ahead
	if got := r.must(200, "GET", fmt.Sprintf("%s?at=%d", path, now+3000), "").field("room"); got != "r3" {
		t.Error(got)
	}
	r.must(422, "GET", fmt.Sprintf("%s?at=%d", path, now+3001), "")
	r.must(304, "GET", fmt.Sprintf("%s?at=%d", path, now), "", "If-None-Match", `"1"`)
	r.must(412, "GET", fmt.Sprintf("%s?at=%d", path, now), "", "If-Match", `"2"`)
}

func TestAHistoryThatCannotBeRead(t *testing.T) {
	r := newRig(t)
	id := r.create(`{}`)
	for i := range 3 {
		r.must(200, "PATCH", "/chat-sessions/"+id, fmt.Sprintf(`{"room":"r%d"}`, i))
	}
	path := "/chat-sessions/" + id + "/events"
	r.failing("event 2", eventError{2})
	if got := r.must(503, "GET", path, ""); !strings.Contains(got.field("detail"), "event 2 of the log") || !strings.Contains(got.field("detail"), "before position 3") || !strings.Contains(got.field("detail"), path+"?after=2, ") || got.Header.Get("Retry-After") != "3600" {
		t.Error(got.body)
	}
	if got := r.must(200, "GET", path+"?after=2", "").events(t); got != "3 4" {
		t.Error(got)
	}
	r.failing("event 4", eventError{4})
	if got := r.must(503, "GET", path, ""); !strings.HasSuffix(got.field("detail"), "(position 4)") || got.field("message") != got.field("detail") || got.Header.Get("Retry-After") != "3600" {
		t.Error(got.body)
	}
	r.failing("event 4", errors.New("a defect"))
	r.must(500, "GET", path, "")
	r.failing("event 4", nil)
	r.failing("AwaitEverywhere", domain.ErrUnavailable)
	r.must(503, "GET", path, "")
	r.failing("AwaitEverywhere", nil)
	r.failing("History", domain.ErrUnavailable)
	if got := r.must(503, "GET", path, ""); got.Header.Get("Retry-After") != "1" {
		t.Error(got.body)
	}
}

// stream opens the feed as alice, and returns the head of the response too.
func (r *rig) stream(query string, headers ...string) (response, *feedtest.Stream) {
	r.t.Helper()
	request, err := http.NewRequestWithContext(r.t.Context(), "GET", r.url+"/chat-sessions/events"+query, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer dev-account-alice")
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Add(headers[i], headers[i+1])
	}
	got, err := r.client.Do(request)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { got.Body.Close() })
	return response{Response: got}, feedtest.NewStream(got.Body)
}

func TestTheFeedStartsWhereItIsAsked(t *testing.T) {
	for _, tt := range []struct {
		query   string
		headers []string
		first   string
	}{
		{"", nil, "4"}, {"?after=1", nil, "2"}, {"?after=%232", nil, "3"}, {"?after=0", []string{"Last-Event-ID", "2"}, "3"}, {"?after=1", []string{"Last-Event-ID", ""}, "2"}, {"?after=3", nil, "4"},
	} {
		r := newRig(t)
		for range 3 {
			r.create(`{}`)
		}
		got, stream := r.stream(tt.query, tt.headers...)
		if got.StatusCode != 200 || got.Header.Get("Content-Type") != "text/event-stream" || got.Header.Get("Cache-Control") != "no-store" || got.Header.Get("X-Accel-Buffering") != "no" || got.ContentLength != -1 || len(got.TransferEncoding) > 0 {
			t.Errorf("%s: %d %v", tt.query, got.StatusCode, got.Header)
		}
		if _, _, err := stream.Step(); err != nil || stream.Retry < time.Second || stream.Retry >= 3*time.Second || stream.Comments != 1 {
			t.Errorf("%s: %v, retry %s", tt.query, err, stream.Retry)
		}
		r.create(`{}`)
		if e, err := stream.Next(); err != nil || e.ID != tt.first {
			t.Errorf("%s %v: %+v %v, want %s", tt.query, tt.headers, e, err, tt.first)
		}
	}
}

func TestTheFeedIsRefused(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxReaders = 2 })
	for range 3 {
		r.create(`{}`)
	}
	for _, headers := range [][]string{{"Last-Event-ID", "x"}, {"Last-Event-ID", "-1"}, {"Last-Event-ID", "1", "Last-Event-ID", "2"}} {
		if got := r.must(400, "GET", "/chat-sessions/events", "", headers...); !strings.Contains(got.field("detail"), "not a position") {
			t.Error(got.body)
		}
	}
	if got := r.must(409, "GET", "/chat-sessions/events?after=4", ""); got.field("logEnd") != "3" || !strings.Contains(got.field("detail"), "ends at position 3") {
		t.Error(got.body)
	}
	if got := r.must(200, "HEAD", "/chat-sessions/events", ""); got.Header.Get("Content-Type") != "text/event-stream" {
		t.Error(got.Header)
	}
	r.stream("")
	r.stream("")
	eventually(t, "two readers are there", func() bool { return r.server.Stats().Feed.Readers == 2 })
	if got := r.must(503, "GET", "/chat-sessions/events", ""); !strings.Contains(got.field("detail"), "limit of 2 readers") {
		t.Error(got.body)
	}
	r.failing("End", domain.ErrUnavailable)
	r.must(503, "GET", "/chat-sessions/events", "")
	if got := r.do("GET", "/chat-sessions/events?after=2", ""); got.StatusCode != 503 || !strings.Contains(got.body, "limit of 2 readers") {
		t.Errorf("a position that was read needs no end of the log: %s", got.body)
	}
}
