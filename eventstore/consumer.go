package eventstore

import (
	"context"
	"fmt"
	"time"

	"chatsessions/eventstore/envelope"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// consumerHeartbeat is how often an idle server reports; missing two, a consumer fails.
	consumerHeartbeat = time.Second
	// consumerTimeout bounds one attempt to create a consumer of all subjects, filteredTimeout
	// of another one, for which the server looks at every subject.
	consumerTimeout = 2 * time.Second
	filteredTimeout = 30 * time.Second
	// consumerInactive is how long the server keeps a consumer that is not read.
	consumerInactive = time.Minute
	// consumerBuffer is how many messages the server sends ahead.
	consumerBuffer = 1024
)

// A delivery is a message from a consumer, or the reason why no more will come.
type delivery struct {
	msg *envelope.Message
	err error
}

// newestOfEach starts a consumer with the newest message of every subject.
const newestOfEach = 0

// consume creates a consumer of a subject that starts at a sequence or with newestOfEach. It
// returns the messages in order and without gaps; the last delivery is an error. stop ends
// the goroutine that receives, and deletes the consumer.
func (l *Log) consume(ctx context.Context, subject string, start uint64) (<-chan delivery, func(), error) {
	if l.offline != nil {
		deliveries, stop := l.offline.consume(ctx, subject, start)
		return deliveries, stop, nil
	}
	patience := consumerTimeout
	config := jetstream.ConsumerConfig{
		Name:              "follow-" + uuid.NewString(),
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       start,
		AckPolicy:         jetstream.AckNonePolicy,
		InactiveThreshold: consumerInactive,
		Replicas:          1,
		MemoryStorage:     true,
	}
	if subject != allSubjects { // a filter costs time, so there is none for all subjects
		patience, config.FilterSubject = filteredTimeout, subject
	}
	if start == newestOfEach {
		patience = filteredTimeout
		config.DeliverPolicy, config.FilterSubject = jetstream.DeliverLastPerSubjectPolicy, subject
	}
	attempt, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := l.LastSequence(attempt); err != nil {
		return nil, nil, err
	}
	consumer, err := l.js.CreateConsumer(attempt, StreamName, config)
	if err != nil {
		return nil, nil, fmt.Errorf("consumer: %w", err)
	}
	messages, err := consumer.Messages(
		jetstream.PullMaxMessages(consumerBuffer),
		jetstream.PullHeartbeat(consumerHeartbeat),
		jetstream.WithMessagesErrOnMissingHeartbeat(true),
	)
	if err != nil {
		return nil, nil, fmt.Errorf("consumer: %w", err)
	}
	deliveries := make(chan delivery, consumerBuffer)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for delivered := uint64(1); ; delivered++ {
			d := receive(messages, delivered)
			select {
			case deliveries <- d:
			case <-ctx.Done():
				return
			}
			if d.err != nil {
				return
			}
		}
	}()
	stop := func() {
		messages.Stop()
		for done := false; !done; { // the goroutine may be waiting to deliver
			select {
			case <-deliveries:
			case <-stopped:
				done = true
			}
		}
		farewell, cancel := context.WithTimeout(context.WithoutCancel(ctx), attemptTimeout)
		defer cancel()
		// If this fails, the server drops the consumer when it is inactive.
		_ = l.js.DeleteConsumer(farewell, StreamName, consumer.CachedInfo().Name)
	}
	return deliveries, stop, nil
}

// receive returns the next message, which has to be the consumer's n-th.
func receive(messages jetstream.MessagesContext, n uint64) delivery {
	m, err := messages.Next()
	if err != nil {
		return delivery{err: fmt.Errorf("next message: %w", err)}
	}
	meta, err := m.Metadata()
	if err != nil {
		return delivery{err: fmt.Errorf("next message: %w", err)}
	}
	if meta.Sequence.Consumer != n {
		return delivery{err: fmt.Errorf("next message: lost %d before %d", meta.Sequence.Consumer-n, meta.Sequence.Stream)}
	}
	return delivery{msg: &envelope.Message{Subject: m.Subject(), Sequence: meta.Sequence.Stream, Header: m.Headers(), Data: m.Data()}}
}
