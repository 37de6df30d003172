package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
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
	answered func(i int, a *reply)        // may be nil; called by many goroutines
}

// A reply is the part of a response that the generator reads.
type reply struct {
	status   int
	location string
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

// allowed runs the load, and fails if a request was refused.
func (l *load) allowed(ctx context.Context) (*result, error) {
	r, err := l.run(ctx)
	if err == nil && len(r.refused) > 0 {
		err = fmt.Errorf("refused: %v", r.refused)
	}
	return r, err
}

// run sends the load over its connections. Each waits for a response before it sends the
// next request.
func (l *load) run(ctx context.Context) (*result, error) {
	ctx, cancel := context.WithTimeout(ctx, l.duration)
	defer cancel()
	var (
		next    atomic.Int64
		mu      sync.Mutex
		total   = &result{refused: map[int]int{}}
		failure error
		ready   sync.WaitGroup
		running sync.WaitGroup
		begin   = make(chan struct{})
		started time.Time
	)
	for range l.connections {
		ready.Add(1)
		running.Go(func() {
			conn, err := net.Dial("tcp", l.addr)
			ready.Done()
			<-begin
			var mine result
			if err == nil {
				err = l.drive(ctx, conn, started, &next, &mine)
				err = errors.Join(err, conn.Close())
			}
			mu.Lock()
			defer mu.Unlock()
			failure = errors.Join(failure, err)
			total.count += mine.count
			total.latencies = append(total.latencies, mine.latencies...)
			for status, n := range mine.refused {
				total.refused[status] += n
			}
		})
	}
	ready.Wait()
	started = time.Now()
	close(begin)
	running.Wait()
	total.elapsed = time.Since(started)
	slices.Sort(total.latencies)
	return total, failure
}

// drive sends requests over one connection.
func (l *load) drive(ctx context.Context, conn net.Conn, started time.Time, next *atomic.Int64, r *result) error {
	r.refused = map[int]int{}
	in := bufio.NewReaderSize(conn, 4<<10)
	var out []byte
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
		a, err := readReply(in)
		if err != nil {
			return err
		}
		if a.status == 200 {
			r.count++
			r.latencies = append(r.latencies, time.Since(sent))
		} else {
			r.refused[a.status]++
		}
		if l.answered != nil {
			l.answered(i, a)
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

// readReply reads one response and skips its body.
func readReply(in *bufio.Reader) (*reply, error) {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	if len(line) < 12 {
		return nil, fmt.Errorf("not HTTP: %q", line)
	}
	a := &reply{}
	if a.status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return nil, fmt.Errorf("not HTTP: %q", line)
	}
	length := 0
	for {
		if line, err = in.ReadSlice('\n'); err != nil {
			return nil, err
		}
		header := bytes.TrimRight(line, "\r\n")
		if len(header) == 0 {
			break
		}
		if value, ok := bytes.CutPrefix(header, contentLength); ok {
			if length, err = strconv.Atoi(string(value)); err != nil {
				return nil, err
			}
		}
		if value, ok := bytes.CutPrefix(header, location); ok {
			a.location = string(value)
		}
	}
	_, err = in.Discard(length)
	return a, err
}

var contentLength, location = []byte("Content-Length: "), []byte("Location: ")
