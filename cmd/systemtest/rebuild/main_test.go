// Package rebuild tests how a read model is compared, rebuilt, upgraded, and repaired: rebuild,
// parked sessions, and nodes with different layouts.
package rebuild

import (
	"testing"

	"chatsessions/cmd/systemtest/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }
