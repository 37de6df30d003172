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
						p := refused(auditor, 404, "GET", target, "")
						if detail := fmt.Sprint(p["detail"]); !strings.Contains(detail, "recorded at "+rfc3339(first)) || !strings.Contains(detail, "at "+rfc3339(at)) {
							t.Errorf("%s: %s", target, detail)
						}
						continue
					}
					a := auditor.Expect(200, "GET", target, "")
					if got := toJSON(a.Object(t)); got != toJSON(want) || a.Header.Get("ETag") != fmt.Sprintf(`"%v"`, want["version"]) ||
						a.Header.Get("Cache-Control") != "private, no-cache" || a.Header.Get("Content-Type") != "application/json" {
						t.Errorf("%s: %s %v, want %s", target, a.Body, a.Header, toJSON(want))
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
