package feed

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	"chatsessions/domain"
	"chatsessions/http/conn"
	"chatsessions/http/problem"
)

// A state is where a reader is on its way; see the package's documentation.
type state uint8

const (
	behind state = iota // a goroutine of its own catches it up
	live                // it waits in its group
	ended               // its stream has ended
)

// A reader is one stream. Only its owner uses it: its group, or one goroutine. It holds no buffer,
// because ten thousand wait on a node.
type reader struct {
	query  query
	caller domain.Caller
	token  string
	conn   net.Conn
	// after is the position up to which it was sent everything that it gets.
	after uint64

	state   state
	wasLive bool // was in its group before
	group   *group
	phase   uint8 // the part of the heartbeat's period in which its heartbeat comes
	pending int   // its place in its group's pending sends, plus one; 0 for none
}

const (
	// socketBuffer is how many bytes the system may hold for a reader that does not read
	// (Linux doubles it): the most that a slow reader costs. lastBuffer is the limit for
	// the end of a stream, so that the last event fits behind the others.
	socketBuffer = 64 << 10
	lastBuffer   = 192 << 10
	// chunk is how many bytes are written at a time, unless an event is larger.
	chunk = 64 << 10
	// lastPatience is how long the last event may take if it does not fit.
	lastPatience = time.Second
	// silentFor is how long a client may acknowledge nothing.
	silentFor = time.Minute
)

// take gives the reader its connection.
func (r *reader) take(connection net.Conn) {
	r.conn = connection
	if c, ok := connection.(*net.TCPConn); ok {
		_ = c.SetWriteBuffer(socketBuffer)
		conn.SetUserTimeout(c, silentFor)
	}
}

// gets reports whether the reader is sent the event. What cannot be read is shown to callers that
// may see every session.
func (r *reader) gets(e *event) bool {
	if e.unreadable && !r.caller.SeesAll() {
		return false
	}
	return r.query.selects(e) && r.caller.MaySee(&e.session)
}

// send writes events of a batch. If the connection takes only part of it, all is false,
// rest is what is missing of an event that was begun, and r.after is the position from
// which to continue. sent counts the events.
func (r *reader) send(b *batch, wanted []int, scratch []byte, write func([]byte) (int, error)) (rest []byte, sent int, all bool, err error) {
	for len(wanted) > 0 {
		n, size := 0, 0
		for n < len(wanted) && (n == 0 || size < chunk) {
			size += b.events[wanted[n]].end - b.events[wanted[n]].start
			n++
		}
		first, last := &b.events[wanted[0]], &b.events[wanted[n-1]]
		bytes := b.bytes[first.start:last.end]
		if len(bytes) != size { // events of others are between them
			scratch = scratch[:0]
			for _, i := range wanted[:n] {
				scratch = append(scratch, b.bytes[b.events[i].start:b.events[i].end]...)
			}
			bytes = scratch
		}
		taken, err := write(bytes)
		if taken < len(bytes) || err != nil {
			rest, begun := r.stoppedAt(b, wanted[:n], taken)
			return rest, sent + begun, false, err
		}
		r.after = last.position
		sent += n
		wanted = wanted[n:]
	}
	r.after = max(r.after, b.last)
	return nil, sent, true, nil
}

// stoppedAt moves r.after behind what was taken, and returns the rest of an event that was begun.
func (r *reader) stoppedAt(b *batch, wanted []int, taken int) (rest []byte, begun int) {
	for _, i := range wanted {
		if taken == 0 {
			break
		}
		e := &b.events[i]
		r.after, begun = e.position, begun+1
		size := e.end - e.start
		if taken < size {
			return append([]byte(nil), b.bytes[e.start+taken:e.end]...), begun
		}
		taken -= size
	}
	return nil, begun
}

// write writes all of b within patience, or until ctx ends. The error is the reason of the end.
func (r *reader) write(ctx context.Context, b []byte, patience time.Duration) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if err := r.conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return 0, errGone
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = r.conn.SetWriteDeadline(time.Now())
		close(interrupted)
	})
	n, err := r.conn.Write(b)
	if !stop() {
		<-interrupted
	}
	reset := r.conn.SetWriteDeadline(time.Time{}) // or it would hold for conn.TryWrite too
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil:
		return n, context.Cause(ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return n, errTooSlow
	case err != nil || reset != nil:
		return n, errGone
	}
	return n, nil
}

// writeLast writes why the stream ends, behind the rest of an event that was begun.
func (r *reader) writeLast(rest []byte, why *problem.Problem) {
	b := appendProblem(rest, "cut-off", r.after, why)
	if c, ok := r.conn.(*net.TCPConn); ok {
		_ = c.SetWriteBuffer(lastBuffer)
	}
	_ = r.conn.SetWriteDeadline(time.Now().Add(lastPatience))
	_, _ = r.conn.Write(b)
}
