package contract

import (
	"fmt"
	"strconv"
	"testing"

	"chatsessions/cmd/systemtest/rig"
)

func TestAGetWaitsForThePositionThatItNames(t *testing.T) {
	rig.OnAllSetups(t, func(t *testing.T, s *rig.Service) {
		alice := s.As("account-alice")
		a := alice.Expect(200, "POST", "/chat-sessions", "{}")
		path := a.Header.Get("Location")
		last := uint64(0)
		for i := range 5 {
			a = alice.Expect(200, "PATCH", path, fmt.Sprintf(`{"room":"r%d"}`, i))
			position := a.Header.Get("Chat-Sessions-Position")
			n, err := strconv.ParseUint(position, 10, 64)
			if err != nil || n <= last {
				t.Fatalf("Chat-Sessions-Position %q after %d", position, last)
			}
			last = n
			header := "Chat-Sessions-Position: " + position
			has(t, alice.Expect(200, "GET", path, "", header).Object(t), members{"room": fmt.Sprintf("r%d", i)})
			has(t, alice.Expect(200, "GET", "/chat-sessions", "", header).List(t)[0], members{"room": fmt.Sprintf("r%d", i)})
		}
		alice.Expect(200, "GET", path, "", "Chat-Sessions-Position: 0")
	})
}
