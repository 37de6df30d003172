package conn

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"
)

// A rig is a server of an app whose handlers a test can hold up.
type rig struct {
	*Server
	t       *testing.T
	address string
	hold    chan struct{} // /hold waits for it, or for the end of its client
	holding atomic.Int32
	left    atomic.Int32 // holds that ended because the client left
	seen    chan string
	served  chan error
}

const limit = 64 << 10

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, hold: make(chan struct{}), seen: make(chan string, 100), served: make(chan error, 1)}
	app := fiber.New(fiber.Config{
		DisableStartupMessage: true, StreamRequestBody: true, BodyLimit: limit, ReadBufferSize: 8 << 10,
		ReadTimeout: time.Minute, IdleTimeout: time.Minute,
	})
	app.Use(TakeBody(limit))
	app.All("/body", func(c *fiber.Ctx) error {
		b := BodyOf(c)
		return c.SendString(fmt.Sprintf("%d %v %v", len(b.Bytes), b.TooLarge, b.Err))
	})
	app.Get("/query", func(c *fiber.Ctx) error { return c.SendString(Query(c)) })
	app.Get("/hold", func(c *fiber.Ctx) error {
		r.holding.Add(1)
		defer r.holding.Add(-1)
		select {
		case <-r.hold:
		case <-Context(c).Done():
			r.left.Add(1)
		}
		return c.SendString(fmt.Sprint("gone ", Gone(c.Context())))
	})
	app.Get("/stream", func(c *fiber.Ctx) error {
		c.Set("X-Stream", "yes")
		TakeOver(c, func(conn net.Conn, head []byte) {
			_, tcp := conn.(*net.TCPConn)
			_, _ = conn.Write(append(head, fmt.Sprint("own ", tcp)...))
			_ = conn.Close()
		})
		return nil
	})
	r.Server = NewServer(app, func(ctx *fasthttp.RequestCtx, took time.Duration) {
		if took > 0 {
			r.seen <- string(ctx.Method()) + " " + string(ctx.Path())
		}
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.address = l.Addr().String()
	go func() { r.served <- r.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		r.Drain()
		if err := r.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *rig) dial() *net.TCPConn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c.(*net.TCPConn)
}

func (r *rig) send(c net.Conn, text string) {
	r.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) eventually(what string, so func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatal("not in time: " + what)
		}
	}
}

// statuses sends text and returns the statuses and bodies that come back.
func (r *rig) answers(text string) (all []string) {
	r.t.Helper()
	c := r.dial()
	r.send(c, text)
	_ = c.CloseWrite()
	got, _ := io.ReadAll(c)
	for _, part := range strings.Split(string(got), "HTTP/1.1 ")[1:] {
		head, body, _ := strings.Cut(part, "\r\n\r\n")
		closes := ""
		if strings.Contains(head, "Connection: close") {
			closes = " close"
		}
		all = append(all, head[:3]+" "+body+closes)
	}
	return all
}

