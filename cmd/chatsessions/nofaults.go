//go:build !faults

package main

import (
	"time"

	"chatsessions/eventstore"
)

// See faults.go.
const faulty = false

func clock() func() time.Time { return time.Now }

func syncFunc() eventstore.SyncFunc { return nil }
