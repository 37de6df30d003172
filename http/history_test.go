package http

import (
	"strings"
	"testing"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"
	"pgregory.net/rapid"

	"chatsessions/http/problem"
)

func TestTheClientsPreferenceIsFollowed(t *testing.T) {
	const json, batch, none = 0, 1, -1
	offers := []string{"application/json", "application/cloudevents-batch+json"}
	for accept, want := range map[string]int{
		"": json, " , ": json, "*/*": json, "application/*": json, "application/json": json, "APPLICATION/JSON": json,
		"application/json, text/plain, */*": json, // axios, and with it the Feathers client
		"application/json; charset=UTF-8":   json,
		"text/html, *; q=.2, */*; q=.2":     json, // java.net.HttpURLConnection
		"text/html, */*;q=0.1":              json,

		"application/cloudevents-batch+json":                                     batch,
		"Application/CloudEvents-Batch+JSON;charset=utf-8":                       batch,
		"application/cloudevents-batch+json, */*":                                batch, // named is closer than meant
		"*/*, application/cloudevents-batch+json":                                batch,
		"application/json;q=0.5, application/cloudevents-batch+json":             batch,
		"application/json;q=0.5, application/cloudevents-batch+json;q=0.4":       json,
		"application/json;q=0, */*":                                              batch,
		"application/json;q=0, application/*;q=0.001":                            batch,
		"application/cloudevents-batch+json;q=0, application/*":                  json,
		"application/cloudevents-batch+json;q=0.9, application/json;q=0.8, text": batch,
		"application/*;q=0.9, */*":                                               json,
		"application/*, application/cloudevents-batch+json;q=0.9":                json, // the closer one says the quality

		"text/html": none, "text/*": none, "application/cloudevents+json": none, "application/xml, image/*;q=0.5": none,
		"application/json;q=0": none, "*/*;q=0": none, "application/*;q=0, */*": none, "application/json;q=0, application/cloudevents-batch+json;q=0, */*": none,
		"application/json;version=1": none, "application/json;charset=latin1": none, "application/json;q=2": none, "application/json;q=x": none, "application/json;q=NaN": none,
		"nonsense": none, "/": none, "application": none, "application/jsonx": none, "application/json/x": none,
	} {
		if got := negotiate(accept, offers); got != want {
			t.Errorf("Accept: %s is offer %d, want %d", accept, got, want)
		}
	}
}

func FuzzAccept(f *testing.F) {
	for _, seed := range []string{
		"", "*/*", "application/json, text/plain, */*", "application/cloudevents-batch+json;q=0.5, application/*;q=0.4", "text/html, *; q=.2", `a/b; x="1,2"`, "application/json;q=0",
	} {
		f.Add(seed)
	}
	offers := []string{"application/json", "application/cloudevents-batch+json"}
	f.Fuzz(func(t *testing.T, accept string) {
		got := negotiate(accept, offers)
		swapped := negotiate(accept, []string{offers[1], offers[0]})
		if got < -1 || got > 1 || (got < 0) != (swapped < 0) {
			t.Fatalf("offer %d, and the other way round %d", got, swapped)
		}
		// What none of ours fits says nothing of them.
		if !strings.Contains(accept, `"`) && strings.Trim(accept, ", \t") != "" && negotiate(accept+", image/png;q=0.7", offers) != got {
			t.Fatalf("offer %d, and another one where pictures are welcome too", got)
		}
	})
}

func TestQueriesOfAHistory(t *testing.T) {
	for text, want := range map[string]historyQuery{
		"": {0, maxHistory}, "after=7": {7, maxHistory}, "after=%237&$limit=%2310": {7, 10}, "$limit=0": {0, 0}, "$limit=1e9": {0, maxHistory}, "%24limit=5&after=0": {0, 5},
	} {
		if q, err := parseHistoryQuery(text); err != nil || q != want {
			t.Errorf("%s: %+v, %v; want %+v", text, q, err, want)
		}
	}
	for text, says := range map[string]string{
		"after=": "after must be", "after=-1": "after must be", "after=x": "after must be", "$limit=-1": "$limit must be", "$limit=1.5": "$limit must be",
		"after=1&after=2": "twice", "$limit=1&%24limit=1": "twice", "limit=1": "limit is not a parameter", "$skip=1": "$skip is not a parameter", "$select=room": "$select is not a parameter",
		"after[$gt]=1": "after[$gt] is not a parameter", "%zz": "percent-encoded",
	} {
		if q, err := parseHistoryQuery(text); err == nil || problem.Of(err).Status != 400 || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %+v, %v; want a 400 that says %q", text, q, err, says)
		}
	}
}

// TestAPageKeepsTheOldestThatFit, one at least, and says whether there are newer ones.
func TestAPageKeepsTheOldestThatFit(t *testing.T) {
	const bound = 3000
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.IntRange(1, bound/3), 1, 20).Draw(t, "sizes") // oldest first
		page := historyPage{maxBytes: bound, limit: rapid.IntRange(1, 20).Draw(t, "limit")}
		room := strings.Repeat("9", bound/3)
		for i := len(sizes) - 1; i >= 0; i-- {
			page.add(uint64(i+1), []byte(room[:sizes[i]]))
		}
		fit, bytes := 0, 0
		for fit < min(len(sizes), page.limit) && (fit == 0 || bytes+sizes[fit] <= bound) {
			bytes += sizes[fit]
			fit++
		}
		var want []string
		for _, size := range sizes[:fit] {
			want = append(want, room[:size])
		}
		if got := string(page.array()); got != "["+strings.Join(want, ",")+"]" {
			t.Fatalf("%d bytes, want %d events with %d", len(got), fit, bytes)
		}
		if page.more != (fit < len(sizes)) || page.positions[0] != uint64(fit) {
			t.Fatalf("of %d events %d fit; the newest is at %d, more: %v", len(sizes), fit, page.positions[0], page.more)
		}
	})
	single := historyPage{limit: 10, maxBytes: bound}
	large := strings.Repeat("9", bound+1)
	for position := range 3 {
		single.add(uint64(3-position), []byte(large))
	}
	if got := len(single.array()); got != len(large)+len("[]") || !single.more || single.positions[0] != 1 {
		t.Errorf("of events that are too large, a page has %d bytes", got)
	}
	empty := historyPage{}
	if got := string(empty.array()); got != "[]" {
		t.Errorf("an empty page is %s", got)
	}
}

// TestFibersNegotiationIsNotUsed shows what it gets wrong. When this fails, accept.go may
// be replaced by c.Accepts.
func TestFibersNegotiationIsNotUsed(t *testing.T) {
	const json, batch = "application/json", "application/cloudevents-batch+json"
	app := fiber.New()
	for accept, want := range map[string]string{
		"application/json;q=0, */*": batch, "application/json;q=x": "", "application/json;q=2": "",
		"application/*;q=0, */*": "",
	} {
		c := app.AcquireCtx(&fasthttp.RequestCtx{})
		c.Request().Header.Set("Accept", accept)
		offers := []string{json, batch}
		ours := ""
		if i := negotiate(accept, offers); i >= 0 {
			ours = offers[i]
		}
		if ours != want {
			t.Errorf("%s: %q, want %q", accept, ours, want)
		}
		if theirs := c.Accepts(offers...); theirs == want {
			t.Errorf("%s: Fiber has it right now", accept)
		}
		app.ReleaseCtx(c)
	}
}
