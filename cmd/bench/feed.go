package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// feed measures the cost of idle readers, how soon one gets an event, and how they slow writes.
func (b *bench) feed(ctx context.Context) error {
	if err := b.idleReaders(ctx); err != nil {
		return fmt.Errorf("idle readers: %w", err)
	}
	return b.activeReaders(ctx)
}

// streams are open streams of the feed. They are read until they are closed.
type streams struct {
	conns   []net.Conn
	running sync.WaitGroup
	events  atomic.Int64
	ended   atomic.Int64 // streams that the service ended
	closing atomic.Bool
}

// stream opens streams, each with a token from tokenOf. received may be nil; it gets every event.
func (s *service) stream(ctx context.Context, n int, tokenOf func(i int) string, received func(line []byte)) (*streams, error) {
	const perAddress = 20_000 // a loopback address has a few more ports
	r := &streams{conns: make([]net.Conn, n)}
	var opening errgroup.Group
	opening.SetLimit(64)
	for i := range n {
		opening.Go(func() error {
			from := &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i/perAddress))}
			conn, err := (&net.Dialer{LocalAddr: from}).DialContext(ctx, "tcp", s.addr)
			if err != nil {
				return err
			}
			r.conns[i] = conn
			if _, err := conn.Write(getRequest("/chat-sessions/events", tokenOf(i))); err != nil {
				return err
			}
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				return err
			}
			if response.StatusCode != http.StatusOK {
				return fmt.Errorf("the stream was refused: %s", response.Status)
			}
			r.running.Go(func() { r.read(response.Body, received) })
			return nil
		})
	}
	if err := opening.Wait(); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// read reads a stream to its end.
func (r *streams) read(stream io.Reader, received func([]byte)) {
	lines := bufio.NewScanner(stream)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if bytes.HasPrefix(lines.Bytes(), []byte("data: ")) {
			r.events.Add(1)
			if received != nil {
				received(lines.Bytes())
			}
		}
	}
	if !r.closing.Load() {
		r.ended.Add(1)
	}
}

func (r *streams) close() {
	r.closing.Store(true)
	for _, conn := range r.conns {
		if conn != nil {
			_ = conn.Close()
		}
	}
	r.running.Wait()
}

// devToken is the token of an account if the service was started with --dev.
func devToken(uid string) string { return "dev-account-" + uid }

// idleReaders measures idle streams, and how soon another reader gets an event.
func (b *bench) idleReaders(ctx context.Context) error {
	s, err := b.service(b.binary, b.dir("service"), "--dev")
	if err != nil {
		return err
	}
	if _, _, err := s.create(ctx, 2000, 1); err != nil { // the first requests allocate more than later ones
		return err
	}
	before, err := s.memory(ctx)
	if err != nil {
		return err
	}
	progress("feed: opening %d streams", b.Readers)
	began := time.Now()
	idle, err := s.stream(ctx, b.Readers, func(i int) string { return devToken(fmt.Sprint("stranger-", i)) }, nil)
	if err != nil {
		return err
	}
	defer idle.close()
	opening := time.Since(began)
	after, err := s.memory(ctx)
	if err != nil {
		return err
	}
	f := figures{}
	for range b.Rounds {
		if err := b.deliver(ctx, s, f); err != nil {
			return err
		}
	}
	if n := idle.ended.Load(); n > 0 {
		return fmt.Errorf("%d streams have ended", n)
	}
	n := float64(b.Readers)
	f.add("in use", (after.since(before, "go_memstats_heap_alloc_bytes")+after.since(before, "go_memstats_stack_inuse_bytes"))/n)
	f.add("resident", after.since(before, "process_resident_memory_bytes")/n)
	f.add("goroutines", after.since(before, "go_goroutines"))
	f.add("opened", n/opening.Seconds())
	b.add(f,
		single("memory per idle reader: heap and stacks in use", b.Readers, "byte", "in use"),
		single("memory per idle reader: resident, with garbage", b.Readers, "byte", "resident"),
		single("goroutines more than without readers", b.Readers, "", "goroutines"),
		single("streams opened", b.Readers, "1/s", "opened"),
		single("PATCH beside them, p50", b.Readers, "µs", "answer p50"),
		single("event at a reader, from when the PATCH was sent, p50", b.Readers, "µs", "event p50"),
		single("event at a reader, from when the PATCH was answered, p50", b.Readers, "µs", "behind p50"),
		single("event at a reader, from when the PATCH was answered, p99", b.Readers, "µs", "behind p99"))
	return nil
}

