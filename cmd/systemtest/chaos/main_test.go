// Package chaos kills, pauses, cuts, and starves the service and its servers under load, and
// checks every answer: against the log, against a model of a session (linearizability), and
// against what the nodes show afterwards. See docs/durability.md, and chaos_test.go first.
package chaos

import (
	"testing"

	"chatsessions/cmd/systemtest/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }
