//go:build !linux

package http

import (
	"errors"
	"net"
	"os"
	"time"
)

// tryWrite writes what the system takes nearly at once, which may be nothing.
func tryWrite(c net.Conn, b []byte) (int, error) {
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

// giveUpAfter is left to the system here.
func giveUpAfter(*net.TCPConn, time.Duration) {}