func TestABodyIsReadWhole(t *testing.T) {
	r := newRig(t)
	post := func(headers, body string) string {
		return "POST /body HTTP/1.1\r\nHost: x\r\n" + headers + "\r\n" + body
	}
	length := func(n int) string { return fmt.Sprintf("Content-Length: %d\r\n", n) }
	x := strings.Repeat("x", limit+1)
	next := post(length(2), "{}")
	for name, tt := range map[string]struct {
		text string
		want []string
	}{
		"none":                              {"GET /body HTTP/1.1\r\nHost: x\r\n\r\n" + next, []string{"200 0 false <nil>", "200 2 false <nil>"}},
		"empty":                             {post(length(0), "") + next, []string{"200 0 false <nil>", "200 2 false <nil>"}},
		"usual":                             {post(length(usualBody), x[:usualBody]) + next, []string{"200 4096 false <nil>", "200 2 false <nil>"}},
		"more than usual":                   {post(length(usualBody+1), x[:usualBody+1]) + next, []string{"200 4097 false <nil>", "200 2 false <nil>"}},
		"at the limit":                      {post(length(limit), x[:limit]) + next, []string{"200 65536 false <nil>", "200 2 false <nil>"}},
		"beyond the limit":                  {post(length(limit+1), x) + next, []string{"200 0 true <nil>", "200 2 false <nil>"}},
		"in chunks":                         {post("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n") + next, []string{"200 5 false <nil>", "200 2 false <nil>"}},
		"large chunks":                      {post("Transfer-Encoding: chunked\r\n", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", limit+1, x)) + next, []string{"200 0 true <nil>", "200 2 false <nil>"}},
		"of a resource that does not exist": {strings.Replace(post(length(5), "abcde"), "/body", "/x", 1) + next, []string{"404 Cannot POST /x", "200 2 false <nil>"}},
		"cut":                               {post(length(limit), x[:limit/2]), []string{"200 0 false unexpected EOF close"}},
		"chunks that are cut":               {post("Transfer-Encoding: chunked\r\n", "4000\r\n"+x[:0x3000]), nil},
		"far too large":                     {post(length(maxDiscard+1), x), []string{"200 0 true <nil> close"}},
		"of two lengths":                    {post(length(2)+"Transfer-Encoding: chunked\r\n", "0\r\n\r\n"+next), []string{"200 0 true <nil> close"}},
		"an unknown method":                 {"BREW /body HTTP/1.1\r\nHost: x\r\n\r\n" + next, []string{"200 0 false <nil>", "200 2 false <nil>"}},
	} {
		got := r.answers(tt.text)
		if name == "far too large" && len(got) == 0 {
			continue // the reset was quicker than the response
		}
		if tt.want == nil { // it has to be an error, and the end
			if len(got) != 1 || !strings.HasSuffix(got[0], "close") || strings.Contains(got[0], "<nil>") {
				t.Errorf("%s: %q", name, got)
			}
		} else if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

func TestReadBody(t *testing.T) {
	endless := io.LimitReader(zeros{}, 2*maxDiscard)
	if b := readBody(endless, -1, 100); !b.TooLarge || !b.cut {
		t.Errorf("endless: %+v", b)
	}
	if b := readBody(strings.NewReader("abc"), 5, 100); b.Err == nil {
		t.Errorf("cut: %+v", b)
	}
	if b := readBody(strings.NewReader(""), 5, 100); b.Err == nil {
		t.Errorf("nothing: %+v", b)
	}
	if b := readBody(strings.NewReader(strings.Repeat("x", 5000)), 6000, 10_000); b.Err == nil {
		t.Errorf("cut: %+v", b)
	}
	if b := readBody(strings.NewReader(strings.Repeat("x", 101)), -1, 100); !b.TooLarge || b.cut {
		t.Errorf("too large: %+v", b)
	}
	if b := readBody(strings.NewReader(strings.Repeat("x", 100)), -1, 100); len(b.Bytes) != 100 {
		t.Errorf("at the limit: %+v", b)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestAnAmbiguousLength(t *testing.T) {
	for head, want := range map[string]bool{
		"HTTP/1.1\r\nContent-Length: 1\r\n": false, "HTTP/1.1\r\nTransfer-Encoding: chunked\r\n": false, "HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n": true,
		"HTTP/1.0\r\nContent-Length: 1\r\n": false, "HTTP/1.1\r\nTRANSFER-ENCODING: identity\r\nContent-Length: 1\r\n": true,
	} {
		var request fasthttp.Request
		if err := request.Header.Read(bufio.NewReader(strings.NewReader("POST / " + head + "Host: x\r\n\r\n"))); err != nil {
			t.Fatal(err)
		}
		if got := AmbiguousLength(&request.Header); got != want {
			t.Errorf("%q: %v", head, got)
		}
	}
}

func TestAQueryIsReadAsItIs(t *testing.T) {
	r := newRig(t)
	for target, want := range map[string]string{"/query": "", "/query?": "", "/query?a=1": "a=1", "/query?a=#1&b=?": "a=#1&b=?", "/query?a=%23": "a=%23"} {
		if got := r.answers("GET " + target + " HTTP/1.1\r\nHost: x\r\n\r\n"); len(got) != 1 || got[0] != "200 "+want {
			t.Errorf("%s: %q", target, got)
		}
	}
}

func TestAStreamTakesTheConnectionOver(t *testing.T) {
	r := newRig(t)
	got := r.raw("GET /stream HTTP/1.1\r\nHost: x\r\n\r\nGET /query HTTP/1.1\r\nHost: x\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || !strings.Contains(got, "X-Stream: yes\r\n") || !strings.HasSuffix(got, "\r\n\r\nown true") ||
		strings.Contains(got, "Content-Length") || strings.Contains(got, "Transfer-Encoding") {
		t.Errorf("%q", got)
	}
	r.eventually("the connection is forgotten", func() bool {
		r.tracker.mu.Lock()
		defer r.tracker.mu.Unlock()
		return len(r.tracker.open) == 0
	})
}

func (r *rig) raw(text string) string {
	c := r.dial()
	r.send(c, text)
	got, _ := io.ReadAll(c)
	return string(got)
}

func TestTheContextOfAClientThatLeft(t *testing.T) {
	r := newRig(t)
	stays, leaves := r.dial(), r.dial()
	for _, c := range []net.Conn{stays, leaves} {
		r.send(c, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	r.eventually("both wait", func() bool { return r.holding.Load() == 2 })
	_ = leaves.CloseWrite() // it can still read
	got, _ := io.ReadAll(leaves)
	if !strings.HasSuffix(string(got), "gone true") || r.Gone() != 1 || r.holding.Load() != 1 {
		t.Errorf("%q, %d gone", got, r.Gone())
	}
	close(r.hold)
	response, err := http.ReadResponse(bufio.NewReader(stays), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if text, _ := io.ReadAll(response.Body); string(text) != "gone false" || r.left.Load() != 1 {
		t.Errorf("%s", text)
	}
}

func TestADrainClosesWhatIsAtRest(t *testing.T) {
	r := newRig(t)
	silent, used, busy := r.dial(), r.dial(), r.dial()
	r.send(used, "GET /query HTTP/1.1\r\nHost: x\r\n\r\n")
	response, err := http.ReadResponse(bufio.NewReader(used), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	r.send(busy, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
	r.eventually("one request is in flight", func() bool { return r.holding.Load() == 1 })
	r.eventually("the others are at rest", func() bool {
		r.tracker.mu.Lock()
		defer r.tracker.mu.Unlock()
		resting := 0
		for c := range r.tracker.open {
			if c.state.Load() == 0 {
				resting++
			}
		}
		return resting == 2
	})
	r.Drain()
	for name, c := range map[string]net.Conn{"silent": silent, "used": used} {
		if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil {
			t.Errorf("the %s one is open", name)
		}
	}
	if late, err := net.Dial("tcp", r.address); err == nil {
		if n, err := late.Read(make([]byte, 1)); n > 0 || err == nil {
			t.Error("a new one stays")
		}
		late.Close()
	}
	r.hold <- struct{}{}
	if got, _ := io.ReadAll(busy); !strings.HasSuffix(string(got), "gone false") {
		t.Errorf("the request in flight got %q", got)
	}
	if err := r.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-r.served; err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", r.address); err == nil {
		t.Error("it still listens")
	}
	r.served <- nil
}

func TestNoRequestBeginsOnAConnectionThatIsClosed(t *testing.T) {
	var all tracker
	ours, _ := tcpPair(t)
	c := &connection{Conn: ours}
	c.ctx, c.cancel = context.WithCancel(t.Context())
	if !all.add(c) || !c.begin() || c.turns.Load() != 1 {
		t.Fatal("a request cannot begin")
	}
	all.drain()
	if !c.begin() { // one behind the other
		t.Error("a connection that is busy is not closed")
	}
	all.changed(c, fasthttp.StateIdle)
	if c.begin() || c.state.Load() != closed {
		t.Error("a request begins on a closed connection")
	}
	if c.ctx.Err() != nil {
		t.Error("the context ends with the connection")
	}
	all.changed(c, fasthttp.StateClosed)
	if c.ctx.Err() == nil || len(all.open) != 0 {
		t.Error("the connection is kept")
	}
	if all.add(c) {
		t.Error("a new connection while draining")
	}
}

// A request may arrive just when the drain closes its connection: its client must get no
// response at all, because a response would say that it was carried out.
func TestARequestOnAConnectionThatTheDrainClosesIsNotAnswered(t *testing.T) {
	r := newRig(t)
	c := r.dial()
	r.eventually("the connection is known", func() bool {
		r.tracker.mu.Lock()
		defer r.tracker.mu.Unlock()
		for own := range r.tracker.open {
			own.state.Store(closed) // as the drain does before it closes the socket
		}
		return len(r.tracker.open) == 1
	})
	r.send(c, "GET /query HTTP/1.1\r\nHost: x\r\n\r\n")
	if got, _ := io.ReadAll(c); len(got) > 0 || len(r.seen) > 0 {
		t.Errorf("answered with %q", got)
	}
}

func TestAShutdownBeforeServingClosesTheListener(t *testing.T) {
	s := NewServer(fiber.New(fiber.Config{DisableStartupMessage: true}), nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Drain()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	select {
	case err := <-served:
		t.Log(err)
	case <-time.After(10 * time.Second):
		t.Error("it serves")
		_ = l.Close()
	}
	if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("it still listens")
		c.Close()
	}
}

func TestEveryRequestIsObserved(t *testing.T) {
	r := newRig(t)
	r.answers("GET /query HTTP/1.1\r\nHost: x\r\n\r\nBREW /x HTTP/1.1\r\nHost: x\r\n\r\n")
	if a, b := <-r.seen, <-r.seen; a != "GET /query" || b != "TRACE /x" {
		t.Error(a, b)
	}
}

func TestAServerThatCannotListen(t *testing.T) {
	r := NewServer(fiber.New(fiber.Config{DisableStartupMessage: true}), nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Serve(broken{l}); err == nil {
		t.Error("it serves")
	}
	select {
	case <-r.ended.Done():
	default:
		t.Error("its goroutines do not end")
	}
}

// A broken listener accepts nothing.
type broken struct{ net.Listener }

func (broken) Accept() (net.Conn, error) { return nil, errors.New("broken") }

func TestTryWriteDoesNotWait(t *testing.T) {
	ours, theirs := tcpPair(t)
	SetUserTimeout(ours, time.Minute)
	block := make([]byte, 1<<20)
	total := 0
	for range 1000 {
		n, err := TryWrite(ours, block)
		if err != nil {
			t.Fatal(err)
		}
		if total += n; n == 0 {
			break
		}
	}
	if total == 0 || total == 1000<<20 {
		t.Fatalf("%d bytes were taken", total)
	}
	if n, err := io.CopyN(io.Discard, theirs, int64(total)); n != int64(total) || err != nil {
		t.Errorf("%d of %d arrived: %v", n, total, err)
	}
	_ = theirs.SetLinger(0)
	_ = theirs.Close()
	time.Sleep(10 * time.Millisecond)
	if n, err := TryWrite(ours, block); n != 0 || err == nil {
		t.Errorf("%d, %v after a reset", n, err)
	}
	_ = ours.Close()
	if n, err := TryWrite(ours, block); n != 0 || err == nil {
		t.Errorf("%d, %v after the close", n, err)
	}
}
