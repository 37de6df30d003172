package conn

import (
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tcpPair returns both ends of a connection.
func tcpPair(t *testing.T) (ours, theirs *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialled, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialled.Close(); accepted.Close() })
	return accepted.(*net.TCPConn), dialled.(*net.TCPConn)
}

func TestHungUpSeesThatTheClientIsGone(t *testing.T) {
	sent := func(c *net.TCPConn) { _, _ = c.Write([]byte("GET / HTTP/1.1\r\n")) }
	for name, test := range map[string]struct {
		does func(c *net.TCPConn)
		gone bool
	}{
		"waits":                                  {func(*net.TCPConn) {}, false},
		"has sent more, which nobody has read":   {sent, false},
		"has closed":                             {func(c *net.TCPConn) { c.Close() }, true},
		"has sent more and closed":               {func(c *net.TCPConn) { sent(c); c.Close() }, true},
		"has reset":                              {func(c *net.TCPConn) { _ = c.SetLinger(0); c.Close() }, true},
		"has sent more and reset":                {func(c *net.TCPConn) { sent(c); _ = c.SetLinger(0); c.Close() }, true},
		"has closed the direction of its own":    {func(c *net.TCPConn) { _ = c.CloseWrite() }, true},
		"has closed the direction that it reads": {func(c *net.TCPConn) { _ = c.CloseRead() }, false},
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := tcpPair(t)
			test.does(theirs)
			deadline := time.Now().Add(200 * time.Millisecond)
			if test.gone {
				deadline = deadline.Add(10 * time.Second)
			}
			for !HungUp(ours) && time.Now().Before(deadline) {
				time.Sleep(time.Millisecond)
			}
			if got := HungUp(ours); got != test.gone {
				t.Errorf("gone is %v, want %v", got, test.gone)
			}
		})
	}
	ours, _ := tcpPair(t)
	ours.Close()
	if HungUp(ours) {
		t.Error("a connection that we have closed is not one that hung up")
	}
}

func TestAClientThatAcknowledgesNothingIsGivenUpInTime(t *testing.T) {
	ours, _ := tcpPair(t)
	SetUserTimeout(ours, 61*time.Second)
	raw, err := ours.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var got int
	if controlErr := raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT) }); controlErr != nil || err != nil {
		t.Fatal(controlErr, err)
	}
	if got != 61_000 {
		t.Errorf("the system waits %d ms", got)
	}
}

func TestTheWatchEndsOnlyContextsOfHandlersAtWork(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var all tracker
	accept := func() (ours *connection, theirs net.Conn) {
		theirs, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		accepted, err := listener{l, &all}.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { accepted.Close() })
		return accepted.(*connection), theirs
	}
	atRest, one := accept()
	answered, two := accept()
	atWork, three := accept()
	staying, four := accept()
	defer four.Close()
	for _, c := range []*connection{answered, atWork, staying} {
		if !c.begin() {
			t.Fatal("a request cannot begin")
		}
	}
	answered.turns.Add(1) // its handler has ended
	one.Close()
	two.Close()
	three.Close()

	done := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() { all.watch(done) })
	select {
	case <-atWork.ctx.Done():
	case <-time.After(10 * time.Second):
		t.Error("nobody has noticed that the client is gone")
	}
	close(done)
	watching.Wait()
	for name, c := range map[string]*connection{"at rest": atRest, "answered": answered, "staying": staying} {
		if c.ctx.Err() != nil {
			t.Errorf("the context of the one that is %s has ended", name)
		}
	}
	if got := all.gone.Load(); got != 1 {
		t.Errorf("%d clients counted as gone", got)
	}
}
