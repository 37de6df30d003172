package eventstore

import (
	"context"
	"time"

	"chatsessions/eventstore/blocks"
	"chatsessions/eventstore/envelope"

	"github.com/nats-io/nats.go"
)

// OpenOffline opens a log that no server has open, for reading from its files. Nothing is
// changed, and nothing can be written. created is the time of its creation.
func OpenOffline(r *blocks.Reader, created time.Time, o Options) *Log {
	l := newLog(created, o)
	l.offline = &offline{r}
	return l
}

// offline answers the requests of a Log from the files of a stopped stream. A search for a
// subject reads the log from one end; only commands that report defects or show one session
// search.
type offline struct{ files *blocks.Reader }

// get answers a request for one message.
func (o *offline) get(ctx context.Context, request apiRequest) (*envelope.Message, error) {
	from, upTo, subject := request.Sequence, request.Sequence, ""
	newest := false
	switch {
	case request.NextFor != "":
		upTo, subject = o.files.Last, request.NextFor
	case request.LastFor == allSubjects:
		from, upTo = o.files.Newest, o.files.Newest
	case request.LastFor != "":
		from, upTo, subject, newest = 1, o.files.Last, request.LastFor, true
	case len(request.LastForEach) == 1:
		from, upTo, subject, newest = 1, request.UpTo, request.LastForEach[0], true
	}
	if subject == allSubjects {
		subject = ""
	}
	var found *envelope.Message
	err := o.each(ctx, subject, from, func(m *envelope.Message) bool {
		if m.Sequence <= upTo {
			found = m
		}
		return newest && m.Sequence < upTo
	})
	if err == nil && found == nil {
		err = ErrNoMessage
	}
	return found, err
}

// count counts the messages on a subject.
func (o *offline) count(ctx context.Context, subject string) (n uint64, err error) {
	err = o.each(ctx, subject, 1, func(*envelope.Message) bool { n++; return true })
	return n, err
}

// consume delivers the messages on a subject from a position on, or the newest of each
// subject.
func (o *offline) consume(ctx context.Context, subject string, start uint64) (<-chan delivery, func()) {
	deliveries := make(chan delivery, consumerBuffer)
	ctx, cancel := context.WithCancel(ctx)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		send := func(d delivery) bool {
			select {
			case deliveries <- d:
				return true
			case <-ctx.Done():
				return false
			}
		}
		if subject == allSubjects {
			subject = ""
		}
		wanted := func(*envelope.Message) bool { return true }
		var err error
		if start == newestOfEach {
			newest := map[string]uint64{}
			err = o.each(ctx, subject, 1, func(m *envelope.Message) bool { newest[m.Subject] = m.Sequence; return true })
			wanted = func(m *envelope.Message) bool { return newest[m.Subject] == m.Sequence }
		}
		if err == nil {
			err = o.each(ctx, subject, max(start, 1), func(m *envelope.Message) bool { return !wanted(m) || send(delivery{msg: m}) })
		}
		if err == nil {
			err = ErrNoMessage
		}
		send(delivery{err: err})
	}()
	return deliveries, func() { cancel(); <-stopped }
}

// each calls use with the messages on a subject, "" for every one, from a position on, until
// it returns false.
func (o *offline) each(ctx context.Context, subject string, from uint64, use func(*envelope.Message) bool) error {
	for r, err := range o.files.From(from) {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if subject != "" && string(r.Subject) != subject {
			continue
		}
		m := &envelope.Message{Subject: string(r.Subject), Sequence: r.Position, Data: append([]byte(nil), r.Data...)}
		if r.Header != nil {
			// A message whose headers cannot be read is no event; see getFromLeader.
			m.Header, _ = nats.DecodeHeadersMsg(r.Header)
		}
		if !use(m) {
			return nil
		}
	}
	return nil
}
