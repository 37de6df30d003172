package eventstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"chatsessions/domain"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// readPatience bounds a read where its context has no deadline.
	readPatience = 5 * time.Second
	// attemptTimeout bounds one request to the server; then it is made again.
	attemptTimeout = time.Second
)

// Codes of errors of the JetStream API that the client library does not name.
const (
	codeNoPeers          jetstream.ErrorCode = 10005
	codeClusterNotAvail  jetstream.ErrorCode = 10008
	codeClusterNotLeader jetstream.ErrorCode = 10009
	codeNoMessageFound   jetstream.ErrorCode = 10037
)

// errNoMessage is what at and newest have from the server where there is nothing.
var errNoMessage = errors.New("no such message")

// errNoHeaders is what a replica's answer comes to when the message has headers that cannot
// be read: then those are lost, too, that say which one it is.
var errNoHeaders = errors.New("a message without headers")

// reader says which server answers a read.
type reader bool

const (
	// anyReplica is quick; a replica may lag behind.
	anyReplica reader = false
	// leader knows everything that was acknowledged.
	leader reader = true
)

// Load returns the session as the stream's leader has it, and the position of
// its newest event. It returns domain.ErrNotFound for a session without events,
// domain.ErrUnavailable when the leader cannot be reached in time, and an
// UnreadableError.
func (l *Log) Load(ctx context.Context, id string) (*domain.Record, error) {
	ctx, cancel := withPatience(ctx, readPatience)
	defer cancel()
	newest, err := l.newest(ctx, id, leader)
	if err != nil {
		return nil, err
	}
	if newest.Position == 0 {
		return nil, domain.ErrNotFound
	}
	if err := l.Durable(ctx, newest.Position); err != nil {
		return nil, unavailable("load", err)
	}
	return newest, nil
}

// EventID returns the id of the event at a position, as the stream's leader has it; ""
// where there is none, or none that can be read. It returns domain.ErrUnavailable when
// the leader cannot be reached in time.
func (l *Log) EventID(ctx context.Context, position uint64) (string, error) {
	ctx, cancel := withPatience(ctx, readPatience)
	defer cancel()
	m, err := l.get(ctx, leader, `{"seq":`+strconv.FormatUint(position, 10)+`}`)
	if errors.Is(err, errNoMessage) {
		return "", nil
	}
	if err != nil {
		return "", unavailable(fmt.Sprintf("event %d", position), err)
	}
	return entryIn(m).Record.ID, nil
}

// newest returns the newest event of a session, the zero Record for a session
// that has none. It has not passed the barrier.
func (l *Log) newest(ctx context.Context, id string, from reader) (*domain.Record, error) {
	if !validID(id) {
		return &domain.Record{}, nil
	}
	m, err := l.get(ctx, from, `{"last_by_subj":"`+subjectOf(id)+`"}`)
	if errors.Is(err, errNoMessage) {
		return &domain.Record{}, nil
	}
	if err != nil {
		return nil, unavailable("newest event of session "+id, err)
	}
	return decode(m)
}

// firstFrom returns the oldest event of a session from a position on; there has to
// be one. It walks the log from there, so it is for what cannot be had along
// ce-previous.
func (l *Log) firstFrom(ctx context.Context, id string, position uint64) (*domain.Record, error) {
	m, err := l.get(ctx, leader, `{"seq":`+strconv.FormatUint(position, 10)+`,"next_by_subj":"`+subjectOf(id)+`"}`)
	if err != nil {
		return nil, unavailable("first event of session "+id, err)
	}
	return decode(m)
}

// at returns the event at a position. A replica that does not have it yet is no
// answer; the leader's is.
func (l *Log) at(ctx context.Context, position uint64) (*domain.Record, error) {
	m, err := l.message(ctx, position)
	if err != nil {
		return nil, err
	}
	return decode(m)
}

// message is at for the message as the stream has it.
func (l *Log) message(ctx context.Context, position uint64) (*storedMsg, error) {
	request := `{"seq":` + strconv.FormatUint(position, 10) + `}`
	m, err := l.get(ctx, anyReplica, request)
	if errors.Is(err, errNoMessage) {
		m, err = l.get(ctx, leader, request)
	}
	if err != nil {
		return nil, unavailable(fmt.Sprintf("event %d", position), err)
	}
	return m, nil
}

