package chaos

import (
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
)

// A link is a TCP proxy between a client and a server that can break connections.
type link struct {
	listener net.Listener
	target   atomic.Pointer[string] // host and port; nil refuses
	mute     atomic.Bool            // what the server sends is lost

	mu      sync.Mutex
	flowing chan struct{} // closed while bytes may pass
	conns   map[net.Conn]bool
	group   sync.WaitGroup
}

// startLink starts a link that refuses until it has a target.
func startLink(t *testing.T) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{listener: listener, conns: map[net.Conn]bool{}, flowing: make(chan struct{})}
	close(l.flowing)
	l.group.Go(l.serve)
	t.Cleanup(func() {
		listener.Close()
		l.cut()
		l.group.Wait()
	})
	return l
}

// startLinkTo starts a link to a server whose address stays the same.
func startLinkTo(t *testing.T, address string) *link {
	l := startLink(t)
	l.target.Store(&address)
	return l
}

// through returns a server's URL with the address of the link.
func (l *link) through(serverURL string) string {
	u, err := url.Parse(serverURL)
	if err != nil {
		panic(err)
	}
	u.Host = l.listener.Addr().String()
	return u.String()
}

func (l *link) serve() {
	for {
		client, err := l.listener.Accept()
		if err != nil {
			return
		}
		target := l.target.Load()
		if target == nil {
			client.Close()
			continue
		}
		server, err := net.Dial("tcp", *target)
		if err != nil {
			client.Close()
			continue
		}
		l.mu.Lock()
		l.conns[client], l.conns[server] = true, true
		l.mu.Unlock()
		if l.target.Load() != target { // cut may have missed it
			l.forget(client, server)
			continue
		}
		l.group.Go(func() { l.copy(server, client, func() bool { return false }) })
		l.group.Go(func() { l.copy(client, server, l.mute.Load) })
	}
}

func (l *link) copy(to, from net.Conn, lose func() bool) {
	defer l.forget(to, from)
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 && !lose() {
			l.mu.Lock()
			flowing := l.flowing
			l.mu.Unlock()
			<-flowing
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (l *link) forget(conns ...net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range conns {
		c.Close()
		delete(l.conns, c)
	}
}

// cut breaks all connections; new ones work.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		c.Close()
	}
	clear(l.conns)
}

// stall delays everything that is sent until the function that it returns is called.
func (l *link) stall() (flow func()) {
	gate := make(chan struct{})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flowing = gate
	return func() { close(gate) }
}
