// Package disaster runs the commands of docs/how-to/disaster.md after each of the losses that
// the page is about, and compares what they print with what the page says.
package disaster

import (
	"testing"

	"chatsessions/cmd/systemtest/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }
