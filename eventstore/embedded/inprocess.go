package embedded

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// maxQueued is how many bytes may wait for the server. Beyond it, a writer waits.
const maxQueued = 4 << 20

// A bufferedServer connects clients to a server in this process, over connections that
// accept writes at once. A write to the server's own pipes returns when the server has read
// it, and until then the NATS client holds a lock that every publish needs.
type bufferedServer struct {
	server interface{ InProcessConn() (net.Conn, error) }
}

// InProcessConn implements nats.InProcessConnProvider.
func (s bufferedServer) InProcessConn() (net.Conn, error) {
	pipe, err := s.server.InProcessConn()
	if err != nil {
		return nil, err
	}
	c := &bufferedConn{Conn: pipe}
	c.changed.L = &c.mu
	go c.forward() // ends with Close, or when the server has closed its end
	return c, nil
}

// A bufferedConn is a connection whose writes do not wait for the reader.
type bufferedConn struct {
	net.Conn
	mu       sync.Mutex
	changed  sync.Cond
	queued   []byte    // for the server
	deadline time.Time // deadline of a write that waits for room
	err      error     // why nothing can be written any more
}

// Write implements net.Conn.
func (c *bufferedConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.awaitRoom(); err != nil {
		return 0, err
	}
	c.queued = append(c.queued, p...)
	c.changed.Broadcast()
	return len(p), nil
}

func (c *bufferedConn) awaitRoom() error {
	if len(c.queued) > maxQueued && !c.deadline.IsZero() {
		defer time.AfterFunc(time.Until(c.deadline), c.changed.Broadcast).Stop()
	}
	for len(c.queued) > maxQueued && c.err == nil {
		if !c.deadline.IsZero() && !time.Now().Before(c.deadline) {
			return os.ErrDeadlineExceeded
		}
		c.changed.Wait()
	}
	return c.err
}

// SetWriteDeadline implements net.Conn.
func (c *bufferedConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	return nil
}

// SetDeadline implements net.Conn.
func (c *bufferedConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetWriteDeadline(t), c.SetReadDeadline(t))
}

// forward writes the queued bytes until the connection ends.
func (c *bufferedConn) forward() {
	var writing []byte
	for {
		c.mu.Lock()
		for len(c.queued) == 0 && c.err == nil {
			c.changed.Wait()
		}
		if c.err != nil {
			c.mu.Unlock()
			return
		}
		writing, c.queued = c.queued, writing[:0]
		c.changed.Broadcast()
		c.mu.Unlock()
		if _, err := c.Conn.Write(writing); err != nil {
			c.fail(err)
			return
		}
	}
}

func (c *bufferedConn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
	c.changed.Broadcast()
}

// Close implements net.Conn. It drops queued bytes.
func (c *bufferedConn) Close() error {
	c.fail(net.ErrClosed)
	return c.Conn.Close()
}
