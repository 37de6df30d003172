package http

import (
	"errors"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tryWrite writes what the system takes at once, which may be nothing.
func tryWrite(c net.Conn, b []byte) (n int, err error) {
	own, ok := c.(syscall.Conn)
	if !ok {
		return c.Write(b)
	}
	raw, err := own.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		for {
			if n, failed = unix.Write(int(fd), b); !errors.Is(failed, unix.EINTR) {
				return true
			}
		}
	})
	if err == nil {
		err = failed
	}
	if errors.Is(err, unix.EAGAIN) {
		err = nil
	}
	return max(n, 0), err
}

// giveUpAfter ends the connection when the other side acknowledges nothing for so long
// (RFC 5482). The system's own patience is a quarter of an hour.
func giveUpAfter(c *net.TCPConn, patience time.Duration) {
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(patience.Milliseconds()))
		})
	}
}
