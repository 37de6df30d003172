package http

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"chatsessions/http/auth"
)

// now is the time of every test.
const now = int64(1_795_348_800_000) // 2026-11-22T12:00:00Z

// A rig is a server over a memory, on a loopback listener.
type rig struct {
	*memory
	t      *testing.T
	server *Server
	url    string
	client *http.Client
	logs   *lockedBuffer
}

func newRig(t *testing.T, change ...func(*Config)) *rig {
	t.Helper()
	m, logs := newMemory(), &lockedBuffer{}
	config := Config{
		Log: m, Reads: m, Feed: m, Tokens: auth.DevTokens{}, WriteWait: time.Second,
		Now:    func() time.Time { return time.UnixMilli(now) },
		Logger: slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, f := range change {
		f(&config)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{memory: m, t: t, server: NewServer(config), url: "http://" + l.Addr().String(), logs: logs, client: &http.Client{Transport: &http.Transport{}}}
	served := make(chan error, 1)
	r.server.Static("/described", "text/plain", []byte("a description"))
	go func() { served <- r.server.Serve(l) }()
	t.Cleanup(func() {
		r.client.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := r.server.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return r
}

// A response is one that was read whole.
type response struct {
	*http.Response
	body string
}

// do sends a request as dev-account-alice, unless the headers (name, value, …) say
// otherwise. A value of "-" leaves the header out; a name that comes twice is sent twice.
func (r *rig) do(method, path, body string, headers ...string) response {
	r.t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	request, err := http.NewRequestWithContext(r.t.Context(), method, r.url, reader)
	if err != nil {
		r.t.Fatal(err)
	}
	request.URL.Opaque = path // as it is
	request.Header.Set("Authorization", "Bearer dev-account-alice")
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	given := map[string]bool{}
	for i := 0; i+1 < len(headers); i += 2 {
		name := http.CanonicalHeaderKey(headers[i])
		if !given[name] {
			request.Header.Del(name)
		}
		given[name] = true
		if headers[i+1] != "-" {
			request.Header.Add(name, headers[i+1])
		}
	}
	got, err := r.client.Do(request)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer got.Body.Close()
	text, err := io.ReadAll(got.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return response{got, string(text)}
}

// must is do for a request that has to be answered with the status.
func (r *rig) must(status int, method, path, body string, headers ...string) response {
	r.t.Helper()
	got := r.do(method, path, body, headers...)
	if got.StatusCode != status {
		r.t.Fatalf("%s %s %.200s: %d %s, want %d", method, path, body, got.StatusCode, got.body, status)
	}
	if status >= 400 && got.Header.Get("Content-Type") != "application/problem+json" && method != http.MethodHead {
		r.t.Errorf("%s %s: %d as %s", method, path, status, got.Header.Get("Content-Type"))
	}
	return got
}

// create returns the id of a new session of alice's.
func (r *rig) create(body string, headers ...string) string {
	r.t.Helper()
	return r.must(200, "POST", "/chat-sessions", body, headers...).field("id")
}

// field returns a member of the body as text.
func (r response) field(name string) string {
	var members map[string]any
	_ = json.Unmarshal([]byte(r.body), &members)
	if members[name] == nil {
		return ""
	}
	return fmt.Sprint(members[name])
}

// pointers returns those of the errors in a problem.
func (r response) pointers() string {
	var p struct{ Errors []struct{ Pointer string } }
	_ = json.Unmarshal([]byte(r.body), &p)
	var all []string
	for _, e := range p.Errors {
		all = append(all, e.Pointer)
	}
	return strings.Join(all, " ")
}

// ids returns the last two digits of the rooms of a list.
func (r response) rooms() string {
	var all []struct{ Room string }
	_ = json.Unmarshal([]byte(r.body), &all)
	var rooms []string
	for _, s := range all {
		rooms = append(rooms, s.Room)
	}
	return strings.Join(rooms, " ")
}

func bearer(role, account string) []string {
	return []string{"Authorization", "Bearer dev-" + role + "-" + account}
}

// raw sends text over a connection of its own and returns everything that comes back
// within the time, or until the connection ends.
func (r *rig) raw(text string, wait time.Duration) string {
	r.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		r.t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(wait))
	got, _ := io.ReadAll(c)
	return string(got)
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// eventually waits for what has to come.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not in time: " + what)
		}
	}
}

// halfClosed sends text, closes its direction of the connection, and returns what comes
// back.
func (r *rig) halfClosed(text string) string {
	r.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		r.t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		r.t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	got, _ := io.ReadAll(c)
	return string(got)
}
