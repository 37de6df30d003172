package redisfaults

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A slowLink is a TCP proxy in front of a server that passes the answers on late. Two
// answers that follow each other are both as late, one does not wait for the other.
// Cutting and refusing is what a link in front of it does.
type slowLink struct {
	listener net.Listener
	target   string
	pace     atomic.Pointer[pace]
	group    sync.WaitGroup
}

// A pace is how late a slowLink is.
type pace struct {
	delay          time.Duration
	jitter         time.Duration // at random, on top of it
	bytesPerSecond int           // of each connection; 0 for any number
}

// startSlowLink starts one that is not slow yet. It ends with the test.
func startSlowLink(t *testing.T, target string) *slowLink {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &slowLink{listener: listener, target: target}
	l.pace.Store(&pace{})
	l.group.Go(func() { l.serve(t.Context()) })
	t.Cleanup(func() {
		listener.Close()
		l.group.Wait()
	})
	return l
}

func (l *slowLink) serve(ctx context.Context) {
	for {
		client, err := l.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", l.target)
		if err != nil {
			client.Close()
			continue
		}
		end := context.AfterFunc(ctx, func() {
			client.Close()
			server.Close()
		})
		l.group.Go(func() {
			_, _ = io.Copy(server, client)
			server.Close()
		})
		l.group.Go(func() {
			defer end()
			l.passOn(client, server)
			client.Close()
		})
	}
}

// A piece of an answer, and when it is passed on.
type piece struct {
	content []byte
	due     time.Time
}

func (l *slowLink) passOn(to io.Writer, from io.Reader) {
	pieces := make(chan piece, 1024)
	l.group.Go(func() {
		defer close(pieces)
		for due := time.Now(); ; {
			buffer := make([]byte, 16<<10)
			n, err := from.Read(buffer)
			if err != nil {
				return
			}
			p := l.pace.Load()
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
			_, failed = to.Write(p.content)
		}
	}
}
