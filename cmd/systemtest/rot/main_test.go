// Package rot damages copies of a stopped log, as disks, power cuts, and operators do, and
// runs every command and the service on them: whatever is missing has to be named, and
// nothing may be changed. `make rot` runs a thousand damages, an ordinary test run a few.
//
// Read the files in this order:
//
//   - log_test.go: the log that is damaged, and copies of it
//   - corruptions_test.go: the damages
//   - rot_test.go: one damage, all commands, and what has to hold
//   - serve_test.go: the service on a damaged log
package rot

import (
	"testing"

	"chatsessions/cmd/systemtest/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }
