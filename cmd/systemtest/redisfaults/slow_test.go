package redisfaults

import (
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A link is a TCP proxy in front of a server that can pass the answers on late, and break
// connections. Of two answers that follow each other, one does not wait for the other.
type link struct {
	listener net.Listener
	target   atomic.Pointer[string] // host and port; nil refuses
	pace     atomic.Pointer[pace]
	group    sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
	gate  chan struct{} // closed while bytes may pass
}

// A pace is how late a link is.
type pace struct {
	delay          time.Duration
	jitter         time.Duration // at random, on top of it
	bytesPerSecond int           // of each connection; 0 for any number
}

// startLink starts one that is not slow yet. It ends with the test.
func startLink(t *testing.T, target string) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{listener: listener, conns: map[net.Conn]bool{}, gate: make(chan struct{})}
	l.target.Store(&target)
	l.pace.Store(&pace{})
	close(l.gate)
	l.group.Go(l.serve)
	t.Cleanup(func() {
		listener.Close()
		l.cut()
		l.group.Wait()
	})
	return l
}

// through returns a server's URL with the address of the link.
func (l *link) through(t *testing.T, serverURL string) string {
	u, err := url.Parse(serverURL)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = l.listener.Addr().String()
	return u.String()
}

// lead has new connections go to an address, nil for nowhere, and breaks those there are.
func (l *link) lead(address *string) {
	l.target.Store(address)
	l.cut()
}

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
	l.gate = gate
	return func() { close(gate) }
}

func (l *link) await() {
	l.mu.Lock()
	gate := l.gate
	l.mu.Unlock()
	<-gate
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
		if l.target.Load() != target { // lead may have missed it
			l.cut()
		}
		l.group.Go(func() {
			defer server.Close()
			l.passOn(server, client, func() pace { return pace{} })
		})
		l.group.Go(func() {
			defer client.Close()
			l.passOn(client, server, func() pace { return *l.pace.Load() })
		})
	}
}

// A piece of an answer, and when it is passed on.
type piece struct {
	content []byte
	due     time.Time
}

func (l *link) passOn(to io.Writer, from io.Reader, late func() pace) {
	pieces := make(chan piece, 1024)
	l.group.Go(func() {
		defer close(pieces)
		for due := time.Now(); ; {
			buffer := make([]byte, 16<<10)
			n, err := from.Read(buffer)
			if err != nil {
				return
			}
			p := late()
			at := time.Now().Add(p.delay)
			if p.jitter > 0 {
				at = at.Add(rand.N(p.jitter))
			}
			if at.After(due) { // the order stays
				due = at
			}
			if p.bytesPerSecond > 0 {
				due = due.Add(time.Duration(n) * time.Second / time.Duration(p.bytesPerSecond))
			}
			pieces <- piece{buffer[:n], due}
		}
	})
	var failed error
	for p := range pieces { // to the end, so that the reader is not held up
		if failed == nil {
			<-time.After(time.Until(p.due))
			l.await()
			_, failed = to.Write(p.content)
		}
	}
}
