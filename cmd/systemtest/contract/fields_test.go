package contract

import (
	"testing"

	"chatsessions/cmd/systemtest/rig"
)

// TestTextKeepsItsCharacters through log and read model.
func TestTextKeepsItsCharacters(t *testing.T) {
	rig.OnAllSetups(t, func(t *testing.T, s *rig.Service) {
		alice := s.As("account-alice")
		for _, room := range []string{
			"#10", " spaces ", "tab\tline\nreturn\r", `quote " backslash \ slash /`, "<script>&amp;", "\u2028\u2029", "\ufeff", "\ufffd",
			"é", "e\u0301", "😀", "日本", "%2F+%", "null", "a,b;c=d", "$in", "*", "[x]", "{}", ":",
		} {
			path := alice.Create(toJSON(members{"room": room, "participants": []string{room}}))
			has(t, alice.Get(path), members{"room": room, "participants": []string{room}})
			for _, query := range []string{"room=", "participants=", "room[$in][]=", "room%5B%24in%5D%5B%5D=x&room[$in][]="} {
				same(t, query+escape(room), ids(alice.Expect(200, "GET", "/chat-sessions?"+query+escape(room), "").List(t)), []string{idOf(path)})
			}
		}
	})
}
