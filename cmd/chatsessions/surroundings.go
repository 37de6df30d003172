//go:build !faults

package main

import (
	"time"

	"chatsessions/eventstore/embedded"
)

// faulty says that in this build things can be made to fail; see faults.go.
const faulty = false

// The clock, and how files are made durable: nil is the usual way. Only a build
// that tests or measures the service has others.
var (
	now                        = time.Now
	syncFile embedded.SyncFunc = nil
)
