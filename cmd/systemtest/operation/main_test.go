// Package operation tests the service as an operator sees it: flags, tokens, metrics, readiness,
// draining, and the check of external servers.
package operation

import (
	"testing"

	"chatsessions/cmd/systemtest/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }
