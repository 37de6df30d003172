package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// feed measures the readers of GET /chat-sessions/events: what an idle one takes, how
// soon one hears of a change, and what they leave of the writes.
func (b *bench) feed(ctx context.Context) error {
	if err := b.idleReaders(ctx); err != nil {
		return fmt.Errorf("idle readers: %w", err)
	}
	return b.activeReaders(ctx)
}

// streams are open feeds that are read until they are closed.
type streams struct {
	conns   []net.Conn
	running sync.WaitGroup
	events  atomic.Int64
	ended   atomic.Int64 // those that the service has ended
	closing atomic.Bool
}

// read opens streams, each with a token that tokenOf gives; shown, which may be nil, is
// called with every line that holds an event.
func (s *service) read(ctx context.Context, n int, tokenOf func(i int) string, shown func(line []byte)) (*streams, error) {
	const perAddress = 20_000 // a loopback address has ports for some more
	r := &streams{}
	opened := make(chan error, n)
	slots := make(chan struct{}, 64)
	for i := range n {
		slots <- struct{}{}
		from := &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i/perAddress))}
		conn, err := (&net.Dialer{LocalAddr: from}).DialContext(ctx, "tcp", s.addr)
		if err != nil {
			r.close()
			return nil, err
		}
		r.conns = append(r.conns, conn)
		r.running.Go(func() {
			_, err := fmt.Fprintf(conn, "GET /chat-sessions/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n\r\n", tokenOf(i))
			if err == nil {
				err = r.begin(conn)
			}
			opened <- err
			<-slots
			if err == nil {
				r.drain(conn, shown)
			}
		})
	}
	for range n {
		if err := <-opened; err != nil {
			r.close()
			return nil, err
		}
	}
	return r, nil
}

// begin reads the head of a stream, byte by byte: nothing is kept for a stream that is
// idle, here either.
func (r *streams) begin(conn net.Conn) error {
	var head []byte
	for one := make([]byte, 1); !bytes.HasSuffix(head, []byte("\r\n\r\n")); head = append(head, one[0]) {
		if _, err := conn.Read(one); err != nil {
			return err
		}
	}
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 200")) {
		return fmt.Errorf("the stream was refused: %s", head)
	}
	return nil
}

// drain reads a stream to its end.
func (r *streams) drain(conn net.Conn, shown func([]byte)) {
	in := bufio.NewReaderSize(conn, 4<<10)
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			if !r.closing.Load() {
				r.ended.Add(1)
			}
			return
		}
		line = append(line, part...)
		if err != nil {
			continue
		}
		if bytes.HasPrefix(line, []byte("data: ")) {
			r.events.Add(1)
			if shown != nil {
				shown(line)
			}
		}
		line = line[:0]
	}
}

func (r *streams) close() {
	r.closing.Store(true)
	for _, conn := range r.conns {
		_ = conn.Close()
	}
	r.running.Wait()
}

// devToken stands for an account where the service is started with --dev.
func devToken(uid string) string { return "dev-account-" + uid }

