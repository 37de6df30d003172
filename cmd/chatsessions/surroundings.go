//go:build !faults

package main

import (
	"time"

	"chatsessions/eventstore"
)

// The clock, and how files are made durable: nil is the usual way. Only a build
// that tests or measures the service has others; see faults.go.
var (
	now                          = time.Now
	syncFile eventstore.SyncFunc = nil
)
