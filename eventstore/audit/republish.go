package eventstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The headers that a message which is published again has beside its own.
const (
	HeaderPosition = "Chat-Sessions-Position" // the event's place in the log
	HeaderSubject  = "Chat-Sessions-Subject"  // the subject that it has there
)

// serverHeaders is how the headers begin by which a message was published, or that the
// server adds when it is read. They are no part of the event.
const serverHeaders = "Nats-"

// noStream is the name of no stream: a name has no dots (ADR-6 of NATS). A stream that
// gets a message which expects another one refuses it.
const noStream = "no.stream"

// maxUnconfirmed is how many messages to another stream wait for its acknowledgement.
const maxUnconfirmed = 256

// A SubjectError is returned by Republish for a subject to which the log is not
// published.
type SubjectError struct{ Subject, Reason string }

func (e *SubjectError) Error() string {
	return fmt.Sprintf("nothing is published to %q: %s", e.Subject, e.Reason)
}

// A Republisher publishes events of the log to another subject. It is for one goroutine.
type Republisher struct {
	log     *Log
	subject string
	stream  string // that keeps what is published to the subject, "" for none
	js      jetstream.JetStream
	// Since the last Confirm.
	sent       int
	pending    []jetstream.PubAckFuture
	reconnects uint64 // of the connection, before the first was sent
}

// Republish returns a Republisher. It returns a SubjectError for what is no subject to
// publish to, for a subject that the server or the service uses itself, for one that the
// log keeps, and for one from which a stream would republish. The server is asked which
// stream keeps the subject; domain.ErrUnavailable means that it did not say.
func (l *Log) Republish(ctx context.Context, subject string) (*Republisher, error) {
	if reason := unfitSubject(subject); reason != "" {
		return nil, &SubjectError{subject, reason}
	}
	ctx, cancel := withPatience(ctx, readPatience)
	defer cancel()
	own, err := l.js.Stream(ctx, StreamName)
	if err != nil {
		return nil, unavailable("subjects of the log", err)
	}
	for _, filter := range own.CachedInfo().Config.Subjects {
		if captures(filter, subject) {
			return nil, &SubjectError{subject, fmt.Sprintf("the log itself keeps %s", filter)}
		}
	}
	name, err := l.js.StreamNameBySubject(ctx, subject)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		name = ""
	case err != nil:
		return nil, unavailable("stream of subject "+subject, err)
	case name == StreamName:
		return nil, &SubjectError{subject, "the log itself keeps it"}
	}
	if name != "" {
		other, err := l.js.Stream(ctx, name)
		if err != nil {
			return nil, unavailable("stream "+name, err)
		}
		if other.CachedInfo().Config.RePublish != nil {
			return nil, &SubjectError{subject, fmt.Sprintf("stream %s keeps it, and republishes to where cannot be followed", name)}
		}
	}
	js, err := jetstream.New(l.nc, jetstream.WithPublishAsyncMaxPending(maxUnconfirmed))
	if err != nil {
		return nil, err
	}
	return &Republisher{log: l, subject: subject, stream: name, js: js}, nil
}

// Stream names the stream that keeps what is published, "" where none does.
func (r *Republisher) Stream() string { return r.stream }

// Publish publishes the event at a position: its data and headers as the log has them,
// without those of the server, and with HeaderPosition and HeaderSubject. Where no stream
// keeps it, it expects one that there is not, so that none takes it. The server has
// it for certain after a Confirm.
func (r *Republisher) Publish(ctx context.Context, position uint64) error {
	reading, cancel := withPatience(ctx, readPatience)
	defer cancel()
	stored, err := r.log.message(reading, position)
	if err != nil {
		return err
	}
	m := &nats.Msg{Subject: r.subject, Header: nats.Header{}, Data: stored.data}
	for name, values := range stored.header {
		if !strings.HasPrefix(name, serverHeaders) {
			m.Header[name] = values
		}
	}
	m.Header[HeaderPosition] = []string{strconv.FormatUint(position, 10)}
	m.Header[HeaderSubject] = []string{stored.subject}
	if r.sent == 0 {
		r.reconnects = r.log.nc.Stats().Reconnects
	}
	if r.stream == "" {
		// Whatever the subject is mapped to, and whatever stream is made meanwhile.
		m.Header[jetstream.ExpectedStreamHeader] = []string{noStream}
		err = r.log.nc.PublishMsg(m)
	} else {
		var future jetstream.PubAckFuture
		// Whatever the subject is mapped to meanwhile: that stream, or none.
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

// Confirm returns how many of the events that were published since the last Confirm, the
// first of them, the server has for certain: up to where the stream has acknowledged
// them, or, without a stream, all or none, as the server has taken them. An error says
// why it is not all.
func (r *Republisher) Confirm(ctx context.Context) (confirmed int, err error) {
	defer func() { r.sent, r.pending = 0, nil }()
	ctx, cancel := withPatience(ctx, readPatience)
	defer cancel()
	if r.sent == 0 {
		return 0, nil
	}
	if r.stream == "" {
		if err := r.log.nc.FlushWithContext(ctx); err != nil {
			return 0, fmt.Errorf("%d events to %s: %w", r.sent, r.subject, err)
		}
		if r.log.nc.Stats().Reconnects != r.reconnects { // what the old connection still held is gone
			return 0, fmt.Errorf("%d events to %s: the connection was lost, they may have been published or not", r.sent, r.subject)
		}
		if err := r.log.nc.LastError(); errors.Is(err, nats.ErrPermissionViolation) {
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

// unfitSubject says why a subject is none to publish the log to, "" if it is one.
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
	case tokens[0] == strings.TrimSuffix(subjectPrefix, "."):
		return "subjects that begin with " + subjectPrefix + " belong to the log"
	}
	return ""
}

// captures says whether a subject is one of those that a filter with wildcards means.
func captures(filter, subject string) bool {
	tokens := strings.Split(subject, ".")
	wanted := strings.Split(filter, ".")
	for i, w := range wanted {
		switch {
		case w == ">":
			return len(tokens) > i
		case i >= len(tokens), w != "*" && w != tokens[i]:
			return false
		}
	}
	return len(tokens) == len(wanted)
}