// idleReaders measures what streams take on which nothing happens, and how soon another
// one beside them hears of a change.
func (b *bench) idleReaders(ctx context.Context) (err error) {
	s, err := startService(b.binary, b.dir("service"), withArgs("--dev"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	if _, _, err := s.create(ctx, 2000); err != nil { // what the first requests take is not the readers'
		return err
	}
	before, err := s.memory(ctx)
	if err != nil {
		return err
	}
	progress("feed: opening %d streams", b.Readers)
	began := time.Now()
	idle, err := s.read(ctx, b.Readers, func(i int) string { return devToken(fmt.Sprint("stranger-", i)) }, nil)
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
		if err := b.hear(ctx, s, f); err != nil {
			return err
		}
	}
	if n := idle.ended.Load(); n > 0 {
		return fmt.Errorf("%d streams have ended", n)
	}
	n := float64(b.Readers)
	perReader := func(what string, part func(memoryOf) float64) row {
		return row{Measured: what, Connections: b.Readers, Service: (part(after) - part(before)) / n, Unit: "byte"}
	}
	b.rows = append(b.rows,
		perReader("memory per idle reader: heap and stacks in use", func(m memoryOf) float64 { return m.inUse }),
		perReader("memory per idle reader: resident, with what the collector leaves lying", func(m memoryOf) float64 { return m.resident }),
		row{Measured: "goroutines more than without readers", Connections: b.Readers, Service: after.goroutines - before.goroutines},
		row{Measured: "streams opened", Connections: b.Readers, Service: n / opening.Seconds(), Unit: "1/s"},
		f.single("PATCH beside them, p50", b.Readers, "µs", "answer p50"),
		f.single("event at a reader, from when the PATCH was sent, p50", b.Readers, "µs", "event p50"),
		f.single("event at a reader, from when the PATCH was answered, p50", b.Readers, "µs", "behind p50"),
		f.single("event at a reader, from when the PATCH was answered, p99", b.Readers, "µs", "behind p99"),
	)
	return nil
}

// A memoryOf is what a service takes, in bytes.
type memoryOf struct{ inUse, resident, goroutines float64 }

// memory measures when what served the last requests is gone.
func (s *service) memory(ctx context.Context) (memoryOf, error) {
	time.Sleep(25 * time.Second) // a worker of the framework waits for work for ten to twenty
	for range 2 {                // what is pooled survives one collection
		if _, err := s.ask(ctx, "/debug/pprof/heap?gc=1"); err != nil {
			return memoryOf{}, err
		}
	}
	m, err := s.metrics(ctx)
	if err != nil {
		return memoryOf{}, err
	}
	resident, err := residentMemory(s.pid())
	return memoryOf{m["go_memstats_heap_alloc_bytes"] + m["go_memstats_stack_inuse_bytes"], resident, m["go_goroutines"]}, err
}

// hear measures when a reader gets the event of a PATCH, one PATCH after the other.
func (b *bench) hear(ctx context.Context, s *service, f figures) error {
	const changes = 1000
	paths, _, err := s.create(ctx, changes)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	seen := make(map[string]time.Time, changes)
	reader, err := s.read(ctx, 1, func(int) string { return s.crm }, func(line []byte) {
		_, rest, _ := bytes.Cut(line, []byte(`"subject":"`))
		id, _, _ := bytes.Cut(rest, []byte(`"`))
		mu.Lock()
		defer mu.Unlock()
		seen[string(id)] = time.Now()
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
	l.answered = func(i int, _ *reply) { answered[i] = time.Now() }
	r, err := l.run(ctx)
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(10 * time.Second); int(reader.events.Load()) < r.count; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d events came", reader.events.Load(), r.count)
		}
	}
	var event, behind []time.Duration
	for i, path := range paths {
		if answered[i].IsZero() {
			continue
		}
		at := seen[strings.TrimPrefix(path, "/chat-sessions/")]
		event, behind = append(event, at.Sub(sent[i])), append(behind, at.Sub(answered[i]))
	}
	slices.Sort(event)
	slices.Sort(behind)
	f.add("answer p50", micros(r.percentile(0.5)))
	f.add("event p50", micros(event[len(event)/2]))
	f.add("behind p50", micros(behind[len(behind)/2]))
	f.add("behind p99", micros(behind[len(behind)*99/100]))
	return nil
}

// activeReaders measures PATCHes beside readers that get something, in turn with PATCHes
// without any. Every event goes to one of the readers, or to all.
func (b *bench) activeReaders(ctx context.Context) (err error) {
	const connections = 64
	s, err := startService(b.binary, b.dir("service"), withArgs("--dev"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	for _, watched := range []struct {
		name    string
		readers int
		tokenOf func(i int) string
	}{
		{"PATCH/s beside 100 readers, each event to one ÷ without", 100, func(i int) string { return devToken(doctor(i)) }},
		{"PATCH/s beside 1,000 readers, each event to one ÷ without", 1000, func(i int) string { return devToken(doctor(i)) }},
		{"PATCH/s beside 1 reader of everything ÷ without", 1, func(int) string { return s.crm }},
		{"PATCH/s beside 10 readers of everything ÷ without", 10, func(int) string { return s.crm }},
	} {
		f := figures{}
		for round := range b.Rounds {
			for _, prefix := range []string{"alone ", ""} {
				if err := b.patchWatched(ctx, s, connections, watched.readers, watched.tokenOf, f, prefix); err != nil {
					return fmt.Errorf("%s: %w", watched.name, err)
				}
			}
			progress("feed, %d readers, round %d of %d: %.0f PATCH/s, %.0f without readers; %.0f events/s to them, %.0f streams cut off",
				watched.readers, round+1, b.Rounds, f["PATCHes"][round], f["alone PATCHes"][round], f["events"][round], f["cut off"][round])
		}
		b.rows = append(b.rows,
			f.ratio(watched.name, watched.readers, "1/s", "PATCHes", "alone PATCHes", ""),
			f.single("  events to them", watched.readers, "1/s", "events"),
			f.single("  streams cut off", watched.readers, "", "cut off"),
		)
	}
	return nil
}

// patchWatched starts sessions, each of which another doctor takes part in, with readers
// or, under the prefix, without.
func (b *bench) patchWatched(ctx context.Context, s *service, connections, readers int, tokenOf func(int) string, f figures, prefix string) error {
	_, probe, err := s.create(ctx, 2000)
	if err != nil {
		return err
	}
	paths := make([]string, int(1.5*probe.perSecond()*b.Duration.Seconds()))
	create := &load{
		addr: s.addr, connections: min(len(paths), 256), requests: len(paths), duration: 10 * time.Minute,
		request: func(out []byte, i int) []byte {
			return s.append(out, "POST", "/chat-sessions", fmt.Sprintf(`{"participants":["%s","%s"],"room":"consultation"}`, account, doctor(i%readers)))
		},
		answered: func(i int, a *reply) { paths[i] = a.location },
	}
	if created, err := create.run(ctx); err != nil || created.count != len(paths) {
		return fmt.Errorf("creating sessions: %v %w", created.refused, err)
	}
	var watching *streams
	if prefix == "" {
		if watching, err = s.read(ctx, readers, tokenOf, nil); err != nil {
			return err
		}
		defer watching.close()
	}
	patched, err := s.starts(paths, connections, b.Duration).run(ctx)
	if err == nil && len(patched.refused) > 0 {
		err = fmt.Errorf("refused: %v", patched.refused)
	}
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
