//go:build faults

package main

import (
	"errors"
	"os"
	"strings"
	"time"

	"chatsessions/eventstore/embedded"
)

// A build with `-tags faults` can be made to fail by environment variables. It is for
// tests and benchmarks and never for deployment; without the tag, none of this is compiled.
// Most faults of the tests are real: killed processes, cut connections, full disks, power
// cuts, and failed system calls (strace). These are the ones that a test cannot inject from
// outside: a process without libc has no library to preload, Linux has no separate wall
// clock for a process, and strace slows every sync down.
//
//	CHATSESSIONS_FAULT_CLOCK=-90s      the clock is off by so much
//	CHATSESSIONS_FAULT_SYNC=none       nothing is made durable: fast, and unsafe
//	CHATSESSIONS_FAULT_SYNC=fail:PATH  every sync fails while a file PATH exists
//	CHATSESSIONS_FAULT_SYNC_TAKES=2ms  every sync takes so much longer, as on a disk when
//	                                   the files are in memory; only with fail:PATH
const faulty = true

func clock() func() time.Time {
	given := os.Getenv("CHATSESSIONS_FAULT_CLOCK")
	if given == "" {
		return time.Now
	}
	offset := mustParse("CHATSESSIONS_FAULT_CLOCK", given)
	return func() time.Time { return time.Now().Add(offset) }
}

func syncFunc() embedded.SyncFunc {
	given := os.Getenv("CHATSESSIONS_FAULT_SYNC")
	takes := os.Getenv("CHATSESSIONS_FAULT_SYNC_TAKES")
	path, fails := strings.CutPrefix(given, "fail:")
	switch {
	case !fails && takes != "":
		panic("CHATSESSIONS_FAULT_SYNC_TAKES: only with CHATSESSIONS_FAULT_SYNC=fail:PATH")
	case given == "":
		return nil
	case given == "none":
		return func(string, func() error) error { return nil }
	case !fails:
		panic("CHATSESSIONS_FAULT_SYNC: want none or fail:PATH, not " + given)
	}
	var longer time.Duration
	if takes != "" {
		longer = mustParse("CHATSESSIONS_FAULT_SYNC_TAKES", takes)
	}
	return func(_ string, sync func() error) error {
		time.Sleep(longer)
		if _, err := os.Stat(path); err == nil {
			return errors.New("injected: the disk does not sync")
		}
		return sync()
	}
}

func mustParse(name, given string) time.Duration {
	d, err := time.ParseDuration(given)
	if err != nil {
		panic(name + ": " + err.Error())
	}
	return d
}
