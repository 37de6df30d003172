package audit

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"chatsessions/domain"
	"chatsessions/eventstore"
	"chatsessions/eventstore/envelope"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Headers that a republished message has in addition to its own.
const (
	HeaderPosition = "Chat-Sessions-Position" // the event's place in the log
	HeaderSubject  = "Chat-Sessions-Subject"  // the subject that it has there
)

// serverHeaders is the prefix of headers that are not part of the event.
const serverHeaders = "Nats-"

// noStream cannot be the name of a stream, because it has a dot (ADR-6 of NATS). A stream
// refuses a message that expects another stream.
const noStream = "no.stream"

// maxUnconfirmed bounds the messages to another stream that wait for its acknowledgement.
const maxUnconfirmed = 256

// readPatience bounds each request to the server.
const readPatience = 5 * time.Second

// A SubjectError is returned by Republish for a subject to which it must not publish.
type SubjectError struct{ Subject, Reason string }

func (e *SubjectError) Error() string {
	return fmt.Sprintf("nothing is published to %q: %s", e.Subject, e.Reason)
}

// A Republisher publishes the log to another subject. It is not safe for concurrent use.
type Republisher struct {
	log     *eventstore.Log
	subject string
	stream  string // that stores the subject's messages, "" for none
	js      jetstream.JetStream
	// Since the last Confirm.
	sent       int
	pending    []jetstream.PubAckFuture
	reconnects uint64 // of the connection, before the first was sent
}

// Republish returns a SubjectError for a subject that is invalid, of the server or the log, or
// one from which a stream republishes; or domain.ErrUnavailable.
func Republish(ctx context.Context, log *eventstore.Log, subject string) (*Republisher, error) {
	if reason := unfitSubject(subject); reason != "" {
		return nil, &SubjectError{subject, reason}
	}
	ctx, cancel := context.WithTimeout(ctx, readPatience)
	defer cancel()
	js, err := jetstream.New(log.Conn(), jetstream.WithPublishAsyncMaxPending(maxUnconfirmed))
	if err != nil {
		return nil, err
	}
	name, err := js.StreamNameBySubject(ctx, subject)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		name = ""
	case err != nil:
		return nil, fmt.Errorf("stream of subject %s: %w: %w", subject, domain.ErrUnavailable, err)
	case name == eventstore.StreamName:
		return nil, &SubjectError{subject, "the log itself keeps it"}
	}
	if name != "" {
		other, err := js.Stream(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("stream %s: %w: %w", name, domain.ErrUnavailable, err)
		}
		if other.CachedInfo().Config.RePublish != nil {
			return nil, &SubjectError{subject, fmt.Sprintf("stream %s keeps it, and republishes to where cannot be followed", name)}
		}
	}
	return &Republisher{log: log, subject: subject, stream: name, js: js}, nil
}

// Stream returns the name of the stream that stores what is published, "" for none.
func (r *Republisher) Stream() string { return r.stream }

// Publish publishes an event's data and headers, without the server's, with HeaderPosition and
// HeaderSubject. Only after a Confirm does the server certainly have it.
func (r *Republisher) Publish(ctx context.Context, position uint64) error {
	ctx, cancel := context.WithTimeout(ctx, readPatience)
	defer cancel()
	stored, err := r.log.Message(ctx, position)
	if err != nil {
		return err
	}
	m := &nats.Msg{Subject: r.subject, Header: nats.Header{}, Data: stored.Data}
	for name, values := range stored.Header {
		if !strings.HasPrefix(name, serverHeaders) {
			m.Header[name] = values
		}
	}
	m.Header[HeaderPosition] = []string{strconv.FormatUint(position, 10)}
	m.Header[HeaderSubject] = []string{stored.Subject}
	if r.sent == 0 {
		r.reconnects = r.log.Conn().Stats().Reconnects
	}
	if r.stream == "" {
		// Even if the subject is mapped, or a stream was created in the meantime.
		m.Header[jetstream.ExpectedStreamHeader] = []string{noStream}
		err = r.log.Conn().PublishMsg(m)
	} else {
		var future jetstream.PubAckFuture
		// Even if the subject is mapped by now: that stream, or none.
		if future, err = r.js.PublishMsgAsync(m, jetstream.WithExpectStream(r.stream)); err == nil {
			r.pending = append(r.pending, future)
		}
	}
	if err != nil {
		return fmt.Errorf("publishing event %d to %s: %w", position, r.subject, err)
	}
	r.sent++
	return nil
}

// Confirm returns how many of the events published since the last Confirm the server has for
// certain, counted from the first. With a stream, these are the acknowledged ones; without,
// all or none. An error says why it is not all.
func (r *Republisher) Confirm(ctx context.Context) (confirmed int, err error) {
	defer func() { r.sent, r.pending = 0, nil }()
	ctx, cancel := context.WithTimeout(ctx, readPatience)
	defer cancel()
	if r.sent == 0 {
		return 0, nil
	}
	if r.stream == "" {
		if err := r.log.Conn().FlushWithContext(ctx); err != nil {
			return 0, fmt.Errorf("%d events to %s: %w", r.sent, r.subject, err)
		}
		if r.log.Conn().Stats().Reconnects != r.reconnects { // messages in the old connection are lost
			return 0, fmt.Errorf("%d events to %s: the connection was lost, they may have been published or not", r.sent, r.subject)
		}
		if err := r.log.Conn().LastError(); errors.Is(err, nats.ErrPermissionViolation) {
			return 0, fmt.Errorf("%d events to %s: %w", r.sent, r.subject, err)
		}
		return r.sent, nil
	}
	for _, future := range r.pending {
		select {
		case <-future.Ok():
			confirmed++
		case failed := <-future.Err():
			return confirmed, fmt.Errorf("stream %s: %w", r.stream, failed)
		case <-ctx.Done():
			return confirmed, fmt.Errorf("stream %s: %w", r.stream, ctx.Err())
		}
	}
	return confirmed, nil
}

// unfitSubject returns why nothing may be published to a subject, "" if it is fit.
func unfitSubject(subject string) string {
	tokens := strings.Split(subject, ".")
	for _, token := range tokens {
		switch {
		case token == "":
			return "it has an empty part"
		case token == "*" || token == ">":
			return "it has a wildcard; one subject is needed"
		case strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c == 0x7f }):
			return "it has a space or a control character"
		}
	}
	switch {
	case tokens[0][0] == '$' || tokens[0][0] == '_':
		return "subjects that begin with $ or _ belong to the server and its clients"
	case tokens[0] == strings.TrimSuffix(envelope.SubjectPrefix, "."):
		return "subjects that begin with " + envelope.SubjectPrefix + " belong to the log"
	}
	return ""
}
