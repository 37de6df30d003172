package eventstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"chatsessions/domain"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// StreamName is the name of the stream that holds the log.
const StreamName = "CHAT_SESSIONS"

// subjectPrefix and the session's id make the subject of its events.
const subjectPrefix = "chat-sessions."

// minPayload is the largest message that an event can need, with a margin: a
// hundred participants of 128 characters, twice (changes and session), in UTF-8.
const minPayload = 256 << 10

// openPatience bounds Open where its context has no deadline.
const openPatience = 30 * time.Second

// Options of a log.
type Options struct {
	// Replicas is how many servers keep the log; 0 means three of a cluster, and
	// one of a server that is alone. A stream with more is as good.
	Replicas int
	// Embedded is the server inside the process that the connection leads to; nil
	// for any other. It acknowledges before it syncs, so everything passes its
	// barrier, between the server's answer and ours.
	Embedded *Embedded
	// Durable, where there is no Embedded, is called in the same place: it returns
	// when the events up to a position are on disk, or fails. Nil is for a server
	// that acknowledges only what is on disk (sync_interval: always).
	Durable func(ctx context.Context, position uint64) error
	// Existing has Open return ErrNoLog where there is no log, and not create one.
	Existing bool
	Logger   *slog.Logger
}

// ErrNoLog is returned by Open with Options.Existing where there is no log.
var ErrNoLog = errors.New("there is no log on these servers")

// Log is the log of all events. It is safe for concurrent use.
type Log struct {
	nc       *nats.Conn
	commands requester // nc, or what a simulation puts in its place
	js       jetstream.JetStream
	options  Options
	logger   *slog.Logger
	created  time.Time
	identity string
	batches  chan struct{} // one element for each atomic write under way
	cache    cache
	tail     *tail // nil where others write to the log too
	counters counters
	jitter   func(longest time.Duration) time.Duration // of backoffs; nil is at random
	// connections counts how often the connection was lost, and how often it came back.
	connections atomic.Uint64

	ctx     context.Context // ends with Close
	stop    context.CancelFunc
	mu      sync.Mutex // orders Close after the start of a Follow
	follows sync.WaitGroup
}

// A requester is what reads and writes need of a NATS connection; *nats.Conn is one.
type requester interface {
	IsClosed() bool
	PublishMsg(m *nats.Msg) error
	RequestMsgWithContext(ctx context.Context, m *nats.Msg) (*nats.Msg, error)
}

// Connections counts how often the connection to the server was lost, and how often it
// came back. Behind each change there may be another server, or a log that was restored
// from an older copy.
func (l *Log) Connections() uint64 { return l.connections.Load() }

func (l *Log) countConnections() {
	changed := l.nc.StatusChanged(nats.RECONNECTING, nats.CONNECTED)
	l.follows.Go(func() {
		defer l.nc.RemoveStatusListener(changed)
		for {
			select {
			case <-l.ctx.Done():
				return
			case _, open := <-changed:
				if !open {
					return
				}
				l.connections.Add(1)
			}
		}
	})
}

// A ConfigError is returned by Open when there is a stream of the log's name that
// is not configured as the log needs it. The stream is left as it is.
type ConfigError struct{ Differences []Difference }

// A Difference is one setting of the stream that is not as it has to be.
type Difference struct{ Field, Found, Needed string }

func (e *ConfigError) Error() string {
	parts := make([]string, len(e.Differences))
	for i, d := range e.Differences {
		parts[i] = fmt.Sprintf("%s is %s, needed is %s", d.Field, d.Found, d.Needed)
	}
	return fmt.Sprintf("stream %s is not configured as needed, and is left as it is: %s", StreamName, strings.Join(parts, "; "))
}

