package http

import (
	"net"
	"sync"
)

// silence knows the connections on which nothing has been sent yet. Clients open
// some in advance; fasthttp takes them for busy when it shuts down, and would wait
// for their first request until its read timeout.
type silence struct {
	mu     sync.Mutex
	conns  map[*silentConn]struct{}
	closed bool
}

// close closes the connections that are silent now, and those to come.
func (s *silence) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for c := range s.conns {
		_ = c.Close()
	}
	clear(s.conns)
}

// enter says whether the connection may stay.
func (s *silence) enter(c *silentConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		s.conns = map[*silentConn]struct{}{}
	}
	if !s.closed {
		s.conns[c] = struct{}{}
	}
	return !s.closed
}

// leave says whether the connection was still open.
func (s *silence) leave(c *silentConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, open := s.conns[c]
	delete(s.conns, c)
	return open
}

// A drainListener tells its silence about the connections that it accepts.
type drainListener struct {
	net.Listener
	silence *silence
}

func (l drainListener) Accept() (net.Conn, error) {
	for {
		accepted, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &silentConn{Conn: accepted, silence: l.silence}
		if l.silence.enter(c) {
			return c, nil
		}
		_ = accepted.Close()
	}
}

// A silentConn is a connection until its first byte, and an ordinary one then.
type silentConn struct {
	net.Conn
	silence *silence // nil once it is broken; only the reader uses it
}

func (c *silentConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.silence != nil {
		open := c.silence.leave(c)
		c.silence = nil
		if !open { // what was read just then must not be carried out: nobody gets the answer
			return 0, net.ErrClosed
		}
	}
	return n, err
}
