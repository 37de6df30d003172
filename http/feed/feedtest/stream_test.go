package feedtest_test

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"chatsessions/http/feed/feedtest"
)

// TestAStreamIsReadAsTheStandardSays has the examples of the HTML Living Standard,
// sections 9.2.5 and 9.2.6, among others.
func TestAStreamIsReadAsTheStandardSays(t *testing.T) {
	for _, tt := range []struct {
		text string
		want []feedtest.Event
		last string
	}{
		{"data: YHOO\ndata: +2\ndata: 10\n\n", []feedtest.Event{{"", "message", "YHOO\n+2\n10"}}, ""},
		{": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event",
			[]feedtest.Event{{"1", "message", "first event"}, {"", "message", "second event"}}, ""},
		{"data\n\ndata\ndata\n\ndata:", []feedtest.Event{{"", "message", ""}, {"", "message", "\n"}}, ""},
		{"data:test\n\ndata: test\n\n", []feedtest.Event{{"", "message", "test"}, {"", "message", "test"}}, ""},
		{"event: a\ndata: 1\n\nid: 7\n\ndata: 2\n\n", []feedtest.Event{{"", "a", "1"}, {"7", "message", "2"}}, "7"},
		{"retry: 1500\nid: 8\nevent: a\n\nid: 9\x00\n\n", nil, "8"},
		{"data: cut\nid: 5\n", nil, ""},
	} {
		s := feedtest.NewStream(strings.NewReader(tt.text))
		var got []feedtest.Event
		for {
			e, err := s.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			got = append(got, e)
		}
		if !slices.Equal(got, tt.want) || s.LastEventID != tt.last {
			t.Errorf("%q is %q with %q, want %q with %q", tt.text, got, s.LastEventID, tt.want, tt.last)
		}
		if strings.Contains(tt.text, "retry") && s.Retry != 1500*time.Millisecond {
			t.Errorf("%q: retry %s", tt.text, s.Retry)
		}
	}
}

func TestACarriageReturnIsNoEndOfALineOfTheService(t *testing.T) {
	if e, err := feedtest.NewStream(strings.NewReader("data: a\rdata: b\n\n")).Next(); err == nil {
		t.Errorf("read as %q", e)
	}
}