// Open opens the log over a connection, and creates its stream where there is
// none. The connection stays the caller's; it must not keep messages while it is
// broken (nats.ReconnectBufSize(-1), as Connect and Embedded.Connect set it).
// Open waits for a cluster that is still starting until ctx ends, 30 s without a
// deadline, and returns a ConfigError for a stream that is not as it has to be.
func Open(ctx context.Context, nc *nats.Conn, o Options) (*Log, error) {
	if nc.Opts.ReconnectBufSize >= 0 {
		return nil, errors.New("open log: the NATS connection keeps messages while it is broken; set nats.ReconnectBufSize(-1)")
	}
	if nc.MaxPayload() < minPayload {
		return nil, fmt.Errorf("open log: the NATS server takes messages of %d bytes, needed are %d (max_payload)", nc.MaxPayload(), minPayload)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	if o.Replicas == 0 {
		o.Replicas = 1
		if nc.ConnectedClusterName() != "" {
			o.Replicas = 3
		}
	}
	ctx, cancel := withPatience(ctx, openPatience)
	defer cancel()
	needed := streamConfig(o.Replicas)
	found, err := ensureStream(ctx, js, needed, o.Existing)
	if err != nil {
		return nil, fmt.Errorf("open log: stream %s: %w", StreamName, err)
	}
	if differences := compare(found.Config, needed); len(differences) > 0 {
		return nil, &ConfigError{differences}
	}
	l := &Log{
		nc: nc, commands: nc, js: js, options: o, logger: orDiscard(o.Logger),
		created:  found.Created,
		identity: StreamName + "@" + found.Created.UTC().Format(time.RFC3339Nano),
		batches:  make(chan struct{}, maxBatches),
		cache:    newCache(),
	}
	l.ctx, l.stop = context.WithCancel(context.Background())
	l.countConnections()
	// What the log holds already is not taken for durable because it is there.
	if e := o.Embedded; e != nil {
		l.options.Durable = e.Durable
		l.tail = newTail()
		err = e.settle(ctx, l, found)
	} else {
		err = l.Durable(ctx, found.State.LastSeq)
	}
	if err != nil {
		l.stop()
		return nil, fmt.Errorf("open log: %w", err)
	}
	return l, nil
}

// Identity names this log, and no other: the stream's name and when it was
// created, in one word.
func (l *Log) Identity() string { return l.identity }

// Close ends all Follow calls and returns when they have returned. The
// connection stays open.
func (l *Log) Close() {
	l.mu.Lock()
	l.stop()
	l.mu.Unlock()
	l.follows.Wait()
}

// Durable is the barrier between the server's answer and ours: it returns when the
// events up to a position, which the server has shown, are on disk. After a failed
// sync it returns an error, for good.
func (l *Log) Durable(ctx context.Context, position uint64) error {
	if l.options.Durable == nil {
		return nil
	}
	return l.options.Durable(ctx, position)
}

// ErrReplaced is returned, beside domain.ErrUnavailable, when the stream is not
// the one that was opened: somebody deleted that one and made another.
var ErrReplaced = errors.New("the log was replaced by another")

// End is the position of the log's newest event, as the stream's leader has it;
// 0 for an empty log. It returns domain.ErrUnavailable when the leader cannot be
// reached, and ErrReplaced.
func (l *Log) End(ctx context.Context) (uint64, error) {
	ctx, cancel := withPatience(ctx, readPatience)
	defer cancel()
	end, err := l.lastSequence(ctx)
	if err == nil {
		err = l.Durable(ctx, end)
	}
	if err != nil {
		return 0, unavailable("end of the log", err)
	}
	return end, nil
}

// lastSequence asks the leader for the stream's last sequence, and checks that
// it is still the same stream.
func (l *Log) lastSequence(ctx context.Context) (uint64, error) {
	var info struct {
		Created time.Time `json:"created"`
		State   struct {
			LastSeq uint64 `json:"last_seq"`
		} `json:"state"`
	}
	err := l.ask(ctx, "$JS.API.STREAM.INFO."+StreamName, nil, func(m *nats.Msg) error {
		return parseAPI(m.Data, &info)
	})
	if err != nil {
		return 0, err
	}
	if !info.Created.Equal(l.created) {
		return 0, fmt.Errorf("%w: created at %s, not at %s", ErrReplaced, info.Created.Format(time.RFC3339Nano), l.created.Format(time.RFC3339Nano))
	}
	return info.State.LastSeq, nil
}

// streamConfig is what the log needs of its stream: that nothing is ever lost,
// and reads and writes as this package does them.
func streamConfig(replicas int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:               StreamName,
		Description:        "Events of chat sessions, one subject per session",
		Subjects:           []string{subjectPrefix + "*"},
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

// compare lists the settings that differ from what is needed. A setting that
// loses, changes or adds no event is the operator's.
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

// ensureStream returns the stream as the server has it, created where there was
// none, unless only an existing one will do. What comes back after a creation is
// compared too: the server changes some settings in silence, and an old one leaves out
// what it does not know.
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
		}
		cancel()
		if err == nil {
			return stream.CachedInfo(), nil
		}
		// Another node may have been quicker to create it.
		if !passing(err) && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return nil, err
		}
		if pause.wait(ctx) != nil {
			return nil, err
		}
	}
}

// parseAPI reads an answer of the JetStream API: an error of the API, or v.
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

// subjectOf is the subject of a session's events.
func subjectOf(sessionID string) string { return subjectPrefix + sessionID }

// validID says whether an id can be that of a session, and with it one token of
// a subject. Ids come from URLs: with a wildcard or a quote one could ask for
// somebody else's session.
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

// unavailable says that something could not be read, or was not written.
func unavailable(doing string, err error) error {
	return fmt.Errorf("%s: %w: %w", doing, domain.ErrUnavailable, err)
}
