package eventstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"chatsessions/domain"
	"chatsessions/eventstore/envelope"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Requests to the JetStream API. The libraries neither retry while the trouble may pass, nor
// let the caller choose which server answers.

const (
	// readPatience bounds a read whose context has no deadline.
	readPatience = 5 * time.Second
	// attemptTimeout bounds one request to the server. After it, the request is repeated.
	attemptTimeout = time.Second
)

// Error codes of the JetStream API that the client library does not name.
const (
	codeNoPeers          jetstream.ErrorCode = 10005
	codeClusterNotAvail  jetstream.ErrorCode = 10008
	codeClusterNotLeader jetstream.ErrorCode = 10009
	codeNoMessageFound   jetstream.ErrorCode = 10037
	codeStoreNotCreated  jetstream.ErrorCode = 10049
)

// ErrNoMessage is returned by reads of messages when there is no such message.
var ErrNoMessage = errors.New("no such message")

// errNoHeaders is returned for a replica's answer that does not say which message it is,
// because the message's own headers cannot be read.
var errNoHeaders = errors.New("a message without headers")

// A source is the choice of the server that answers a read.
type source int

const (
	anyReplica source = iota // quick, but a replica may lag behind
	leader                   // has every acknowledged event
)

// A requester is the part of a NATS connection that reads and writes need.
type requester interface {
	IsClosed() bool
	PublishMsg(m *nats.Msg) error
	RequestMsgWithContext(ctx context.Context, m *nats.Msg) (*nats.Msg, error)
}

// An apiRequest selects one message of the stream, or subjects in the stream's description.
type apiRequest struct {
	Sequence       uint64   `json:"seq,omitempty"`
	LastFor        string   `json:"last_by_subj,omitempty"`
	NextFor        string   `json:"next_by_subj,omitempty"` // from Sequence on
	LastForEach    []string `json:"multi_last,omitempty"`   // at UpTo or before; only of any replica
	UpTo           uint64   `json:"up_to_seq,omitempty"`
	SubjectsFilter string   `json:"subjects_filter,omitempty"`
}

// get reads one message. It returns ErrNoMessage when there is none.
func (l *Log) get(ctx context.Context, from source, request apiRequest) (*envelope.Message, error) {
	if l.offline != nil {
		return l.offline.get(ctx, request)
	}
	if from == leader {
		return l.getFromLeader(ctx, request)
	}
	var m envelope.Message
	err := l.ask(ctx, "$JS.API.DIRECT.GET."+StreamName, request, func(answer *nats.Msg) error {
		switch status := answer.Header.Get("Status"); status {
		case "":
		case "404":
			return ErrNoMessage
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
		m = envelope.Message{Subject: answer.Header.Get(jetstream.SubjectHeader), Sequence: sequence, Header: answer.Header, Data: answer.Data}
		return nil
	})
	if errors.Is(err, errNoHeaders) {
		return l.getFromLeader(ctx, request)
	}
	return &m, err
}

func (l *Log) getFromLeader(ctx context.Context, request apiRequest) (*envelope.Message, error) {
	var m envelope.Message
	err := l.ask(ctx, "$JS.API.STREAM.MSG.GET."+StreamName, request, func(answer *nats.Msg) error {
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
			return ErrNoMessage
		}
		if err != nil {
			return err
		}
		m = envelope.Message{Subject: found.Message.Subject, Sequence: found.Message.Sequence, Data: found.Message.Data}
		if len(found.Message.Header) > 0 {
			// A message whose headers cannot be read is no event, like one without any.
			m.Header, _ = nats.DecodeHeadersMsg(found.Message.Header)
		}
		return nil
	})
	return &m, err
}

// LastSequence asks the leader for the stream's last sequence; the event there may not be
// durable yet. It returns ErrReplaced for another stream than the one that was opened.
func (l *Log) LastSequence(ctx context.Context) (uint64, error) {
	if l.offline != nil {
		return l.offline.files.Last, nil
	}
	var info struct {
		Created time.Time `json:"created"`
		State   struct {
			LastSeq uint64 `json:"last_seq"`
		} `json:"state"`
	}
	if err := l.streamInfo(ctx, apiRequest{}, &info); err != nil {
		return 0, err
	}
	if created := l.Created(); !info.Created.Equal(created) {
		l.raiseAlarm()
		return 0, fmt.Errorf("%w: created at %s, not at %s", ErrReplaced, info.Created.Format(time.RFC3339Nano), created.Format(time.RFC3339Nano))
	}
	return info.State.LastSeq, nil
}

// messagesOf counts the messages on a session's subject.
func (l *Log) messagesOf(ctx context.Context, id string) (uint64, error) {
	if l.offline != nil {
		return l.offline.count(ctx, envelope.Subject(id))
	}
	var info struct {
		State struct {
			Subjects map[string]uint64 `json:"subjects"`
		} `json:"state"`
	}
	if err := l.streamInfo(ctx, apiRequest{SubjectsFilter: envelope.Subject(id)}, &info); err != nil {
		return 0, unavailable("events of session "+id, err)
	}
	return info.State.Subjects[envelope.Subject(id)], nil
}

func (l *Log) streamInfo(ctx context.Context, request apiRequest, into any) error {
	return l.ask(ctx, "$JS.API.STREAM.INFO."+StreamName, request, func(m *nats.Msg) error { return parseAPI(m.Data, into) })
}

// ask makes a request that only reads. It repeats the request while the trouble may pass,
// until an answer parses or ctx ends.
func (l *Log) ask(ctx context.Context, subject string, request apiRequest, parse func(*nats.Msg) error) error {
	data, err := json.Marshal(request)
	if err != nil {
		return err
	}
	pause := backoff{jitter: l.jitter}
	for {
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
		answer, err := l.conn.RequestMsgWithContext(attempt, &nats.Msg{Subject: subject, Data: data})
		cancel()
		if err == nil {
			err = parse(answer)
		}
		if err == nil || !isTransient(err) {
			return err
		}
		if pause.wait(ctx) != nil {
			return err
		}
	}
}

// parseAPI decodes an answer of the JetStream API into v. It returns the answer's error.
func parseAPI(data []byte, v any) error {
	var failed struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(data, &failed); err != nil {
		return err
	}
	if failed.Error != nil {
		return failed.Error
	}
	return json.Unmarshal(data, v)
}

// isTransient reports whether the trouble may pass by itself.
func isTransient(err error) bool {
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

// hasCode reports whether err is an error of the JetStream API with one of the codes.
func hasCode(err error, codes ...jetstream.ErrorCode) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && slices.Contains(codes, api.ErrorCode)
}

// unavailable wraps the error of a read that failed, or of a write that was not made.
func unavailable(doing string, err error) error {
	return fmt.Errorf("%s: %w: %w", doing, domain.ErrUnavailable, err)
}

// withPatience gives ctx a deadline if it has none.
func withPatience(ctx context.Context, patience time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, patience)
}

// A backoff spaces attempts. Pauses grow up to a quarter of a second and are random.
type backoff struct {
	attempts int
	jitter   func(longest time.Duration) time.Duration // nil draws at random
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
