package contract

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"chatsessions/cmd/systemtest/rig"
)

const batchType = "application/cloudevents-batch+json"

// eventsOf are those events of a log that are a session's, oldest first.
func eventsOf(log []rig.Event, path string) []rig.Event {
	var events []rig.Event
	for _, e := range log {
		if e.Subject == "chat-sessions."+idOf(path) {
			events = append(events, e)
		}
	}
	return events
}

// fullLife makes a session with an event of every kind, several of them in one write
// and some with stamps in the past, and returns its path.
func fullLife(t *testing.T, s *rig.Service) string {
	t.Helper()
	alice, bob, crm := s.As("account-alice"), s.As("account-bob"), s.As("service-crm")
	path := alice.Create(fmt.Sprintf(`{"createdAt": %d, "participants": ["bob"], "room": "Grüße & <b> \"4\""}`, longAgo))
	patch(alice, path, fmt.Sprintf(`{"startedAt": %d}`, longAgo+5000))
	patch(bob, path, `{"accept": true}`, "Idempotency-Key: once", "X-Request-Id: of-bob")
	patch(crm, path, fmt.Sprintf(`{"startedAt": %d, "room": null, "type": "telemed", "finish": "done"}`, longAgo+1000))
	patch(crm, path, `{"finishReason": "all done"}`)
	return path
}

func TestAHistoryTellsEveryEvent(t *testing.T) {
	rig.OnAllSetups(t, func(t *testing.T, s *rig.Service) {
		imported, lively, created := reach(s, t, "alice", "rejected"), fullLife(t, s), s.As("account-alice").Create(`{}`)
		kinds := map[any]bool{}
		log := s.Log()
		for path, want := range map[string]int{imported: 3, lively: 7, created: 1} {
			events := eventsOf(log, path)
			if len(events) != want {
				t.Fatalf("%s has %d events, want %d", path, len(events), want)
			}
			plain := s.As("auditor-eve").Expect(200, "GET", path+"/events", "")
			batch := s.As("auditor-eve").Expect(200, "GET", path+"/events", "", "Accept: "+batchType)
			checkPlainHistory(t, plain, events)
			checkFold(t, plain)
			checkBatch(t, batch, events)
			for _, e := range plain.List(t) {
				kinds[e["type"]] = true
			}
		}
		if len(kinds) != 7 {
			t.Errorf("the histories have events of %d kinds, %v; there are 7", len(kinds), kinds)
		}
	})
}

// checkPlainHistory compares a history with what a subscriber reads.
func checkPlainHistory(t *testing.T, a rig.Answer, events []rig.Event) {
	t.Helper()
	shown := a.List(t)
	if len(shown) != len(events) || a.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("%d of %d events as %s: %s", len(shown), len(events), a.Header.Get("Content-Type"), a.Body)
	}
	for i, e := range events {
		version, _ := strconv.ParseFloat(attribute(t, e, "ce-sessionversion"), 64)
		want := map[string]any{
			"position": float64(e.Sequence), "id": attribute(t, e, "ce-id"), "type": attribute(t, e, "ce-type"), "time": attribute(t, e, "ce-time"),
			"actor": attribute(t, e, "ce-actor"), "correlationId": attribute(t, e, "ce-correlationid"), "version": version, "changes": e.Changes, "session": e.Session,
		}
		if !reflect.DeepEqual(shown[i], want) {
			t.Fatalf("event %d is told as\n%v, and it is\n%v", i, shown[i], want)
		}
	}
}

// checkFold applies the changes of a whole history one after the other.
func checkFold(t *testing.T, a rig.Answer) {
	t.Helper()
	session := map[string]any{}
	for i, e := range a.List(t) {
		for name, value := range e["changes"].(map[string]any) {
			session[name] = value
			if value == nil {
				delete(session, name)
			}
		}
		if !reflect.DeepEqual(session, e["session"]) {
			t.Fatalf("up to event %d the changes come to %v, and the session is %v", i, session, e["session"])
		}
	}
}

