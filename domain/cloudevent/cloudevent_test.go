package cloudevent_test

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"chatsessions/domain"
	"chatsessions/domain/cloudevent"
)

const recordID = "0192f5c6-3c00-7000-8000-0000000000ff"

// record is an event of the log: the creation of a session in a room.
func record(t testing.TB, room string) *domain.Record {
	t.Helper()
	events, err := domain.Decide(domain.Session{}, domain.Create{
		ID: "0192f5c6-3c00-7000-8000-000000000001", By: domain.Caller{Account: "pat", Role: domain.RoleAccount},
		Now: 1732000000123, Values: domain.Values{Room: &room},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &domain.Record{
		Position: 42, ID: recordID, Event: events[0],
		Time: time.UnixMilli(1732000000123).In(time.FixedZone("", 3600)),
	}
}

const recordData = `"changes":{"id":"0192f5c6-3c00-7000-8000-000000000001","createdAt":1732000000123,"createdBy":"pat","room":"one","state":"created","version":1,"updatedAt":1732000000123},` +
	`"session":{"id":"0192f5c6-3c00-7000-8000-000000000001","createdAt":1732000000123,"createdBy":"pat","room":"one","state":"created","version":1,"updatedAt":1732000000123}`

// TestAnEventAsCloudEvent, with everything that it can have and with as little. An
// attribute without a value is absent: CloudEvents has no empty ones.
func TestAnEventAsCloudEvent(t *testing.T) {
	const common = `{"specversion":"1.0","id":"` + recordID + `","source":"/chat-sessions","type":"chat-session.created",` +
		`"subject":"0192f5c6-3c00-7000-8000-000000000001","time":"2024-11-19T07:06:40.123Z","datacontenttype":"application/json",` +
		`"dataschema":"urn:chat-sessions:events/schemas/chat-session.created.json","sessionversion":1,"position":"42",`
	r := record(t, "one")
	if got, want := string(cloudevent.Append(nil, r)), common+`"data":{`+recordData+`}}`; got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	r.Previous = 41
	r.Request = domain.Request{Actor: "pat", CorrelationID: "request 1", Key: "ab", Digest: "cd", TraceParent: "00-1-2-00"}
	if got, want := string(cloudevent.Append(nil, r)), common+`"previous":"41","actor":"pat","correlationid":"request 1",`+
		`"requestkey":"ab","requestdigest":"cd","traceparent":"00-1-2-00","data":{`+recordData+`}}`; got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// TestAnEventInAHistory, with a caller and a request and without.
func TestAnEventInAHistory(t *testing.T) {
	const common = `{"position":42,"id":"` + recordID + `","type":"chat-session.created","time":"2024-11-19T07:06:40.123Z",`
	r := record(t, "one")
	if got, want := string(cloudevent.AppendHistory(nil, r)), common+`"version":1,`+recordData+`}`; got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	r.Previous = 41
	r.Request = domain.Request{Actor: "pat", CorrelationID: "request 1", Key: "ab", Digest: "cd", TraceParent: "00-1-2-00"}
	if got, want := string(cloudevent.AppendHistory(nil, r)), common+`"actor":"pat","correlationId":"request 1","version":1,`+recordData+`}`; got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// TestNamesOfSchemas are in every event of the log.
func TestNamesOfSchemas(t *testing.T) {
	if got := cloudevent.Schema(domain.EventAccepted); got != "urn:chat-sessions:events/schemas/chat-session.accepted.json" {
		t.Error(got)
	}
	if got := cloudevent.SchemaPath(domain.EventAccepted); got != "/chat-sessions/events/schemas/chat-session.accepted.json" {
		t.Error(got)
	}
}

// TestAnEventIsAppended behind what is there, and with the session's bytes as the log
// has them.
func TestAnEventIsAppended(t *testing.T) {
	r := record(t, "one")
	for name, write := range map[string]func([]byte, *domain.Record) []byte{"Append": cloudevent.Append, "AppendHistory": cloudevent.AppendHistory} {
		alone := string(write(nil, r))
		if got := string(write([]byte("[1,"), r)); got != "[1,"+alone {
			t.Errorf("%s behind something: %s", name, got)
		}
		r.Encoded = []byte(`{"from":"the log"}`)
		if got := string(write(nil, r)); !strings.Contains(got, `"session":{"from":"the log"}}`) || !json.Valid([]byte(got)) {
			t.Errorf("%s with the session's bytes: %s", name, got)
		}
		r.Encoded = nil
	}
}

// TestAPositionKeepsAllItsDigits: JavaScript's numbers have 53 bits, and an Integer of
// CloudEvents 32.
func TestAPositionKeepsAllItsDigits(t *testing.T) {
	r := record(t, "one")
	r.Position, r.Previous = math.MaxUint64, math.MaxUint64-1
	var event struct{ Position, Previous string }
	if err := json.Unmarshal(cloudevent.Append(nil, r), &event); err != nil || event.Position != "18446744073709551615" || event.Previous != "18446744073709551614" {
		t.Errorf("%+v, %v", event, err)
	}
	if got := string(cloudevent.AppendHistory(nil, r)); !strings.HasPrefix(got, `{"position":18446744073709551615,`) {
		t.Error(got)
	}
}

// TestAnyTextComesBackFromAnEvent, whatever it is that clients sent.
func TestAnyTextComesBackFromAnEvent(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		text := func(name string) string {
			return strings.ToValidUTF8(rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{
				"", `"`, `\`, "\x00\x1f\x7f", "\u2028\u2029", "</script>", "a\tb\r\nc", "𝄞 zażółć", "\uFFFD",
			})).Draw(rt, name), "\uFFFD")
		}
		r := record(t, "one")
		r.ID, r.Request.Actor, r.Request.CorrelationID = text("id"), text("actor"), text("correlation")
		r.Request.Key, r.Request.Digest, r.Request.TraceParent = text("key"), text("digest"), text("trace")
		r.Event.Type, r.Event.Session.Room = domain.EventType(text("type")), text("room")
		r.Position = rapid.Uint64().Draw(rt, "position")
		want := map[string]string{"id": r.ID, "type": string(r.Event.Type), "actor": r.Request.Actor}
		compare(rt, cloudevent.AppendHistory(nil, r), want, map[string]string{"correlationId": r.Request.CorrelationID}, r.Event.Session.Room)
		compare(rt, cloudevent.Append(nil, r), want, map[string]string{
			"correlationid": r.Request.CorrelationID, "requestkey": r.Request.Key, "requestdigest": r.Request.Digest,
			"traceparent": r.Request.TraceParent, "position": strconv.FormatUint(r.Position, 10), "dataschema": cloudevent.Schema(r.Event.Type),
		}, r.Event.Session.Room)
	})
}

// compare checks the texts in an event, of which the empty ones have to be absent.
func compare(t *rapid.T, event []byte, common, more map[string]string, room string) {
	var members map[string]any
	if err := json.Unmarshal(event, &members); err != nil {
		t.Fatalf("%q: %v", event, err)
	}
	for _, texts := range []map[string]string{common, more} {
		for name, text := range texts {
			var want any
			if text != "" {
				want = text
			}
			if !reflect.DeepEqual(members[name], want) {
				t.Errorf("%s is %q, want %q", name, fmt.Sprint(members[name]), text)
			}
		}
	}
	if data, ok := members["data"].(map[string]any); ok {
		members = data
	}
	if got, _ := members["session"].(map[string]any)["room"].(string); got != room {
		t.Errorf("the room is %q, want %q", got, room)
	}
}
