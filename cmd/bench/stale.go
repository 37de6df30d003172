package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"chatsessions/deploy/loopback"
)

// stale looks for answers that are older than a write that was answered: what one
// node has written is asked of another at once. Both have a projector, and share a
// nats-server and a Redis.
func (b *bench) stale(ctx context.Context) (err error) {
	const most, clients = 100_000, 64
	redis, err := startRedis(ctx, b.dir("redis"))
	if err != nil {
		return err
	}
	defer redis.stop()
	log, natsURL, err := startNATS(ctx, b.nats, b.dir("nats"))
	if err != nil {
		return err
	}
	defer func() { _ = terminate(log) }()
	var nodes [2]*service
	for i := range nodes {
		if nodes[i], err = startService(b.binary, b.dir("service"), withArgs("--nats-url", natsURL, "--redis-url", redis.url)); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, nodes[i].stop()) }()
	}
	look := &staleLook{answers: min(most, b.Sessions), nodes: nodes, client: &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: clients}, Timeout: 30 * time.Second,
	}}
	defer look.client.CloseIdleConnections()
	reported := report(ctx, "stale", "answers", look.answers, func() (int, error) { return int(look.looked.Load()), nil })
	looking, looks := errgroup.WithContext(ctx)
	for client := range clients {
		looking.Go(func() error { return look.run(looks, client) })
	}
	err = looking.Wait()
	reported()
	if err != nil {
		return err
	}
	count := func(measured string, n *atomic.Int64) row {
		return row{Measured: measured, Connections: clients, Service: float64(n.Load())}
	}
	b.rows = append(b.rows,
		count(fmt.Sprintf("stale answers after an answered write, of %d", look.looked.Load()), &look.stale).aims("0"),
		count("  refused instead, 503", &look.refused),
		count("  answered from the log", &look.fromLog),
		count("  writes refused, 503", &look.unwritten),
	)
	return nil
}

// A staleLook is clients that write on one node and read on the other.
type staleLook struct {
	answers int // so many are looked at
	nodes   [2]*service
	client  *http.Client

	looked, stale, refused, fromLog, unwritten atomic.Int64
}

// A written is what the answer to a write has told.
type written struct {
	ID      string `json:"id"`
	State   string `json:"state"`
	Version int    `json:"version"`
}

// run lets one client write and read in turn, until there are answers enough: a
// session's whole life, and then the next one's. Nodes change roles at each write.
func (l *staleLook) run(ctx context.Context, client int) error {
	writes := 0
	for session := 0; ; session++ {
		room := fmt.Sprintf("room-%d-%d", client, session)
		method, path := http.MethodPost, "/chat-sessions"
		for _, body := range []string{`{"room":"` + room + `"}`, `{"start":true}`, `{"accept":true}`, `{"finish":true}`} {
			if l.looked.Load() >= int64(l.answers) || ctx.Err() != nil {
				return ctx.Err()
			}
			writer, reader := l.nodes[writes%2], l.nodes[1-writes%2]
			writes++
			answer, err := l.ask(ctx, writer, method, path, body)
			if err != nil {
				return err
			}
			if answer.status == http.StatusServiceUnavailable {
				l.unwritten.Add(1)
				break // it may have been written or not
			}
			var w written
			if err := json.Unmarshal(answer.body, &w); err != nil || answer.status != http.StatusOK {
				return fmt.Errorf("%s %s: %d: %s", method, path, answer.status, answer.body)
			}
			method, path = http.MethodPatch, "/chat-sessions/"+w.ID
			if err := l.get(ctx, reader, path, w); err != nil {
				return err
			}
			if writes%10 > 0 {
				continue
			}
			if err := l.list(ctx, reader, room, w); err != nil {
				return err
			}
		}
	}
}

// get looks for what was written by id.
func (l *staleLook) get(ctx context.Context, s *service, path string, w written) error {
	answer, err := l.read(ctx, s, path)
	if err != nil || answer == nil {
		return err
	}
	if answer.status == http.StatusNotFound {
		l.found(s, path, w, answer)
		return nil
	}
	version, err := strconv.Atoi(strings.Trim(answer.header.Get("ETag"), `"`))
	if err != nil {
		return fmt.Errorf("GET %s: ETag: %w", path, err)
	}
	if version < w.Version {
		l.found(s, path, w, answer)
	}
	return nil
}

// list looks for what was written in a list that has to show it, and nothing else.
func (l *staleLook) list(ctx context.Context, s *service, room string, w written) error {
	path := "/chat-sessions?room=" + room + "&state=" + w.State
	answer, err := l.read(ctx, s, path)
	if err != nil || answer == nil {
		return err
	}
	var sessions []written
	if err := json.Unmarshal(answer.body, &sessions); err != nil {
		return fmt.Errorf("GET %s: %d: %w", path, answer.status, err)
	}
	if len(sessions) != 1 || sessions[0].ID != w.ID || sessions[0].Version < w.Version {
		l.found(s, path, w, answer)
	}
	return nil
}

// found reports an answer that is stale.
func (l *staleLook) found(s *service, path string, w written, answer *nodeAnswer) {
	l.stale.Add(1)
	progress("stale: version %d was answered, then GET http://%s%s: %d: %s", w.Version, s.addr, path, answer.status, answer.body)
}

// read gets something and counts; it returns nil for a 503.
func (l *staleLook) read(ctx context.Context, s *service, path string) (*nodeAnswer, error) {
	answer, err := l.ask(ctx, s, http.MethodGet, path, "")
	if err != nil {
		return nil, err
	}
	l.looked.Add(1)
	switch answer.status {
	case http.StatusServiceUnavailable:
		l.refused.Add(1)
		return nil, nil
	case http.StatusOK, http.StatusNotFound:
	default:
		return nil, fmt.Errorf("GET %s: %d: %s", path, answer.status, answer.body)
	}
	if answer.header.Get("Chat-Sessions-Source") != "" {
		l.fromLog.Add(1)
	}
	return answer, nil
}

// A nodeAnswer is the whole answer of a node.
type nodeAnswer struct {
	status int
	header http.Header
	body   []byte
}

func (l *staleLook) ask(ctx context.Context, s *service, method, path, body string) (*nodeAnswer, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+s.addr+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+s.token)
	request.Header.Set("Content-Type", "application/json")
	answer, err := l.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	return &nodeAnswer{answer.StatusCode, answer.Header, content}, err
}

// startNATS starts one nats-server with the configuration that is deployed, and
// returns when it answers.
func startNATS(ctx context.Context, binary, dir string) (cmd *exec.Cmd, url string, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, "", err
	}
	port, err := loopback.Port()
	if err != nil {
		return nil, "", err
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	cmd, err = launch(filepath.Join(dir, "output"), []string{
		"NATS_USER=" + clusterUser, "NATS_PASSWORD=" + clusterPassword, "NATS_STORE_DIR=" + strconv.Quote(dir),
	}, binary, "-c", "deploy/nats/nats-server.conf", "--addr", "127.0.0.1", "--port", strconv.Itoa(port))
	if err != nil {
		return nil, "", err
	}
	if err := answers(ctx, addr); err != nil {
		return nil, "", errors.Join(err, terminate(cmd))
	}
	return cmd, "nats://" + clusterUser + ":" + clusterPassword + "@" + addr, nil
}
