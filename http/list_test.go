package http

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"chatsessions/domain"
)

// rooms creates sessions with the rooms r0, r1, …, each a second after the one before.
func (r *rig) withRooms(n int, headers ...string) {
	for i := range n {
		r.create(fmt.Sprintf(`{"room":"r%d","createdAt":%d,"participants":["bob"]}`, i, 1000*(i+1)), headers...)
	}
}

func TestAList(t *testing.T) {
	r := newRig(t)
	if got := r.must(200, "GET", "/chat-sessions", ""); got.body != "[]" || got.Header.Get("Content-Type") != "application/json" || got.Header.Get("Cache-Control") != cachePrivately {
		t.Errorf("%s %v", got.body, got.Header)
	}
	r.withRooms(5)
	r.create(`{"room":"hidden"}`, bearer("account", "carol")...)
	for path, want := range map[string]string{
		"/chat-sessions": "r4 r3 r2 r1 r0", "/chat-sessions?$sort[createdAt]=1": "r0 r1 r2 r3 r4", "/chat-sessions?$limit=%232&$skip=1": "r3 r2", "/chat-sessions?$limit=#2": "r4 r3",
		"/chat-sessions?room=r3": "r3", "/chat-sessions?room[$in][]=r3&room[$in][]=r1": "r3 r1", "/chat-sessions?createdAt[$gt]=2000&createdAt[$lte]=4000": "r3 r2",
		"/chat-sessions?participants=bob&$limit=1": "r4", "/chat-sessions?$limit=0": "", "/chat-sessions?state=started": "", "/chat-sessions/": "r4 r3 r2 r1 r0",
	} {
		if got := r.must(200, "GET", path, "").rooms(); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	if got := r.must(200, "GET", "/chat-sessions", "", bearer("service", "crm")...).rooms(); !strings.HasPrefix(got, "hidden r4") {
		t.Error(got)
	}
	if q := r.lists[len(r.lists)-1]; q.VisibleTo != "" || q.Count || q.Limit != 50 {
		t.Errorf("%+v", q)
	}
	for prefer, want := range map[string]string{"count=exact": "5", "Count=\"exact\"": "5", "": "", "count": "", "count=some": ""} {
		got := r.must(200, "GET", "/chat-sessions?$limit=1", "", "Prefer", prefer)
		applied := ""
		if want != "" {
			applied = "count=exact"
		}
		if got.Header.Get("X-Total-Count") != want || got.Header.Get("Preference-Applied") != applied {
			t.Errorf("%s: %v", prefer, got.Header)
		}
	}
	for _, path := range []string{"?x=1", "?%zz", "?$limit=-1", "?room[$gt]=1"} {
		r.must(400, "GET", "/chat-sessions"+path, "")
	}
}

// next returns the link to the next page, "" on the last.
func (r response) next() string {
	link, rest, _ := strings.Cut(strings.TrimPrefix(r.Header.Get("Link"), "<"), ">")
	if rest != "" && rest != `; rel="next"` {
		return "not a next link: " + rest
	}
	return link
}

func TestPagesFollowEachOther(t *testing.T) {
	r := newRig(t)
	r.withRooms(7)
	long := ""
	for i := range 20 {
		long += fmt.Sprintf("&room[$in][]=a-room-with-a-long-name-%d", i)
	}
	for i := range 7 {
		long += fmt.Sprintf("&room[$in][]=r%d", i)
	}
	for _, text := range []string{"$limit=3", "$limit=2&$sort[createdAt]=1", "$limit=3" + long, "$limit=2&$skip=1&$select=room"} {
		var got []string
		for path := "/chat-sessions?" + text; path != ""; {
			page := r.must(200, "GET", path, "")
			if len(page.Header.Get("Link")) > 400 {
				t.Errorf("a link of %d bytes", len(page.Header.Get("Link")))
			}
			got = append(got, page.rooms())
			if path = page.next(); path != "" && !strings.HasPrefix(path, "/chat-sessions?$cursor=") {
				t.Fatal(path)
			}
		}
		want := map[string]string{"$limit=3": "r6 r5 r4|r3 r2 r1|r0", "$limit=2&$sort[createdAt]=1": "r0 r1|r2 r3|r4 r5|r6", "$limit=2&$skip=1&$select=room": "r5 r4|r3 r2|r1 r0"}[text]
		if want == "" {
			want = "r6 r5 r4|r3 r2 r1|r0"
		}
		if strings.Join(got, "|") != want {
			t.Errorf("%.40s: %q, want %q", text, got, want)
		}
	}
	if len(r.queries) != 1 {
		t.Errorf("%d queries are kept, want the long one", len(r.queries))
	}
	link := r.must(200, "GET", "/chat-sessions?$limit=3"+long, "").next()
	if got := r.must(400, "GET", link, "", bearer("account", "bob")...); !strings.Contains(got.field("detail"), "too old") {
		t.Error(got.body)
	}
	r.failing("LoadQuery", domain.ErrUnavailable)
	r.must(503, "GET", link, "")
	r.failing("SaveQuery", domain.ErrUnavailable)
	r.must(503, "GET", "/chat-sessions?$limit=3"+long, "")
	// A query is kept in the cursor up to a length.
	r.must(200, "GET", "/chat-sessions?$limit=1&"+strings.Repeat("&", maxCursorQuery-len("$limit=1&")), "")
	r.must(503, "GET", "/chat-sessions?$limit=1&"+strings.Repeat("&", maxCursorQuery+1-len("$limit=1&")), "")
}

func TestAMadeUpCursorIsRefused(t *testing.T) {
	r := newRig(t)
	r.withRooms(3)
	link := r.must(200, "GET", "/chat-sessions?$limit=1", "").next()
	cursor := strings.TrimPrefix(link, "/chat-sessions?$cursor=")
	raw, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		t.Fatal(err)
	}
	encoded := func(change func(b []byte) []byte) string {
		return base64.RawURLEncoding.EncodeToString(change(append([]byte(nil), raw...)))
	}
	for name, path := range map[string]string{
		"empty": "$cursor=", "not base64": "$cursor=!", "with padding": "$cursor=" + cursor + "=", "short": "$cursor=" + encoded(func(b []byte) []byte { return b[:cursorPlace-1] }),
		"of another kind": "$cursor=" + encoded(func(b []byte) []byte { b[0] = 'x'; return b }), "before 1970": "$cursor=" + encoded(func(b []byte) []byte { b[1] = 0xff; return b }),
		"with more": "$cursor=" + cursor + "&$limit=1", "twice": "$cursor=" + cursor + "&$cursor=" + cursor, "with an operator": "$cursor[$in]=" + cursor,
		"with a bad query":    "$cursor=" + encoded(func(b []byte) []byte { return append(b[:cursorPlace], "x=1"...) }),
		"with a broken query": "$cursor=" + encoded(func(b []byte) []byte { return append(b[:cursorPlace], "%zz"...) }),
		"with an old digest":  "$cursor=" + encoded(func(b []byte) []byte { b[0] = 'd'; return b }),
	} {
		if got := r.do("GET", "/chat-sessions?"+path, ""); got.StatusCode != 400 {
			t.Errorf("%s: %d %s", name, got.StatusCode, got.body)
		}
	}
	if got := r.must(200, "GET", "/chat-sessions?$cursor="+encoded(func(b []byte) []byte { return b[:cursorPlace] }), "").rooms(); got != "r1 r0" {
		t.Errorf("without a query: %s", got)
	}
}

func TestAListThatCannotBeFound(t *testing.T) {
	r := newRig(t)
	for _, tt := range []struct {
		err    error
		path   string
		status int
		says   string
		logged bool
	}{
		{domain.ErrTooExpensive, "?room=a&state[$in][]=started&$skip=7", 503, "find those by room, state, $skip=7; narrow", false},
		{domain.ErrTooExpensive, "", 503, "find those; narrow", false},
		{domain.ErrBusy, "", 503, "too many lists", false},
		{domain.ErrUnavailable, "", 503, "a correct answer", true},
		{fmt.Errorf("a defect"), "", 500, "wrong on our side", true},
	} {
		r.failing("List", tt.err)
		before := len(r.logs.String())
		got := r.must(tt.status, "GET", "/chat-sessions"+tt.path, "")
		if !strings.Contains(got.field("detail"), tt.says) || got.field("mayHaveBeenWritten") != "" {
			t.Errorf("%v: %s", tt.err, got.body)
		}
		if logged := len(r.logs.String()) > before; logged != tt.logged {
			t.Errorf("%v: logged is %v", tt.err, logged)
		}
	}
}
