package domain_test

import (
	"encoding/json"
	"strings"
	"testing"

	"chatsessions/domain"
)

// TestARecordGivesTheBytesOfTheLog if it has them, and writes the session if not.
func TestARecordGivesTheBytesOfTheLog(t *testing.T) {
	_, events := life(t)
	r := recorded(events[0])
	if got, want := string(r.JSON()), string(events[0].Session.AppendJSON(nil)); got != want {
		t.Errorf("written: %s, want %s", got, want)
	}
	r.Encoded = []byte(`{"from":"the log"}`)
	if got := string(r.JSON()); got != `{"from":"the log"}` {
		t.Errorf("from the log: %s", got)
	}
}

func TestFoldingChanges(t *testing.T) {
	const before = `{"id":"s1","createdAt":1,"createdBy":"pat","room":"r1","participants":["doc"],"state":"created","version":1,"updatedAt":1}`
	for changes, want := range map[string]string{
		`{}`:                      before,
		`{"room":"r2"}`:           strings.Replace(before, "r1", "r2", 1),
		`{"room":null}`:           strings.Replace(before, `"room":"r1",`, "", 1),
		`{"participants":["a"]}`:  strings.Replace(before, "doc", "a", 1), // arrays are replaced, not merged
		`{"type":null,"title":7}`: before,                                 // members that are not there
		`[]`:                      "changes of chat-session.updated: ",
		`{"room":`:                "changes of chat-session.updated: ",
		`{"room":7}`:              "session after chat-session.updated: ",
	} {
		var s domain.Session
		decode(t, before, &s)
		after, err := domain.Apply(s, domain.Event{Type: domain.EventUpdated, Changes: json.RawMessage(changes)})
		got := string(after.AppendJSON(nil))
		if err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, want) || err == nil && got != want {
			t.Errorf("%s: %s, want %s", changes, got, want)
		}
	}
	none, err := domain.Apply(domain.Session{}, domain.Event{Type: domain.EventCreated, Changes: json.RawMessage(before)})
	if err != nil || string(none.AppendJSON(nil)) != before {
		t.Errorf("the first event: %+v, %v", none, err)
	}
}

// TestQuotedTexts pins the escapes, which are part of the storage format.
func TestQuotedTexts(t *testing.T) {
	for text, want := range map[string]string{
		"":                         `""`,
		"plain ~ text":             `"plain ~ text"`,
		"\x7f":                     "\"\x7f\"",
		`a"b\c`:                    `"a\"b\\c"`,
		"a\nb\rc\td":               `"a\nb\rc\td"`,
		"\x00\x1f":                 `"\u0000\u001f"`,
		"\x0a\x1e":                 `"\n\u001e"`,
		"zażółć \U0001d11e \u2028": "\"zażółć \U0001d11e \u2028\"",
		"</script>&":               `"</script>&"`,
		"a\xffb":                   "\"a\ufffdb\"",
		"\"quoted\"":               `"\"quoted\""`,
		"\x80":                     "\"\ufffd\"",
		"\\plain":                  `"\\plain"`,
	} {
		if got := string(domain.AppendQuoted([]byte("x"), text)); got != "x"+want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}
