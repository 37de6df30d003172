// Package nats tests subscribers of the log: their permissions, and the published examples.
package nats

import (
	"testing"

	"chatsessions/cmd/systemtest/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }
