package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"chatsessions/eventstore"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// The server's own protocol for snapshots: chunks of a compressed archive, of the stream's
// files or of its messages (nats-server 2.15, jetstream_api.go and stream_backup.go). A restore
// takes both.

const (
	// chunkSize is the size of a chunk in bytes; the server sends windowSize ahead.
	chunkSize, windowSize = 128 << 10, 4 << 20
	// chunkPatience bounds the wait for the next chunk, or for the answer to one.
	chunkPatience = 30 * time.Second
)

// A snapshot reads the stream's directory from the server.
type snapshot struct {
	ctx    context.Context
	nc     *nats.Conn
	config server.StreamConfig
	sub    *nats.Subscription
	rest   []byte
	err    error // what ended it
}

func requestSnapshot(ctx context.Context, nc *nats.Conn) (*snapshot, error) {
	inbox := nc.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	var answer server.JSApiStreamSnapshotResponse
	err = request(ctx, nc, "$JS.API.STREAM.SNAPSHOT."+eventstore.StreamName, server.JSApiStreamSnapshotRequest{
		DeliverSubject: inbox, NoConsumers: true, CheckMsgs: true, ChunkSize: chunkSize, WindowSize: windowSize,
	}, &answer)
	if err == nil && answer.Error != nil {
		err = answer.Error
	}
	if err != nil {
		_ = sub.Unsubscribe()
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	return &snapshot{ctx: ctx, nc: nc, sub: sub, config: *answer.Config}, nil
}

// Read implements io.Reader.
func (s *snapshot) Read(p []byte) (int, error) {
	for len(s.rest) == 0 && s.err == nil {
		s.next()
	}
	if len(s.rest) == 0 {
		return 0, s.err
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func (s *snapshot) next() {
	ctx, cancel := context.WithTimeout(s.ctx, chunkPatience)
	defer cancel()
	m, err := s.sub.NextMsgWithContext(ctx)
	switch {
	case err != nil:
		s.err = err
	case len(m.Data) > 0:
		s.rest = m.Data
		if m.Reply != "" {
			s.err = s.nc.Publish(m.Reply, nil)
		}
	default:
		s.err = io.EOF
		if status := m.Header.Get("Status"); status != "" && status != "204" {
			s.err = fmt.Errorf("the server gave up: %s %s", status, m.Header.Get("Description"))
		}
	}
}

// Close tells the server that no more is wanted.
func (s *snapshot) Close() { _ = s.sub.Unsubscribe() }

// upload sends a snapshot to the server, which creates the stream from it.
func upload(ctx context.Context, nc *nats.Conn, config server.StreamConfig, content io.Reader) (*server.StreamInfo, error) {
	var begun server.JSApiStreamRestoreResponse
	err := request(ctx, nc, "$JS.API.STREAM.RESTORE."+config.Name, server.JSApiStreamRestoreRequest{Config: config}, &begun)
	if err == nil && begun.Error != nil {
		err = begun.Error
	}
	if err != nil {
		return nil, err
	}
	chunk := make([]byte, chunkSize)
	for {
		n, err := io.ReadFull(content, chunk)
		if n > 0 {
			if err := uploadChunk(ctx, nc, begun.DeliverSubject, chunk[:n]); err != nil {
				return nil, err
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	// The server answers when it has read everything.
	answer, err := nc.RequestWithContext(ctx, begun.DeliverSubject, nil)
	if err != nil {
		return nil, err
	}
	var created server.JSApiStreamCreateResponse
	if err := json.Unmarshal(answer.Data, &created); err != nil {
		return nil, err
	}
	if created.Error != nil {
		return nil, created.Error
	}
	return created.StreamInfo, nil
}

func uploadChunk(ctx context.Context, nc *nats.Conn, subject string, chunk []byte) error {
	ctx, cancel := context.WithTimeout(ctx, chunkPatience)
	defer cancel()
	answer, err := nc.RequestWithContext(ctx, subject, chunk)
	if err != nil || len(answer.Data) == 0 {
		return err
	}
	var failed server.ApiResponse
	if err := json.Unmarshal(answer.Data, &failed); err != nil {
		return err
	}
	if failed.Error != nil {
		return failed.Error
	}
	return nil
}

// request makes a request of the JetStream API.
func request(ctx context.Context, nc *nats.Conn, subject string, body, into any) error {
	content, err := json.Marshal(body)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, chunkPatience)
	defer cancel()
	answer, err := nc.RequestWithContext(ctx, subject, content)
	if err != nil {
		return err
	}
	return json.Unmarshal(answer.Data, into)
}
