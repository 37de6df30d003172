// Package audit runs the commands that read the log, as an auditor would: history, replay, and
// verify, and every command of docs/audit.md.
package audit

import (
	"testing"

	"chatsessions/cmd/systemtest/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }
