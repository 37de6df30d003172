package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"chatsessions/domain"
	chathttp "chatsessions/http"
)

// A service is a `chatsessions serve` process that is measured.
type service struct {
	addr  string // host:port of its API
	cmd   *exec.Cmd
	token string // of the account that opens and starts the sessions
}

// account opens the sessions of the benchmark, with itself and a doctor as their
// participants.
const account = "patient-0001"

// startService runs the binary on a data directory of its own.
func startService(binary, dir string, args ...string) (*service, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s := &service{token: chathttp.NewToken()}
	tokens := filepath.Join(dir, "tokens")
	line := chathttp.TokenLine(s.token, domain.Caller{Account: account, Role: domain.RoleAccount})
	if err := os.WriteFile(tokens, []byte(line+"\n"), 0o600); err != nil {
		return nil, err
	}
	args = append([]string{"serve", "--listen", "127.0.0.1:0", "--data-dir", filepath.Join(dir, "data"), "--auth-tokens", tokens}, args...)
	s.cmd = exec.Command(binary, args...)
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
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return s.cmd.Wait()
}

// cpu is how much processor time the service has used: utime and stime of
// /proc/<pid>/stat (proc(5)), in hundredths of a second.
func (s *service) cpu() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, fields, _ := strings.Cut(string(stat), ") ") // behind the name, which may hold anything
	var ticks [2]int
	if f := strings.Fields(fields); len(f) > 12 {
		for i := range ticks {
			if ticks[i], err = strconv.Atoi(f[11+i]); err != nil {
				return 0, err
			}
		}
	}
	return time.Duration(ticks[0]+ticks[1]) * 10 * time.Millisecond, nil
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
