//go:build powercut

// Package powercut cuts the power under the service, on file systems of its own. It needs root and
// loop devices, so it has a build tag: see `make powercut`.
package powercut

import (
	"testing"

	"chatsessions/cmd/systemtest/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }
