// Package contract tests the HTTP API as a client sees it, on all set-ups. It expects what
// docs/api.md and the published documents say, not what the code says.
package contract

import (
	"testing"

	"chatsessions/cmd/systemtest/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }
