//go:build !linux

package conn

import (
	"errors"
	"net"
	"os"
	"time"
)

// HungUp cannot find out without reading, so a handler waits until its deadline.
func HungUp(net.Conn) bool { return false }

// TryWrite writes what the system takes within a millisecond, which may be nothing.
func TryWrite(c net.Conn, b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(time.Millisecond)); err != nil {
		return 0, err
	}
	defer c.SetWriteDeadline(time.Time{}) //nolint:errcheck // a connection that is closed fails at its next write
	n, err := c.Write(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	return n, err
}

// SetUserTimeout keeps the system's default.
func SetUserTimeout(*net.TCPConn, time.Duration) {}
