package contract

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"chatsessions/cmd/systemtest/rig"
)

var nextLink = regexp.MustCompile(`^<([^>]*)>; rel="next"$`)

// next returns the path of the next page; "" after the last one.
func next(t *testing.T, a rig.Answer) string {
	t.Helper()
	link := a.Header.Get("Link")
	if link == "" {
		return ""
	}
	target := nextLink.FindStringSubmatch(link)
	if target == nil {
		t.Fatalf("Link is %q, want <…>; rel=\"next\"", link)
	}
	if len(link) > 512 {
		t.Errorf("a Link of %d bytes is not short: %s", len(link), link)
	}
	u, err := url.Parse(target[1])
	if err != nil {
		t.Fatalf("Link %q: %v", link, err)
	}
	return u.RequestURI() // it may be relative or not (RFC 8288, section 3.1)
}

// TestALongQueryHasAShortLink that is followed like any other.
func TestALongQueryHasAShortLink(t *testing.T) {
	rig.OnAllSetups(t, func(t *testing.T, s *rig.Service) {
		alice := s.As("account-alice")
		var want []string
		query := "/chat-sessions?$limit=2"
		for i := 0; len(query) < 7900; i++ {
			room := fmt.Sprintf("%s-%d", strings.Repeat("r", 150), i)
			query += "&room[$in][]=" + room
			if i%7 == 0 {
				want = append([]string{idOf(alice.Create(fmt.Sprintf(`{"room":%q,"createdAt":%d}`, room, i)))}, want...)
			}
		}
		alice.Create(`{"room":"another"}`)
		query += "&state=created"
		query += strings.Repeat("&", 8000-len(query))
		if len(query) != 8000 {
			t.Fatalf("the query has %d bytes", len(query))
		}
		var got []string
		for page := query; page != ""; {
			a := alice.Expect(200, "GET", page, "")
			got = append(got, ids(a.List(t))...)
			page = next(t, a)
		}
		same(t, "all pages", got, want)
	})
}
