//go:build !linux

package natstest

import (
	"syscall"
	"time"
)

// dieWithParent: only Linux can.
func dieWithParent() *syscall.SysProcAttr { return nil }

// waitStopped gives a process that got SIGSTOP the time to stand still; how to
// wait for that differs between systems.
func waitStopped(int) error {
	time.Sleep(100 * time.Millisecond)
	return nil
}