// memory reads the metrics once the resources of the last requests are released.
func (s *service) memory(ctx context.Context) (metrics, error) {
	time.Sleep(25 * time.Second) // a worker of the framework waits for work for ten to twenty
	for range 2 {                // pooled memory survives one collection
		if _, err := s.ask(ctx, "/debug/pprof/heap?gc=1"); err != nil {
			return nil, err
		}
	}
	return s.metrics(ctx)
}

// deliver measures when a reader gets the event of a PATCH, one PATCH after another.
func (b *bench) deliver(ctx context.Context, s *service, f figures) error {
	const changes = 1000
	paths, _, err := s.create(ctx, changes, 1)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	received := make(map[string]time.Time, changes)
	reader, err := s.stream(ctx, 1, func(int) string { return s.crm }, func(line []byte) {
		_, rest, _ := bytes.Cut(line, []byte(`"subject":"`))
		id, _, _ := bytes.Cut(rest, []byte(`"`))
		mu.Lock()
		defer mu.Unlock()
		received[string(id)] = time.Now()
	})
	if err != nil {
		return err
	}
	defer reader.close()
	sent, answered := make([]time.Time, changes), make([]time.Time, changes)
	l := s.starts(paths, 1, b.Duration)
	build := l.request
	l.request = func(out []byte, i int) []byte {
		out = build(out, i)
		sent[i] = time.Now()
		return out
	}
	l.answered = func(i int, _ string) { answered[i] = time.Now() }
	r, err := l.run(ctx)
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(10 * time.Second); int(reader.events.Load()) < r.count; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d events were delivered", reader.events.Load(), r.count)
		}
	}
	var event, behind result
	mu.Lock()
	defer mu.Unlock()
	for i, path := range paths {
		if answered[i].IsZero() {
			continue
		}
		at := received[strings.TrimPrefix(path, "/chat-sessions/")]
		event.latencies, behind.latencies = append(event.latencies, at.Sub(sent[i])), append(behind.latencies, at.Sub(answered[i]))
	}
	slices.Sort(event.latencies)
	slices.Sort(behind.latencies)
	f.add("answer p50", micros(r.percentile(0.5)))
	f.add("event p50", micros(event.percentile(0.5)))
	f.add("behind p50", micros(behind.percentile(0.5)))
	f.add("behind p99", micros(behind.percentile(0.99)))
	return nil
}

// activeReaders measures PATCHes with and without readers. One of them gets each event, or all do.
func (b *bench) activeReaders(ctx context.Context) error {
	s, err := b.service(b.binary, b.dir("service"), "--dev")
	if err != nil {
		return err
	}
	one, all := func(i int) string { return devToken(doctor(i)) }, func(int) string { return s.crm }
	for _, watched := range []struct {
		name    string
		readers int
		tokenOf func(i int) string
	}{
		{"PATCH/s beside 100 readers, each event to one ÷ without", 100, one},
		{"PATCH/s beside 1,000 readers, each event to one ÷ without", 1000, one},
		{"PATCH/s beside 1 reader of everything ÷ without", 1, all},
		{"PATCH/s beside 10 readers of everything ÷ without", 10, all},
	} {
		f := figures{}
		err := b.measure(fmt.Sprintf("feed, %d readers", watched.readers), f, func(int) error {
			for _, prefix := range []string{"without ", ""} {
				if err := b.patchWatched(ctx, s, watched.readers, watched.tokenOf, f, prefix); err != nil {
					return fmt.Errorf("%s: %w", watched.name, err)
				}
			}
			return nil
		},
			ratio(watched.name, watched.readers, "1/s", "PATCHes", "without PATCHes", ""),
			single("  events to them", watched.readers, "1/s", "events"),
			single("  streams cut off", watched.readers, "", "cut off"))
		if err != nil {
			return err
		}
	}
	return nil
}

// patchWatched starts sessions, each with another doctor; under a prefix, without readers.
func (b *bench) patchWatched(ctx context.Context, s *service, readers int, tokenOf func(int) string, f figures, prefix string) error {
	const connections = 64
	_, probe, err := s.create(ctx, 2000, 1)
	if err != nil {
		return err
	}
	paths, _, err := s.create(ctx, int(1.5*probe.perSecond()*b.Duration.Seconds()), readers)
	if err != nil {
		return err
	}
	var watching *streams
	if prefix == "" {
		if watching, err = s.stream(ctx, readers, tokenOf, nil); err != nil {
			return err
		}
		defer watching.close()
	}
	patched, err := s.starts(paths, connections, b.Duration).allowed(ctx)
	if err != nil {
		return fmt.Errorf("PATCH: %w", err)
	}
	f.add(prefix+"PATCHes", patched.perSecond())
	if watching != nil {
		f.add("events", float64(watching.events.Load())/patched.elapsed.Seconds())
		f.add("cut off", float64(watching.ended.Load()))
	}
	return nil
}
