// Package redisfaults puts Redis and the links to it under faults, one at a time, and checks that
// every answer stays true; and Redis Cluster and Sentinel, when a master dies.
package redisfaults

import (
	"testing"

	"chatsessions/cmd/systemtest/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }
