package contract

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"chatsessions/cmd/systemtest/rig"
	"chatsessions/projections/redistest"
)

// TestWhatCannotBeReadIsNamedAndTheRestIsTold: a message that is no event ends a history
// there, whoever wrote it.
func TestWhatCannotBeReadIsNamedAndTheRestIsTold(t *testing.T) {
	rig.OnAllSetups(t, func(t *testing.T, s *rig.Service) {
		path := fullLife(t, s)
		subject := "chat-sessions." + idOf(path)
		before := eventsOf(s.Log(), path)
		auditor := s.As("auditor-eve")

		foreign := s.Publish(&nats.Msg{Subject: subject, Data: []byte(`{"secret": "x"}`)})
		for _, target := range []string{path + "/events", path + "?at=" + fmt.Sprint(nowMillis()), path + "/events?after=3"} {
			a := auditor.Expect(503, "GET", target, "")
			if detail := fmt.Sprint(problemIn(t, a, target)["detail"]); !strings.Contains(detail, fmt.Sprintf("(position %d)", foreign)) || !strings.Contains(detail, "chatsessions parked") ||
				strings.Contains(detail, "secret") || a.Header.Get("Retry-After") != "3600" {
				t.Errorf("GET %s: %s, Retry-After: %s", target, detail, a.Header.Get("Retry-After"))
			}
		}

		// A later event brings the session back; then its history begins there.
		mended := &nats.Msg{Subject: subject, Header: nats.Header{}, Data: mend(t, before[len(before)-1])}
		maps.Copy(mended.Header, before[len(before)-1].Header)
		for name := range mended.Header {
			if !strings.HasPrefix(name, "ce-") {
				delete(mended.Header, name)
			}
		}
		mended.Header["ce-id"] = []string{"01a20000-0000-7000-8000-000000000000"}
		mended.Header["ce-sessionversion"] = []string{fmt.Sprint(len(before) + 1)}
		mended.Header["ce-previous"] = []string{fmt.Sprint(foreign)}
		back := s.Publish(mended)
		// The service remembers the session without either of them.
		patch(s.As("service-crm"), path, `{"room": "it goes on"}`)
		for _, target := range []string{path + "/events", path + "/events?after=2", path + "?at=" + fmt.Sprint(recordedAt(before[0]))} {
			a := auditor.Expect(503, "GET", target, "")
			detail := fmt.Sprint(problemIn(t, a, target)["detail"])
			rest := fmt.Sprintf("%s/events?after=%d", path, back-1)
			if !strings.Contains(detail, fmt.Sprintf("event %d ", foreign)) || !strings.Contains(detail, "position "+fmt.Sprint(back)) || !strings.Contains(detail, rest) ||
				strings.Contains(detail, "secret") || a.Header.Get("Retry-After") != "3600" {
				t.Errorf("GET %s: %s", target, detail)
			}
			if shown := auditor.Expect(200, "GET", rest, "").List(t); len(shown) != 2 || shown[0]["position"] != float64(back) {
				t.Errorf("the rest is %v", shown)
			}
			refused(s.As("account-eve"), 404, "GET", target, "")
		}
		has(t, auditor.Get(path+"?at="+fmt.Sprint(nowMillis())), members{"version": len(before) + 2, "room": "it goes on"})
	})
}

// mend returns the data of an event that changes nothing but the version.
func mend(t *testing.T, e rig.Event) []byte {
	t.Helper()
	session := maps.Clone(e.Session)
	session["version"] = session["version"].(float64) + 1
	data, err := json.Marshal(map[string]any{"changes": map[string]any{"version": session["version"]}, "session": session})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestWithoutRedisThePastIsToldFromTheLog(t *testing.T) {
	rig.OnRealRedis(t, func(t *testing.T, s *rig.Service, redis *redistest.Server) {
		path := fullLife(t, s)
		redis.Kill()
		a := s.As("service-crm").Expect(200, "PATCH", path, `{"room": "without"}`)
		events := eventsOf(s.Log(), path)
		checkPlainHistory(t, s.As("account-alice").Expect(200, "GET", path+"/events", "", "Chat-Sessions-Position: "+a.Header.Get("Chat-Sessions-Position")), events)
		has(t, s.As("account-alice").Get(fmt.Sprint(path, "?at=", recordedAt(events[1]))), members{"state": "started", "version": 2})
		refused(s.As("account-eve"), 404, "GET", path+"/events", "")
		refused(s.As("account-alice"), 404, "GET", rig.NoSession+"/events", "")
	})
}

func TestWithoutNATSThePastIsNotTold(t *testing.T) {
	servers := rig.StartServers(t)
	s := rig.Start(t, servers.Flags()...)
	path := fullLife(t, s)
	servers.NATS.Pause()
	targets := []string{path + "/events", path + "/events?$limit=1", path + "?at=5", rig.NoSession + "/events", path + "/events?after=3"}
	began := time.Now()
	rig.AtOnce(t, 2*len(targets), func(i int) error {
		headers := []string{}
		if i >= len(targets) {
			headers = append(headers, "Chat-Sessions-Position: 1")
		}
		a, err := s.As("auditor-eve").Do("GET", targets[i%len(targets)], "", headers...)
		if err != nil || a.Status != 503 || a.Header.Get("Retry-After") != "1" {
			return a.Instead(err)
		}
		return nil
	})
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("that took %s", took)
	}
	servers.NATS.Resume()
	rig.Eventually(t, func() error {
		if a, err := s.As("auditor-eve").Do("GET", targets[0], ""); err != nil || a.Status != 200 || len(a.List(t)) != 7 {
			return a.Instead(err)
		}
		return nil
	})
}
