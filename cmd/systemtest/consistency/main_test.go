// Package consistency tests what clients may rely on when several of them, several nodes, or
// outages are involved: read your own writes, one winner, repeated requests, failover.
package consistency

import (
	"testing"

	"chatsessions/cmd/systemtest/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }
