package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"chatsessions/projections/redistest"
)

// TestWhatCannotBeReadIsNamedAndTheRestIsTold: a message that is no event ends a history
// there, whoever wrote it.
func TestWhatCannotBeReadIsNamedAndTheRestIsTold(t *testing.T) {
	onAllSetups(t, func(t *testing.T, s *service) {
		path := fullLife(t, s)
		subject := "chat-sessions." + idOf(path)
		before := eventsOf(s.log(), path)
		auditor := s.as("auditor-eve")

		foreign := s.publish(&nats.Msg{Subject: subject, Data: []byte(`{"secret": "x"}`)})
		for _, target := range []string{path + "/events", path + "?at=" + fmt.Sprint(nowMillis()), path + "/events?after=3"} {
			a := auditor.expect(503, "GET", target, "")
			if detail := fmt.Sprint(a.problem(t, target)["detail"]); !strings.Contains(detail, fmt.Sprintf("(position %d)", foreign)) || !strings.Contains(detail, "chatsessions parked") ||
				strings.Contains(detail, "secret") || a.header.Get("Retry-After") != "3600" {
				t.Errorf("GET %s: %s, Retry-After: %s", target, detail, a.header.Get("Retry-After"))
			}
		}

		// A later event brings the session back; then its history begins there.
		mended := &nats.Msg{Subject: subject, Header: nats.Header{}, Data: mend(t, before[len(before)-1])}
		maps.Copy(mended.Header, before[len(before)-1].header)
		for name := range mended.Header {
			if !strings.HasPrefix(name, "ce-") {
				delete(mended.Header, name)
			}
		}
		mended.Header["ce-id"] = []string{"01a20000-0000-7000-8000-000000000000"}
		mended.Header["ce-sessionversion"] = []string{fmt.Sprint(len(before) + 1)}
		mended.Header["ce-previous"] = []string{fmt.Sprint(foreign)}
		back := s.publish(mended)
		// The service remembers the session without either of them.
		s.as("service-crm").patch(path, `{"room": "it goes on"}`)
		for _, target := range []string{path + "/events", path + "/events?after=2", path + "?at=" + fmt.Sprint(recordedAt(before[0]))} {
			a := auditor.expect(503, "GET", target, "")
			detail := fmt.Sprint(a.problem(t, target)["detail"])
			rest := fmt.Sprintf("%s/events?after=%d", path, back-1)
			if !strings.Contains(detail, fmt.Sprintf("event %d ", foreign)) || !strings.Contains(detail, "position "+fmt.Sprint(back)) || !strings.Contains(detail, rest) ||
				strings.Contains(detail, "secret") || a.header.Get("Retry-After") != "3600" {
				t.Errorf("GET %s: %s", target, detail)
			}
			if told := auditor.expect(200, "GET", rest, "").list(t); len(told) != 2 || told[0]["position"] != float64(back) {
				t.Errorf("the rest is %v", told)
			}
			s.as("account-eve").refused(404, "GET", target, "")
		}
		has(t, auditor.get(path+"?at="+fmt.Sprint(nowMillis())), members{"version": len(before) + 2, "room": "it goes on"})
	})
}

// mend returns the data of an event that changes nothing but the version.
func mend(t *testing.T, e event) []byte {
	t.Helper()
	session := maps.Clone(e.session)
	session["version"] = session["version"].(float64) + 1
	data, err := json.Marshal(map[string]any{"changes": map[string]any{"version": session["version"]}, "session": session})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestWithoutRedisThePastIsToldFromTheLog(t *testing.T) {
	onRealRedis(t, func(t *testing.T, s *service, redis *redistest.Server) {
		path := fullLife(t, s)
		redis.Kill()
		a := s.as("service-crm").expect(200, "PATCH", path, `{"room": "without"}`)
		events := eventsOf(s.log(), path)
		checkPlainHistory(t, s.as("account-alice").expect(200, "GET", path+"/events", "", "Chat-Sessions-Position: "+a.header.Get("Chat-Sessions-Position")), events)
		has(t, s.as("account-alice").get(fmt.Sprint(path, "?at=", recordedAt(events[1]))), members{"state": "started", "version": 2})
		s.as("account-eve").refused(404, "GET", path+"/events", "")
		s.as("account-alice").refused(404, "GET", nobody+"/events", "")
	})
}

func TestWithoutNATSThePastIsNotTold(t *testing.T) {
	servers := startServers(t)
	s := startService(t, servers.flags()...)
	path := fullLife(t, s)
	servers.nats.Pause()
	targets := []string{path + "/events", path + "/events?$limit=1", path + "?at=5", nobody + "/events", path + "/events?after=3"}
	began := time.Now()
	atOnce(t, 2*len(targets), func(i int) error {
		headers := []string{}
		if i >= len(targets) {
			headers = append(headers, "Chat-Sessions-Position: 1")
		}
		a, err := s.as("auditor-eve").do("GET", targets[i%len(targets)], "", headers...)
		if err != nil || a.status != 503 || a.header.Get("Retry-After") != "1" {
			return a.instead(err)
		}
		return nil
	})
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("that took %s", took)
	}
	servers.nats.Resume()
	eventually(t, func() error {
		if a, err := s.as("auditor-eve").do("GET", targets[0], ""); err != nil || a.status != 200 || len(a.list(t)) != 7 {
			return a.instead(err)
		}
		return nil
	})
}

// TestAHistoryShowsEveryAnsweredWriteOnAnyNode, and no node shows less afterwards.
func TestAHistoryShowsEveryAnsweredWriteOnAnyNode(t *testing.T) {
	onSeveralNodes(t, func(t *testing.T, nodes []*service) {
		atOnce(t, 40, func(i int) error {
			writer, reader := nodes[i%2].as("service-crm"), nodes[(i+1)%2].as("auditor-eve")
			written, err := writer.do("POST", "/chat-sessions", `{"room": "r"}`)
			path := written.header.Get("Location")
			for version := 1; version <= 5; version++ {
				if err != nil || written.status != 200 {
					return written.instead(err)
				}
				told, err := reader.do("GET", path+"/events", "")
				if err != nil || told.status != 200 || strings.Count(string(told.body), `"session":{`) != version {
					return told.instead(err)
				}
				if now, err := writer.do("GET", path, ""); err != nil || now.status != 200 || string(now.body) != string(written.body) {
					return now.instead(err)
				}
				written, err = writer.do("PATCH", path, fmt.Sprintf(`{"room": "r%d"}`, version))
				if err != nil {
					return err
				}
			}
			return nil
		})
	})
}
