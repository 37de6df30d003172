package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// A load is a number of connections that send requests to a service. The generator shares
// the machine with the service, so it does only what HTTP/1.1 requires.
type load struct {
	addr        string
	connections int
	requests    int // at most
	duration    time.Duration
	// rate, if set, is the number of requests per second, sent even if earlier ones are
	// not answered yet, as long as a connection is free. A latency then begins when the
	// request was due.
	rate     float64
	request  func(b []byte, i int) []byte // appends the i-th request
	answered func(i int, location string) // may be nil; called by many goroutines
}

// A result is the outcome of a load, or of a baseline.
type result struct {
	count     int
	elapsed   time.Duration
	latencies []time.Duration // sorted
	refused   map[int]int     // responses other than 200, by status
}

func (r *result) perSecond() float64 { return float64(r.count) / r.elapsed.Seconds() }

func (r *result) percentile(p float64) time.Duration {
	if len(r.latencies) == 0 {
		return 0
	}
	return r.latencies[int(p*float64(len(r.latencies)-1))]
}

// inParallel runs n workers and merges their results.
func inParallel(n int, work func(worker int, r *result) error) (*result, error) {
	var (
		mu      sync.Mutex
		total   = &result{refused: map[int]int{}}
		failure error
		running sync.WaitGroup
		started = time.Now()
	)
	for worker := range n {
		running.Go(func() {
			mine := result{refused: map[int]int{}}
			err := work(worker, &mine)
			mu.Lock()
			defer mu.Unlock()
			failure = errors.Join(failure, err)
			total.latencies = append(total.latencies, mine.latencies...)
			for status, n := range mine.refused {
				total.refused[status] += n
			}
		})
	}
	running.Wait()
	total.elapsed, total.count = time.Since(started), len(total.latencies)
	slices.Sort(total.latencies)
	return total, failure
}

// allowed runs the load, and fails if a request was refused.
func (l *load) allowed(ctx context.Context) (*result, error) {
	r, err := l.run(ctx)
	if err == nil && len(r.refused) > 0 {
		err = fmt.Errorf("refused: %v", r.refused)
	}
	return r, err
}

// run sends the load. Each connection waits for a response before it sends the next request.
func (l *load) run(ctx context.Context) (*result, error) {
	conns := make([]net.Conn, l.connections)
	for i := range conns {
		conn, err := net.Dial("tcp", l.addr)
		if err != nil {
			return nil, err
		}
		defer func() { _ = conn.Close() }()
		conns[i] = conn
	}
	ctx, cancel := context.WithTimeout(ctx, l.duration)
	defer cancel()
	var next atomic.Int64
	started := time.Now()
	return inParallel(l.connections, func(i int, r *result) error { return l.drive(ctx, conns[i], started, &next, r) })
}

// drive sends requests over one connection.
func (l *load) drive(ctx context.Context, conn net.Conn, started time.Time, next *atomic.Int64, r *result) error {
	in := bufio.NewReaderSize(conn, 4<<10)
	var out []byte
	var head fasthttp.ResponseHeader
	for ctx.Err() == nil {
		i := int(next.Add(1)) - 1
		if i >= l.requests {
			return nil
		}
		out = l.request(out[:0], i)
		sent := time.Now()
		if l.rate > 0 {
			sent = started.Add(time.Duration(float64(i) / l.rate * float64(time.Second)))
			time.Sleep(time.Until(sent))
		}
		if _, err := conn.Write(out); err != nil {
			return err
		}
		if err := head.Read(in); err != nil {
			return err
		}
		if _, err := in.Discard(head.ContentLength()); err != nil {
			return err
		}
		if status := head.StatusCode(); status == fasthttp.StatusOK {
			r.latencies = append(r.latencies, time.Since(sent))
		} else {
			r.refused[status]++
		}
		if l.answered != nil {
			l.answered(i, string(head.Peek("Location")))
		}
	}
	return nil
}

// cycle makes a load that repeats the requests for a duration.
func cycle(addr string, connections int, duration time.Duration, requests ...[]byte) *load {
	return &load{
		addr: addr, connections: connections, requests: math.MaxInt, duration: duration,
		request: func(b []byte, i int) []byte { return append(b, requests[i%len(requests)]...) },
	}
}

// getRequest is a GET with a token.
func getRequest(path, token string) []byte {
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n\r\n", path, token)
}
