package rig

import (
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
)

// A Link is a TCP proxy between a client and a server that can break connections.
type Link struct {
	listener net.Listener
	Target   atomic.Pointer[string] // host and port; nil refuses
	Mute     atomic.Bool            // what the server sends is lost

	mu      sync.Mutex
	flowing chan struct{} // closed while bytes may pass
	conns   map[net.Conn]bool
	group   sync.WaitGroup
}

// StartLink starts a link that refuses until it has a target.
func StartLink(t *testing.T) *Link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &Link{listener: listener, conns: map[net.Conn]bool{}, flowing: make(chan struct{})}
	close(l.flowing)
	l.group.Go(l.serve)
	t.Cleanup(func() {
		listener.Close()
		l.Cut()
		l.group.Wait()
	})
	return l
}

// StartLinkTo starts a link to a server whose address stays the same.
func StartLinkTo(t *testing.T, address string) *Link {
	l := StartLink(t)
	l.Target.Store(&address)
	return l
}

// Through returns a server's URL with the address of the link.
func (l *Link) Through(serverURL string) string {
	u, err := url.Parse(serverURL)
	if err != nil {
		panic(err)
	}
	u.Host = l.listener.Addr().String()
	return u.String()
}

func (l *Link) serve() {
	for {
		client, err := l.listener.Accept()
		if err != nil {
			return
		}
		target := l.Target.Load()
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
		if l.Target.Load() != target { // Cut may have missed it
			l.forget(client, server)
			continue
		}
		l.group.Go(func() { l.copy(server, client, func() bool { return false }) })
		l.group.Go(func() { l.copy(client, server, l.Mute.Load) })
	}
}

func (l *Link) copy(to, from net.Conn, lose func() bool) {
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

func (l *Link) forget(conns ...net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range conns {
		c.Close()
		delete(l.conns, c)
	}
}

// Cut breaks all connections; new ones work.
func (l *Link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		c.Close()
	}
	clear(l.conns)
}

// Stall delays everything that is sent until the function that it returns is called.
func (l *Link) Stall() (flow func()) {
	gate := make(chan struct{})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flowing = gate
	return func() { close(gate) }
}