// checkBatch compares a history as CloudEvents with what a subscriber reads: attributes
// for headers.
func checkBatch(t *testing.T, a rig.Answer, events []rig.Event) {
	t.Helper()
	shown := a.List(t)
	if len(shown) != len(events) || a.Header.Get("Content-Type") != batchType {
		t.Fatalf("%d of %d events as %s: %s", len(shown), len(events), a.Header.Get("Content-Type"), a.Body)
	}
	for i, e := range events {
		want := map[string]any{"position": strconv.FormatUint(e.Sequence, 10), "data": map[string]any{"changes": e.Changes, "session": e.Session}}
		for name := range e.Header {
			if extension, ok := strings.CutPrefix(name, "ce-"); ok || name == "traceparent" {
				want[extension] = attribute(t, e, name)
			}
		}
		version, _ := strconv.ParseFloat(attribute(t, e, "ce-sessionversion"), 64)
		want["sessionversion"] = version
		if want["previous"] == "0" { // the one before in the same write
			want["previous"] = strconv.FormatUint(e.Sequence-1, 10)
		}
		if !reflect.DeepEqual(shown[i], want) {
			t.Fatalf("event %d is told as\n%v, and it is\n%v", i, shown[i], want)
		}
	}
}

// attribute is a header of the event, decoded; "" where there is none.
func attribute(t *testing.T, e rig.Event, name string) string {
	t.Helper()
	value, err := url.PathUnescape(strings.Join(e.Header[name], ","))
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// TestWhoSeesASessionNowSeesAllOfItsPast, and who does not sees nothing of it, whatever
// he saw before.
func TestWhoSeesASessionNowSeesAllOfItsPast(t *testing.T) {
	s := rig.Start(t, "--dev")
	alice, bob, carl := s.As("account-alice"), s.As("account-bob"), s.As("account-carl")
	path := alice.Create(`{"participants": ["bob"]}`)
	created := number(t, alice.Get(path), "updatedAt")
	sees := func(when string, version int, those ...*rig.Client) {
		t.Helper()
		for _, c := range []*rig.Client{alice, bob, carl, s.As("account-eve"), s.As("service-eve"), s.As("auditor-eve"), s.As("admin-eve")} {
			asked := []string{path + "/events", path + "/events?$limit=1", path + "/events?after=999", fmt.Sprint(path, "?at=", created), path + "?at=5", fmt.Sprint(path, "?at=", nowMillis()+3_600_000)}
			if !strings.HasSuffix(c.Token, "-eve") || c.Token == "dev-account-eve" {
				if !slices.Contains(those, c) {
					seesNothing(c, asked)
					continue
				}
			}
			if got := c.Expect(200, "GET", asked[0], "").List(t); len(got) != version {
				t.Errorf("%s, %s is told %d events, there are %d", when, c.Token, len(got), version)
			}
			has(t, c.Get(asked[3]), members{"version": 1, "participants": []string{"bob"}})
			refused(c, 404, "GET", asked[4], "")
			refused(c, 422, "GET", asked[5], "")
		}
	}
	sees("at first", 1, alice, bob)
	patch(alice, path, `{"participants": ["carl"]}`)
	sees("when bob has left", 2, alice, carl)
	patch(carl, path, `{"participants": ["bob", "carl"]}`)
	sees("when bob is back", 3, alice, bob, carl)
	patch(alice, path, `{"participants": []}`)
	sees("when all have left", 4, alice)
}

// seesNothing checks that targets look as those of a session that does not exist.
func seesNothing(c *rig.Client, targets []string) {
	c.T.Helper()
	for _, target := range targets {
		unknown := rig.NoSession + strings.TrimPrefix(target, target[:len(rig.NoSession)])
		for _, headers := range [][]string{nil, {"If-None-Match: *"}, {`If-Match: "0"`}, {"Accept: " + batchType}} {
			got, want := refused(c, 404, "GET", target, "", headers...), refused(c, 404, "GET", unknown, "", headers...)
			got["instance"], want["instance"] = "", ""
			if toJSON(got) != toJSON(want) {
				c.T.Errorf("GET %s %v: told apart from what does not exist: %v and %v", target, headers, got, want)
			}
		}
		if a := c.Expect(404, "HEAD", target, ""); a.Header.Get("Etag") != "" || a.Header.Get("Link") != "" {
			c.T.Errorf("HEAD %s tells %v", target, a.Header)
		}
	}
}

// TestALongHistoryIsToldWholeOrInPages, also to many at once, and pages stay what they
// are while the session goes on.
func TestALongHistoryIsToldWholeOrInPages(t *testing.T) {
	s := rig.Start(t, "--dev")
	const size = 1200
	crm, auditor := s.As("service-crm"), s.As("auditor-eve")
	path := writeLongHistory(s, size)
	// A machine that has much else to do may need more than the 5 s that one request has.
	ask := func(query string) (a rig.Answer, err error) {
		for deadline := time.Now().Add(2 * rig.Patience); ; {
			a, err = auditor.Do("GET", path+"/events"+query, "")
			if err != nil || a.Status != 503 || !strings.Contains(string(a.Body), "too long") || time.Now().After(deadline) {
				return a, err
			}
		}
	}
	shown := func(query string) rig.Answer {
		t.Helper()
		a, err := ask(query)
		if err != nil || a.Status != 200 {
			t.Fatal(a.Instead(err))
		}
		return a
	}
	began := time.Now()
	whole := shown("")
	took := time.Since(began)
	events := eventsOf(s.Log(), path)
	if len(events) != size {
		t.Fatalf("there are %d events", len(events))
	}
	checkPlainHistory(t, whole, events)
	checkFold(t, whole)
	t.Logf("%d events, %d bytes in %s", size, len(whole.Body), took)
	has(t, auditor.Get(path+"?at="+fmt.Sprint(recordedAt(events[0]))), members{"version": 1, "room": "room 1"})

	var paged []json.RawMessage
	next := path + "/events?$limit=350"
	for pages := 1; next != ""; pages++ {
		a := auditor.Expect(200, "GET", next, "")
		var page []json.RawMessage
		if err := json.Unmarshal(a.Body, &page); err != nil || len(page) == 0 || pages < 4 && len(page) != 350 || pages > 4 {
			t.Fatalf("page %d, %s, has %d events: %v", pages, next, len(page), err)
		}
		paged = append(paged, page...)
		link, found := strings.CutPrefix(a.Header.Get("Link"), "<")
		if next, _, _ = strings.Cut(link, `>; rel="next"`); found != (pages < 4) {
			t.Errorf("page %d has the link %q", pages, link)
		}
		patch(crm, path, fmt.Sprintf(`{"room": "page %d"}`, pages))
	}
	now := shown("")
	var all []json.RawMessage
	if err := json.Unmarshal(now.Body, &all); err != nil {
		t.Fatal(err)
	}
	same(t, "paged", texts(paged), texts(all[:size+3])) // the last one was written behind the last page

	events = eventsOf(s.Log(), path)
	for _, tt := range []struct {
		query       string
		first, last int // as numbers of events
	}{
		{fmt.Sprint("after=", events[499].Sequence), 500, len(events)},
		{fmt.Sprint("after=", events[499].Sequence, "&$limit=3"), 500, 503},
		{"$limit=1", 0, 1}, {"$limit=0", 0, 0}, {"after=0", 0, len(events)},
		{fmt.Sprint("after=", events[len(events)-1].Sequence), 0, 0}, {"after=8640000000000000", 0, 0},
	} {
		checkPlainHistory(t, shown("?"+tt.query), events[tt.first:tt.last])
	}
	rig.AtOnce(t, 8, func(int) error {
		a, err := ask("")
		if err != nil || string(a.Body) != string(now.Body) {
			return a.Instead(err)
		}
		return nil
	})
}

// writeLongHistory writes a session with so many events into an empty log, as the service
// would have, and returns its path.
func writeLongHistory(s *rig.Service, size int) string {
	s.T.Helper()
	js := s.JetStream()
	const id = "01a20000-0000-7000-8000-000000000001"
	session := members{"id": id, "createdAt": longAgo, "createdBy": "alice", "state": "created"}
	typ, first := "chat-session.created", nowMillis()-int64(size)
	for version := 1; version <= size; version++ {
		changes := members{"version": version, "updatedAt": first + int64(version), "room": fmt.Sprintf("room %d", version)}
		maps.Copy(session, changes)
		m := &nats.Msg{Subject: "chat-sessions." + id, Header: nats.Header{
			"ce-specversion": {"1.0"}, "ce-id": {fmt.Sprintf("01a20000-0000-7000-8001-%012x", version)}, "ce-source": {"/chat-sessions"},
			"ce-type": {typ}, "ce-subject": {id}, "ce-time": {rfc3339(first + int64(version))}, "ce-datacontenttype": {"application/json"},
			"ce-dataschema": {"/chat-sessions/events/schemas/" + typ + ".json"}, "ce-sessionversion": {strconv.Itoa(version)},
			"ce-actor": {"alice"}, "ce-correlationid": {"r" + strconv.Itoa(version)}, "traceparent": {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"},
		}}
		if version == 1 {
			changes = session
		} else {
			m.Header["ce-previous"] = []string{strconv.Itoa(version - 1)}
		}
		m.Data = []byte(toJSON(members{"changes": changes, "session": session}))
		if _, err := js.PublishMsgAsync(m); err != nil {
			s.T.Fatal(err)
		}
		typ = "chat-session.updated"
	}
	<-js.PublishAsyncComplete()
	return "/chat-sessions/" + id
}

func texts(list []json.RawMessage) []string {
	var texts []string
	for _, element := range list {
		texts = append(texts, string(element))
	}
	return texts
}