// get reads one message, errNoMessage where there is none.
func (l *Log) get(ctx context.Context, from reader, request string) (*storedMsg, error) {
	if from == leader {
		return l.getFromLeader(ctx, request)
	}
	var m storedMsg
	err := l.ask(ctx, "$JS.API.DIRECT.GET."+StreamName, []byte(request), func(answer *nats.Msg) error {
		switch status := answer.Header.Get("Status"); status {
		case "":
		case "404":
			return errNoMessage
		default:
			return fmt.Errorf("direct get: %s %s", status, answer.Header.Get("Description"))
		}
		if answer.Header == nil {
			return errNoHeaders
		}
		sequence, err := strconv.ParseUint(answer.Header.Get(jetstream.SequenceHeader), 10, 64)
		if err != nil {
			return fmt.Errorf("direct get: %w", err)
		}
		m = storedMsg{subject: answer.Header.Get(jetstream.SubjectHeader), sequence: sequence, header: answer.Header, data: answer.Data}
		return nil
	})
	if errors.Is(err, errNoHeaders) {
		return l.getFromLeader(ctx, request)
	}
	return &m, err
}

func (l *Log) getFromLeader(ctx context.Context, request string) (*storedMsg, error) {
	var m storedMsg
	err := l.ask(ctx, "$JS.API.STREAM.MSG.GET."+StreamName, []byte(request), func(answer *nats.Msg) error {
		var found struct {
			Message struct {
				Subject  string `json:"subject"`
				Sequence uint64 `json:"seq"`
				Header   []byte `json:"hdrs"`
				Data     []byte `json:"data"`
			} `json:"message"`
		}
		err := parseAPI(answer.Data, &found)
		if hasCode(err, codeNoMessageFound) {
			return errNoMessage
		}
		if err != nil {
			return err
		}
		m = storedMsg{subject: found.Message.Subject, sequence: found.Message.Sequence, data: found.Message.Data}
		if len(found.Message.Header) > 0 {
			// With headers that cannot be read it is no event, as one without any. The client
			// library delivers it so everywhere else.
			m.header, _ = nats.DecodeHeadersMsg(found.Message.Header)
		}
		return nil
	})
	return &m, err
}

// ask makes a request that only reads, again and again while the trouble may
// pass, until there is an answer that parses or ctx ends.
func (l *Log) ask(ctx context.Context, subject string, request []byte, parse func(*nats.Msg) error) error {
	pause := backoff{jitter: l.jitter}
	for {
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
		answer, err := l.commands.RequestMsgWithContext(attempt, &nats.Msg{Subject: subject, Data: request})
		cancel()
		if err == nil {
			err = parse(answer)
		}
		if err == nil || !passing(err) {
			return err
		}
		if pause.wait(ctx) != nil {
			return err
		}
	}
}

// passing says whether the trouble may pass by itself: the connection is broken,
// a server restarts, a leader is elected.
func passing(err error) bool {
	for _, e := range []error{
		context.DeadlineExceeded, nats.ErrTimeout, nats.ErrNoResponders, nats.ErrDisconnected,
		nats.ErrReconnectBufExceeded, jetstream.ErrJetStreamNotEnabled,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return hasCode(err, codeClusterNotAvail, codeClusterNotLeader, codeNoPeers)
}

// hasCode says whether err is an error of the JetStream API with one of the codes.
func hasCode(err error, codes ...jetstream.ErrorCode) bool {
	var api *jetstream.APIError
	if !errors.As(err, &api) {
		return false
	}
	for _, code := range codes {
		if api.ErrorCode == code {
			return true
		}
	}
	return false
}

// withPatience gives ctx a deadline where it has none.
func withPatience(ctx context.Context, patience time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, patience)
}

// backoff spaces attempts: longer each time, up to a quarter of a second, and at
// random, so that writers that met do not meet again.
type backoff struct {
	attempts int
	jitter   func(longest time.Duration) time.Duration // nil is at random
}

// wait returns ctx's error when ctx ends before the pause.
func (b *backoff) wait(ctx context.Context) error {
	longest := min(4*time.Millisecond<<min(b.attempts, 10), 250*time.Millisecond)
	b.attempts++
	jitter := b.jitter
	if jitter == nil {
		jitter = rand.N[time.Duration]
	}
	timer := time.NewTimer(time.Millisecond + jitter(longest))
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}
