package eventstore

import (
	"bytes"
	"chatsessions/eventstore/envelope"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/synadia-io/orbit.go/jetstreamext"
)

// A connection is a node's way to the simulated log; it is the Log's requester.
type connection struct {
	world    *world
	node     int
	dead     bool // its process is gone and hears nothing more
	broken   bool
	deposed  bool       // it leads, mostly, to a leader that was replaced and does not know it
	underway []*request // that wait for an answer

	batch   string // of the message that was sent last, and when that arrives
	batchAt time.Time
}

// A request is a message on its way, and its answer.
type request struct {
	conn   *connection
	msg    *nats.Msg // as it was when it was sent
	answer chan answer
	done   bool // it was answered: whatever comes later finds nobody

	deposed bool        // it has reached a leader that was replaced
	by      *deposition // of the leader that answered, where it was
}

type answer struct {
	msg  *nats.Msg
	err  error
	what string // for the trace
}

func (c *connection) IsClosed() bool { return false }

func (c *connection) PublishMsg(m *nats.Msg) error {
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	return c.send(&request{conn: c, msg: copyMsg(m)})
}

func (c *connection) RequestMsgWithContext(ctx context.Context, m *nats.Msg) (*nats.Msg, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r := &request{conn: c, msg: copyMsg(m), answer: make(chan answer, 1)}
	c.world.mu.Lock()
	err := c.send(r)
	c.world.mu.Unlock()
	if err != nil {
		return nil, err
	}
	select {
	case a := <-r.answer:
		made, _ := ctx.Value(attemptKey{}).(*attempt)
		if made != nil && strings.HasPrefix(m.Subject, "$JS.API.STREAM.MSG.GET.") && bytes.Contains(m.Data, []byte("last_by_subj")) {
			made.lastDeposed = r.by
		}
		return a.msg, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// copyMsg copies a message as sending it does: its owner goes on to change it.
func copyMsg(m *nats.Msg) *nats.Msg {
	return &nats.Msg{Subject: m.Subject, Header: maps.Clone(m.Header), Data: m.Data}
}

func (c *connection) send(r *request) error {
	w := c.world
	if c.dead {
		return nil
	}
	if c.broken {
		return nats.ErrReconnectBufExceeded
	}
	if r.answer != nil {
		c.underway = slices.DeleteFunc(c.underway, func(r *request) bool { return r.done })
		c.underway = append(c.underway, r)
	}
	w.note("node %d asks %s %s", c.node, r.msg.Subject, r)
	if w.hit(w.faults.requestLost, "request lost") {
		return nil
	}
	delay := w.between(100*time.Microsecond, 3*time.Millisecond)
	if w.hit(w.faults.requestLate, "request late") {
		delay = w.skewed(300*time.Millisecond, 40*time.Second)
	}
	if batch := r.msg.Header.Get(jetstreamext.BatchIDHeader); batch != "" {
		if batch == c.batch { // one connection keeps the order
			delay += max(0, time.Until(c.batchAt))
			if w.hit(w.faults.batchTorn, "message of a batch lost") {
				return nil
			}
		}
		c.batch, c.batchAt = batch, time.Now().Add(delay+time.Microsecond)
	}
	lives := w.log.lives
	w.after(delay, func() {
		if w.log.lives == lives { // a power cut ends what was on its way
			w.log.arrive(r)
		}
	})
	return nil
}

// respond sends the answer on its way. There may be several; the first one that
// arrives is the one that counts, as it is with the client library.
func (r *request) respond(a answer) {
	if r.answer == nil {
		return
	}
	w := r.conn.world
	times := 1
	if w.hit(w.faults.answerTwice, "answered twice") {
		times = 2
	}
	for range times {
		if w.hit(w.faults.answerLost, "answer lost") {
			continue
		}
		delay := w.between(100*time.Microsecond, 3*time.Millisecond)
		if w.hit(w.faults.answerLate, "answer late") {
			delay = w.skewed(100*time.Millisecond, 5*time.Second)
		}
		w.after(delay, func() {
			if !r.conn.broken {
				r.deliver(a)
			}
		})
	}
}

func (r *request) deliver(a answer) {
	if r.done || r.conn.dead {
		return
	}
	r.done = true
	r.conn.world.note("node %d hears %s about %s", r.conn.node, a.what, r)
	r.answer <- a
}

// cut breaks the connection for a time. What was sent may still arrive; whoever
// waits for an answer is told that the connection is gone.
func (c *connection) cut(d time.Duration) {
	c.world.note("node %d is disconnected for %v", c.node, d)
	c.broken = true
	for _, r := range c.underway {
		c.world.after(c.world.between(1, 100*time.Microsecond), func() { r.deliver(answer{err: nats.ErrDisconnected, what: "that the connection is gone"}) })
	}
	c.underway = nil
	c.world.after(d, func() { c.broken = false })
}

func (r *request) String() string {
	if who := r.msg.Header.Get(envelope.HeaderCorrelationID); who != "" {
		return who + " version " + r.msg.Header.Get(envelope.HeaderSessionVersion)
	}
	return string(r.msg.Data)
}
