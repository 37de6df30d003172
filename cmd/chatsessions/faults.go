//go:build faults

package main

import (
	"cmp"
	"errors"
	"os"
	"strings"
	"time"

	"chatsessions/eventstore/embedded"
)

// A build with `-tags faults` can be made to fail by environment variables, for tests and
// benchmarks. These are the faults that a test cannot inject from outside: a process without
// libc has no library to preload, Linux has no wall clock for one process, and strace slows
// every sync down.
//
//	CHATSESSIONS_FAULT_CLOCK=-90s      the clock is off by so much
//	CHATSESSIONS_FAULT_SYNC=none       nothing is made durable: fast, and unsafe
//	CHATSESSIONS_FAULT_SYNC=fail:PATH  every sync fails while a file PATH exists
//	CHATSESSIONS_FAULT_SYNC_TAKES=2ms  with fail:PATH, every sync takes so much longer
const faulty = true

func clock() func() time.Time {
	offset := duration("CHATSESSIONS_FAULT_CLOCK")
	return func() time.Time { return time.Now().Add(offset) }
}

func syncFunc() embedded.SyncFunc {
	given := os.Getenv("CHATSESSIONS_FAULT_SYNC")
	path, fails := strings.CutPrefix(given, "fail:")
	switch {
	case given == "":
		return nil
	case given == "none":
		return func(string, func() error) error { return nil }
	case !fails:
		panic("CHATSESSIONS_FAULT_SYNC: want none or fail:PATH, not " + given)
	}
	longer := duration("CHATSESSIONS_FAULT_SYNC_TAKES")
	return func(_ string, sync func() error) error {
		time.Sleep(longer)
		if _, err := os.Stat(path); err == nil {
			return errors.New("injected: the disk does not sync")
		}
		return sync()
	}
}

func duration(name string) time.Duration {
	d, err := time.ParseDuration(cmp.Or(os.Getenv(name), "0"))
	if err != nil {
		panic(name + ": " + err.Error())
	}
	return d
}
