package main

import (
	"os"
	"strconv"
	"syscall"
)

// giveWay lets every other process of this machine go first: a verification takes what
// processor time the service leaves. Linux keeps a niceness for each thread, and a new
// thread has that of the one that made it (setpriority(2), "C library/kernel
// differences").
func giveWay() {
	const lowest = 19
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return // then it is as quick as any other
	}
	for _, thread := range threads {
		if id, err := strconv.Atoi(thread.Name()); err == nil {
			_ = syscall.Setpriority(syscall.PRIO_PROCESS, id, lowest)
		}
	}
}
