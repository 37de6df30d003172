package eventstore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
)

// maxBatches bounds how many atomic writes a Log has under way. The server takes
// 50 unfinished ones per stream, from all nodes together.
const maxBatches = 16

// An outcome is what one attempt to publish came to.
type outcome int

const (
	// acknowledged: it is in the log.
	acknowledged outcome = iota
	// conflict: not written. The subject is not at the expected sequence, or
	// another write to it is in flight.
	conflict
	// busy: not written, because of trouble that may pass.
	busy
	// refused: not written, and would not be another time.
	refused
	// broken: the store failed under it. It may have been written; another
	// attempt cannot help.
	broken
	// unknown: it may have been written, or may still be.
	unknown
)

// Codes of errors that a publish can be answered with.
const (
	// codeWrongLast: the newest message on the subject is another.
	codeWrongLast = jetstream.JSErrCodeStreamWrongLastSequence
	// codeWrongLastConstant is what a replicated stream says instead, also when a
	// write to the subject is proposed and not yet decided.
	codeWrongLastConstant jetstream.ErrorCode = 10164
	codeStoreFailed       jetstream.ErrorCode = 10077
	codeTooManyBatches                        = jetstreamext.JSErrCodeAtomicPublishTooManyInflight
	// codeBatchIncomplete: a message of the batch was lost, its server was
	// replaced, or it was one too many and its first message was turned away.
	codeBatchIncomplete = jetstreamext.JSErrCodeBatchPublishIncomplete
)

// publish makes one attempt to write the messages, all or none, and returns the
// sequence of the last one. Only the first carries an expected sequence.
func (l *Log) publish(ctx context.Context, msgs []*nats.Msg) (uint64, outcome, error) {
	if l.commands.IsClosed() {
		return 0, refused, nats.ErrConnectionClosed
	}
	if e := l.options.Embedded; e != nil && e.Err() != nil {
		return 0, refused, e.Err()
	}
	if err := ctx.Err(); err != nil {
		return 0, busy, err
	}
	if len(msgs) > 1 {
		select {
		case l.batches <- struct{}{}:
			defer func() { <-l.batches }()
		case <-ctx.Done():
			return 0, busy, ctx.Err()
		}
	}
	// The time for the server's answer begins when it is asked: a batch that was
	// sent and given up on at once would be sent again, and hold up the others.
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	last := msgs[len(msgs)-1]
	if len(msgs) > 1 {
		// Without its last message a batch is not written, whatever became of the
		// others.
		batchID := uuid.NewString()
		for i, m := range msgs {
			m.Header.Set(jetstreamext.BatchIDHeader, batchID)
			m.Header.Set(jetstreamext.BatchSeqHeader, strconv.Itoa(i+1))
		}
		last.Header.Set(jetstreamext.BatchCommitHeader, "1")
		for _, m := range msgs[:len(msgs)-1] {
			if err := l.commands.PublishMsg(m); err != nil {
				return 0, notSent(err), err
			}
		}
	}
	answer, err := l.commands.RequestMsgWithContext(ctx, last)
	if err != nil {
		return 0, classifyRequest(err), err
	}
	return parseAck(answer.Data, len(msgs))
}

// notSent is the outcome of an attempt that the client refused to send.
func notSent(err error) outcome {
	if errors.Is(err, nats.ErrMaxPayload) || errors.Is(err, nats.ErrBadSubject) {
		return refused
	}
	return busy
}

// classifyRequest says what an error in place of an acknowledgement means.
func classifyRequest(err error) outcome {
	switch {
	case errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, nats.ErrMaxPayload), errors.Is(err, nats.ErrBadSubject):
		return notSent(err)
	case errors.Is(err, nats.ErrNoResponders):
		return busy // the server found nobody to give it to
	default:
		return unknown
	}
}

// ackStart begins the acknowledgement of a single message.
var ackStart = []byte(`{"stream":"` + StreamName + `","seq":`)

// parseAck reads the server's answer to a publish of so many messages.
func parseAck(data []byte, messages int) (uint64, outcome, error) {
	if rest, ok := bytes.CutPrefix(data, ackStart); ok && messages == 1 && len(rest) > 1 && rest[len(rest)-1] == '}' {
		if sequence, err := strconv.ParseUint(string(rest[:len(rest)-1]), 10, 64); err == nil && sequence > 0 {
			return sequence, acknowledged, nil
		}
	}
	var ack struct {
		Stream   string              `json:"stream"`
		Sequence uint64              `json:"seq"`
		Count    int                 `json:"count"`
		Error    *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(data, &ack); err != nil {
		return 0, unknown, fmt.Errorf("acknowledgement: %w", err)
	}
	if ack.Error != nil {
		return 0, classifyAPI(ack.Error), ack.Error
	}
	if ack.Stream != StreamName || ack.Sequence == 0 || messages > 1 && ack.Count != messages {
		return 0, unknown, fmt.Errorf("acknowledgement of stream %q, sequence %d, %d messages", ack.Stream, ack.Sequence, ack.Count)
	}
	return ack.Sequence, acknowledged, nil
}

// classifyAPI says what a refusal by the server means. With the exception of a
// store that failed, the server refuses before it writes.
func classifyAPI(err *jetstream.APIError) outcome {
	switch {
	case hasCode(err, codeWrongLast, codeWrongLastConstant):
		return conflict
	case hasCode(err, codeStoreFailed):
		return broken
	case hasCode(err, codeTooManyBatches, codeBatchIncomplete), passing(err):
		return busy
	default:
		return refused
	}
}
