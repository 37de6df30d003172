package eventstore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"chatsessions/eventstore/envelope"

	"github.com/nats-io/nats.go/jetstream"
)

// StreamName is the name of the stream that holds the log.
const StreamName = "CHAT_SESSIONS"

// allSubjects is the subject of every event.
const allSubjects = envelope.SubjectPrefix + "*"

// A ConfigError is returned by Open for a stream of the log's name that is not configured as
// the log needs it. The stream is not changed.
type ConfigError struct{ Differences []Difference }

// A Difference is one setting of the stream that is not as needed.
type Difference struct{ Field, Found, Needed string }

func (e *ConfigError) Error() string {
	parts := make([]string, len(e.Differences))
	for i, d := range e.Differences {
		parts[i] = fmt.Sprintf("%s is %s, needed is %s", d.Field, d.Found, d.Needed)
	}
	return fmt.Sprintf("stream %s is not configured as needed, and is left as it is: %s", StreamName, strings.Join(parts, "; "))
}

// StreamConfig returns the settings that the log needs: nothing is ever lost, and the reads
// and writes of this package are allowed.
func StreamConfig(replicas int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:               StreamName,
		Description:        "Events of chat sessions, one subject per session",
		Subjects:           []string{allSubjects},
		Retention:          jetstream.LimitsPolicy,
		Storage:            jetstream.FileStorage,
		Replicas:           replicas,
		MaxConsumers:       -1,
		MaxMsgs:            -1,
		MaxBytes:           -1,
		MaxMsgsPerSubject:  -1,
		MaxMsgSize:         -1,
		DenyDelete:         true,
		DenyPurge:          true,
		AllowDirect:        true,
		AllowAtomicPublish: true,
	}
}

// compare lists the settings that differ from those needed. A setting that neither loses,
// changes, nor adds an event is the operator's choice.
func compare(found, needed jetstream.StreamConfig) []Difference {
	var differences []Difference
	add := func(field string, found, needed any) {
		f, n := fmt.Sprint(found), fmt.Sprint(needed)
		if f != n {
			differences = append(differences, Difference{field, f, n})
		}
	}
	unset := func(isSet bool) string {
		if isSet {
			return "set"
		}
		return "unset"
	}
	add("subjects", found.Subjects, needed.Subjects)
	add("retention", found.Retention, needed.Retention)
	add("storage", found.Storage, needed.Storage)
	if found.Replicas < needed.Replicas {
		add("num_replicas", found.Replicas, needed.Replicas)
	}
	add("max_consumers", found.MaxConsumers, needed.MaxConsumers)
	add("consumer_limits", found.ConsumerLimits, needed.ConsumerLimits)
	add("max_msgs", found.MaxMsgs, needed.MaxMsgs)
	add("max_bytes", found.MaxBytes, needed.MaxBytes)
	add("max_age", found.MaxAge, needed.MaxAge)
	add("max_msgs_per_subject", found.MaxMsgsPerSubject, needed.MaxMsgsPerSubject)
	add("max_msg_size", found.MaxMsgSize, needed.MaxMsgSize)
	add("first_seq", max(found.FirstSeq, 1), max(needed.FirstSeq, 1))
	add("no_ack", found.NoAck, needed.NoAck)
	add("sealed", found.Sealed, needed.Sealed)
	add("deny_delete", found.DenyDelete, needed.DenyDelete)
	add("deny_purge", found.DenyPurge, needed.DenyPurge)
	add("allow_rollup_hdrs", found.AllowRollup, needed.AllowRollup)
	add("allow_direct", found.AllowDirect, needed.AllowDirect)
	add("allow_atomic", found.AllowAtomicPublish, needed.AllowAtomicPublish)
	add("allow_msg_ttl", found.AllowMsgTTL, needed.AllowMsgTTL)
	add("allow_msg_counter", found.AllowMsgCounter, needed.AllowMsgCounter)
	add("allow_msg_schedules", found.AllowMsgSchedules, needed.AllowMsgSchedules)
	add("subject_delete_marker_ttl", found.SubjectDeleteMarkerTTL, needed.SubjectDeleteMarkerTTL)
	add("persist_mode", found.PersistMode, needed.PersistMode)
	add("mirror", unset(found.Mirror != nil), unset(needed.Mirror != nil))
	add("sources", unset(len(found.Sources) > 0), unset(len(needed.Sources) > 0))
	add("subject_transform", unset(found.SubjectTransform != nil), unset(needed.SubjectTransform != nil))
	return differences
}

// ensureStream returns the stream as the server has it. It creates a missing one, unless it
// has to exist. A server may silently change settings of a new stream.
func ensureStream(ctx context.Context, js jetstream.JetStream, config jetstream.StreamConfig, existing bool) (*jetstream.StreamInfo, error) {
	var pause backoff
	for {
		attempt, cancel := context.WithTimeout(ctx, dialTimeout)
		stream, err := js.Stream(attempt, StreamName)
		if existing && errors.Is(err, jetstream.ErrStreamNotFound) {
			cancel()
			return nil, ErrNoLog
		}
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			stream, err = js.CreateStream(attempt, config)
			if err == nil {
				err = checkNew(stream.CachedInfo())
			}
		}
		cancel()
		if err == nil {
			return stream.CachedInfo(), nil
		}
		// Another node may have created it first. A server still removes the files of a stream
		// that was just deleted.
		if !isTransient(err) && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) && !hasCode(err, codeStoreNotCreated) {
			return nil, err
		}
		if pause.wait(ctx) != nil {
			return nil, err
		}
	}
}

// checkNew returns an error for a new stream with messages that are older. The server did not
// show their stream, because it could not serve it, and has taken over its files.
func checkNew(info *jetstream.StreamInfo) error {
	if s := info.State; s.Msgs > 0 && s.FirstTime.Before(info.Created) {
		return fmt.Errorf("the server did not show a log, and has files of one with %d messages, up to position %d, which are in the new stream now. Perhaps its store was copied from a cluster. Check the log with chatsessions verify: start again if it is whole, and restore a backup otherwise", s.Msgs, s.LastSeq)
	}
	return nil
}

// validID reports whether an id can be one token of a subject. Ids come from URLs: a wildcard
// could select another session.
func validID(id string) bool {
	for _, c := range []byte(id) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return id != "" && len(id) <= 64
}
