//go:build faults

package main

import (
	"errors"
	"os"
	"strings"
	"time"

	"chatsessions/eventstore/embedded"
)

const faulty = true

// What goes wrong in a build with `-tags faults`, which is not one to deploy.
// Environment variables say what:
//
//	CHATSESSIONS_FAULT_CLOCK=-90s      the clock is off by so much
//	CHATSESSIONS_FAULT_SYNC=none       nothing is made durable: fast, and unsafe
//	CHATSESSIONS_FAULT_SYNC=fail:PATH  every sync fails while a file PATH exists
//	CHATSESSIONS_FAULT_SYNC_TAKES=2ms  every sync takes so much longer, as on a disk
//	                                   where the files lie in memory; beside fail
var (
	now      = clockFault(os.Getenv("CHATSESSIONS_FAULT_CLOCK"))
	syncFile = slowSync(os.Getenv("CHATSESSIONS_FAULT_SYNC_TAKES"), syncFault(os.Getenv("CHATSESSIONS_FAULT_SYNC")))
)

func clockFault(given string) func() time.Time {
	if given == "" {
		return time.Now
	}
	offset, err := time.ParseDuration(given)
	if err != nil {
		panic("CHATSESSIONS_FAULT_CLOCK: " + err.Error())
	}
	return func() time.Time { return time.Now().Add(offset) }
}

func syncFault(given string) embedded.SyncFunc {
	path, fails := strings.CutPrefix(given, "fail:")
	switch {
	case given == "":
		return nil
	case given == "none":
		return func(string, func() error) error { return nil }
	case !fails:
		panic("CHATSESSIONS_FAULT_SYNC: want none or fail:PATH, not " + given)
	}
	return func(_ string, sync func() error) error {
		if _, err := os.Stat(path); err == nil {
			return errors.New("injected: the disk does not sync")
		}
		return sync()
	}
}

func slowSync(given string, next embedded.SyncFunc) embedded.SyncFunc {
	if given == "" {
		return next
	}
	if next == nil {
		panic("CHATSESSIONS_FAULT_SYNC_TAKES: only beside CHATSESSIONS_FAULT_SYNC=fail:PATH")
	}
	longer, err := time.ParseDuration(given)
	if err != nil {
		panic("CHATSESSIONS_FAULT_SYNC_TAKES: " + err.Error())
	}
	return func(path string, sync func() error) error {
		time.Sleep(longer)
		return next(path, sync)
	}
}
