package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"chatsessions/domain"
	chathttp "chatsessions/http"
)

// A service is a `chatsessions serve` process that is measured.
type service struct {
	dir   string
	addr  string // host:port of its API
	ops   string // host:port of its metrics
	cmd   *exec.Cmd
	token string // of the account that opens and starts the sessions
}

// account opens the sessions of the benchmark, with itself and a doctor as their
// participants.
const account = "patient-0001"

// withArgs and withEnv add to the command line and the environment of a service.
func withArgs(args ...string) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) { cmd.Args = append(cmd.Args, args...) }
}

func withEnv(env ...string) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) { cmd.Env = append(os.Environ(), env...) }
}

// startService runs the binary on a data directory of its own.
func startService(binary, dir string, with ...func(*exec.Cmd)) (*service, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s := &service{dir: dir, token: chathttp.NewToken()}
	tokens := filepath.Join(dir, "tokens")
	line := chathttp.TokenLine(s.token, domain.Caller{Account: account, Role: domain.RoleAccount})
	if err := os.WriteFile(tokens, []byte(line+"\n"), 0o600); err != nil {
		return nil, err
	}
	ops, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	s.ops = fmt.Sprintf("127.0.0.1:%d", ops[0])
	s.cmd = exec.Command(binary, "serve", "--listen", "127.0.0.1:0", "--ops-listen", s.ops, "--log-level", "warn",
		"--data-dir", filepath.Join(dir, "data"), "--auth-tokens", tokens)
	for _, f := range with {
		f(s.cmd)
	}
	s.cmd.Stderr = os.Stderr
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewReader(out)
	ready, err := lines.ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the service did not get ready: %w", err), s.cmd.Wait())
	}
	_, s.addr, _ = strings.Cut(strings.TrimSpace(ready), "http://")
	go func() { _, _ = io.Copy(io.Discard, lines) }() // ends with the process
	return s, nil
}

func (s *service) stop() error {
	defer os.RemoveAll(s.dir) //nolint:errcheck // the next round has a log of its own
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return s.cmd.Wait()
}

// metrics are the service's own figures, by the name of each series with its labels.
type metrics map[string]float64

func (s *service) metrics(ctx context.Context) (metrics, error) {
	text, err := s.ask(ctx, "/metrics")
	if err != nil {
		return nil, err
	}
	m := metrics{}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		end := strings.LastIndexByte(line, ' ')
		if m[line[:max(end, 0)]], err = strconv.ParseFloat(strings.TrimSpace(line[end+1:]), 64); err != nil {
			return nil, fmt.Errorf("metric %q: %w", line, err)
		}
	}
	return m, nil
}

// since returns by how much a counter has grown.
func (m metrics) since(before metrics, name string) float64 { return m[name] - before[name] }

// mean returns the mean of what a histogram has observed since.
func (m metrics) mean(before metrics, name, labels string) float64 {
	return m.since(before, name+"_sum"+labels) / max(1, m.since(before, name+"_count"+labels))
}

// profile begins to profile the service for a duration; the files' names begin with
// the prefix. The function that it returns waits for them.
func (s *service) profile(ctx context.Context, prefix string, duration time.Duration) func() error {
	seconds := max(1, int(duration.Seconds())-1)
	var running errgroup.Group
	for name, path := range map[string]string{"cpu": "profile", "allocs": "allocs", "mutex": "mutex"} {
		running.Go(func() error {
			content, err := s.ask(ctx, fmt.Sprintf("/debug/pprof/%s?seconds=%d", path, seconds))
			if err != nil {
				return err
			}
			return os.WriteFile(prefix+"."+name, content, 0o644)
		})
	}
	return running.Wait
}

// ask gets something from the operators' address.
func (s *service) ask(ctx context.Context, path string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.ops+path, nil)
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, answer.Status)
	}
	return content, err
}

// create opens sessions and returns their paths.
func (s *service) create(ctx context.Context, count int) ([]string, *result, error) {
	const body = `{"participants":["` + account + `","doctor-0001"],"room":"consultation"}`
	paths := make([]string, count)
	l := &load{
		addr: s.addr, connections: min(count, 256), requests: count, duration: 10 * time.Minute,
		request: func(b []byte, _ int) []byte {
			return s.append(b, "POST", "/chat-sessions", body)
		},
		answered: func(i int, a *reply) { paths[i] = a.location },
	}
	r, err := l.run(ctx)
	if err == nil && r.count != count {
		err = fmt.Errorf("%d of %d sessions were created; refused: %v", r.count, count, r.refused)
	}
	return paths, r, err
}

// start sends {"start": true} to each of the sessions, once.
func (s *service) start(ctx context.Context, paths []string, connections int, duration time.Duration) (*result, error) {
	l := &load{
		addr: s.addr, connections: connections, requests: len(paths), duration: duration,
		request: func(b []byte, i int) []byte { return s.append(b, "PATCH", paths[i], `{"start": true}`) },
	}
	r, err := l.run(ctx)
	if err == nil && len(r.refused) > 0 {
		err = fmt.Errorf("refused: %v", r.refused)
	}
	return r, err
}

func (s *service) append(b []byte, method, path, body string) []byte {
	return fmt.Appendf(b, "%s %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		method, path, s.token, len(body), body)
}
