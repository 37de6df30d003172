package http

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

// A feedReader is one stream: its connection, and how far it is. Ten thousand of them
// wait on a node, so it holds no buffer. What it belongs to, a room or the goroutine
// that brings it up to date, is the only one to use it.
type feedReader struct {
	feedQuery
	caller domain.Caller
	token  string
	conn   net.Conn
	// after is the position up to which it has been sent everything that it gets.
	after uint64

	room  *feedRoom
	place int   // in its room
	phase uint8 // in which part of the heartbeat's time its own comes
	live  bool  // has been in its room once
	batch int   // in its room's pending sends, plus one; 0 for none
}

const (
	// socketBuffer is what the system may hold for a reader that does not read, in
	// bytes (it takes it twice); the most that a slow one costs. farewellBuffer is what
	// it may hold in the end, so that the last event fits behind the others.
	socketBuffer   = 64 << 10
	farewellBuffer = 192 << 10
	// feedChunk is how much is written at a time, in bytes, unless an event is larger.
	feedChunk = 64 << 10
	// farewellPatience is how long a last event may take that does not fit.
	farewellPatience = time.Second
	// silentFor is how long a client's system may leave what was sent unacknowledged,
	// until the client is taken for gone.
	silentFor = time.Minute
)

// takes gives the reader its connection.
func (r *feedReader) takes(connection net.Conn) {
	r.conn = connection
	if c, ok := connection.(*net.TCPConn); ok {
		_ = c.SetWriteBuffer(socketBuffer)
		conn.SetUserTimeout(c, silentFor)
	}
}

// gets says whether the event is sent to this reader: whether he may see the session as
// the event has left it, and asked for it. What cannot be read is shown to those who may
// see every session.
func (r *feedReader) gets(e *feedEvent) bool {
	if e.unreadable && !r.caller.SeesAll() {
		return false
	}
	return r.wants(e) && r.caller.MaySee(&e.session)
}

// send writes events of a batch. Where not everything was taken, the rest is what is
// missing of an event that was begun, and the others have not been sent: after stands
// where to go on. sent counts the events.
func (r *feedReader) send(b *feedBatch, wanted []int, scratch []byte, write func([]byte) (int, error)) (rest []byte, sent int, all bool, err error) {
	for len(wanted) > 0 {
		n, size := 0, 0
		for n < len(wanted) && (n == 0 || size < feedChunk) {
			size += b.events[wanted[n]].end - b.events[wanted[n]].start
			n++
		}
		first, last := &b.events[wanted[0]], &b.events[wanted[n-1]]
		bytes := b.bytes[first.start:last.end]
		if len(bytes) != size { // there are others between them
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

// stoppedAt moves after behind what was taken of some events, one that was only begun
// included, and returns what is missing of that.
func (r *feedReader) stoppedAt(b *feedBatch, wanted []int, taken int) (rest []byte, begun int) {
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

// errTooSlow is the end of a reader that takes nothing for too long.
var errTooSlow = errors.New("the client does not read what is sent")

// write waits until everything was taken, patience long at most, or until ctx ends.
func (r *feedReader) write(ctx context.Context, b []byte, patience time.Duration) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if err := r.conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
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
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if err = errTooSlow; ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}
	return n, errors.Join(err, r.conn.SetWriteDeadline(time.Time{})) // it would hold for tryWrite too
}

// farewell sends the last event, which says why there are no more and from where to
// resume, behind the rest of one that was begun, and closes the connection.
func (r *feedReader) farewell(rest []byte, why *problem.Problem) {
	b := appendProblem(rest, "cut-off", r.after, why)
	if c, ok := r.conn.(*net.TCPConn); ok {
		_ = c.SetWriteBuffer(farewellBuffer)
	}
	_ = r.conn.SetWriteDeadline(time.Now().Add(farewellPatience))
	_, _ = r.conn.Write(b)
	_ = r.conn.Close()
}
