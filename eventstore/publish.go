package eventstore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
)

// maxBatches bounds the atomic writes of a Log in flight. The server accepts 50 unfinished
// ones per stream, from all nodes together.
const maxBatches = 16

// An outcome is the result of one attempt to publish.
type outcome int

const (
	// acknowledged: it is in the log.
	acknowledged outcome = iota
	// conflict: not written. The subject is not at the expected sequence, or another write to
	// it is in flight.
	conflict
	// busy: not written, because of trouble that may pass.
	busy
	// refused: not written, and another attempt would not be either.
	refused
	// broken: the store failed. It may have been written; another attempt cannot help.
	broken
	// unknown: it may have been written, or may still be.
	unknown
)

// Error codes with which the server answers a publish.
const (
	// codeWrongLast: the newest message on the subject is another.
	codeWrongLast = jetstream.JSErrCodeStreamWrongLastSequence
	// codeWrongLastConstant is the same on a replicated stream, also for a write that is
	// proposed and not yet decided.
	codeWrongLastConstant jetstream.ErrorCode = 10164
	codeStoreFailed       jetstream.ErrorCode = 10077
	codeTooManyBatches                        = jetstreamext.JSErrCodeAtomicPublishTooManyInflight
	// codeBatchIncomplete: a message was lost or rejected, or the leader was replaced.
	codeBatchIncomplete = jetstreamext.JSErrCodeBatchPublishIncomplete
)

// publish makes one attempt to write the messages, all or none, and returns the sequence of
// the last one. Only the first carries an expected sequence.
func (l *Log) publish(ctx context.Context, msgs []*nats.Msg) (uint64, outcome, error) {
	if l.conn.IsClosed() {
		return 0, refused, nats.ErrConnectionClosed
	}
	if d := l.options.Durability; d != nil {
		if err := d.Err(); err != nil {
			return 0, refused, err
		}
	}
	if r := l.refusal.Load(); r != nil {
		if r.passes {
			return 0, busy, r.err
		}
		return 0, refused, r.err
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
	// Not earlier: a batch that waited for its turn still needs time for the server's answer.
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	last := msgs[len(msgs)-1]
	if len(msgs) > 1 {
		// Without its last message a batch is not written, even if the others arrived.
		batchID := uuid.NewString()
		for i, m := range msgs {
			m.Header.Set(jetstreamext.BatchIDHeader, batchID)
			m.Header.Set(jetstreamext.BatchSeqHeader, strconv.Itoa(i+1))
		}
		last.Header.Set(jetstreamext.BatchCommitHeader, "1")
		for _, m := range msgs[:len(msgs)-1] {
			if err := l.conn.PublishMsg(m); err != nil {
				if o := classifyRequest(err); o != unknown {
					return 0, o, err
				}
				return 0, busy, err
			}
		}
	}
	answer, err := l.conn.RequestMsgWithContext(ctx, last)
	if err != nil {
		return 0, classifyRequest(err), err
	}
	return parseAck(answer.Data, len(msgs))
}

// classifyRequest returns the outcome of a request without an answer.
func classifyRequest(err error) outcome {
	switch {
	case errors.Is(err, nats.ErrMaxPayload), errors.Is(err, nats.ErrBadSubject):
		return refused
	case errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, nats.ErrNoResponders):
		return busy // it was not sent, or no server took it
	default:
		return unknown
	}
}

// ackStart begins the acknowledgement of a single message.
var ackStart = []byte(`{"stream":"` + StreamName + `","seq":`)

// parseAck returns the sequence and outcome in the server's answer to a publish of so many
// messages.
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
	if ack.Error != nil && messages == 1 && isLimit(ack.Error) {
		return 0, refused, ack.Error
	}
	if ack.Error != nil {
		return 0, classifyAPI(ack.Error), ack.Error
	}
	if ack.Stream != StreamName || ack.Sequence == 0 || messages > 1 && ack.Count != messages {
		return 0, unknown, fmt.Errorf("acknowledgement of stream %q, sequence %d, %d messages", ack.Stream, ack.Sequence, ack.Count)
	}
	return ack.Sequence, acknowledged, nil
}

// classifyAPI returns the outcome of a refusal by the server. Except when its store failed,
// the server refuses before it writes.
func classifyAPI(err *jetstream.APIError) outcome {
	switch {
	case hasCode(err, codeWrongLast, codeWrongLastConstant):
		return conflict
	case hasCode(err, codeStoreFailed):
		return broken
	case hasCode(err, codeTooManyBatches, codeBatchIncomplete), isTransient(err):
		return busy
	default:
		return refused
	}
}

// limits are the descriptions with which the server refuses a single message at a limit of
// the stream. They have the code of a store that failed, but nothing was written.
var limits = []string{
	"maximum messages exceeded", "maximum bytes exceeded", "maximum messages per subject exceeded", "message too large",
}

func isLimit(err *jetstream.APIError) bool {
	return hasCode(err, codeStoreFailed) && slices.Contains(limits, err.Description)
}
