//go:build !faults

package main

import (
	"time"

	"chatsessions/eventstore/embedded"
)

// See faults.go.
const faulty = false

func clock() func() time.Time { return time.Now }

func syncFunc() embedded.SyncFunc { return nil }
