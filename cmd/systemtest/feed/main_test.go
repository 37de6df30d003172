// Package feed tests the readers of GET /chat-sessions/events, and the limits of what is in flight.
package feed

import (
	"testing"

	"chatsessions/cmd/systemtest/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }
