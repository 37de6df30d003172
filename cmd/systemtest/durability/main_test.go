// Package durability tests that answered writes survive: the order of syncs and answers by a trace
// of system calls, failed syncs, kills, and restarts.
package durability

import (
	"testing"

	"chatsessions/cmd/systemtest/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }
