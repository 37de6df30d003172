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
	"strings"
	"syscall"
	"time"

	"chatsessions/deploy/loopback"
	"chatsessions/domain"
	"chatsessions/http/auth"
)

// A service is a `chatsessions serve` process that is measured.
type service struct {
	dir  string
	addr string // host:port of its API, once it is ready
	ops  string // host:port of its metrics
	cmd  *exec.Cmd
	out  *bufio.Reader

	token  string // of the account that opens and starts the sessions
	doctor string // token of the first doctor of a population
	crm    string // token of one who may see every session
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

// startService runs the binary on a data directory of its own, and returns when it
// serves.
func startService(binary, dir string, with ...func(*exec.Cmd)) (*service, error) {
	s, err := launchService(binary, dir, with...)
	if err != nil {
		return nil, err
	}
	return s, s.ready()
}

// launchService returns when the process runs; ready has to be called next.
func launchService(binary, dir string, with ...func(*exec.Cmd)) (*service, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s := &service{dir: dir, token: auth.NewToken(), doctor: auth.NewToken(), crm: auth.NewToken()}
	tokens := filepath.Join(dir, "tokens")
	lines := []string{
		auth.TokenLine(s.token, domain.Caller{Account: account, Role: domain.RoleAccount}),
		auth.TokenLine(s.doctor, domain.Caller{Account: doctor(0), Role: domain.RoleAccount}),
		auth.TokenLine(s.crm, domain.Caller{Account: "crm", Role: domain.RoleService}),
	}
	if err := os.WriteFile(tokens, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return nil, err
	}
	ops, err := loopback.Port()
	if err != nil {
		return nil, err
	}
	s.ops = fmt.Sprintf("127.0.0.1:%d", ops)
	s.cmd = exec.Command(binary, "serve", "--listen", "127.0.0.1:0", "--ops-listen", s.ops, "--log-level", "warn",
		"--data-dir", s.dataDir(), "--auth-tokens", tokens)
	s.cmd.Stderr = os.Stderr
	for _, f := range with {
		f(s.cmd)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.out = bufio.NewReader(out)
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	return s, nil
}

// ready returns when the service serves. A service that ends instead is an error.
func (s *service) ready() error {
	ready, err := s.out.ReadString('\n')
	if err != nil {
		return errors.Join(fmt.Errorf("the service did not get ready: %w", err), s.cmd.Wait())
	}
	_, s.addr, _ = strings.Cut(strings.TrimSpace(ready), "http://")
	go func() { _, _ = io.Copy(io.Discard, s.out) }() // ends with the process
	return nil
}

// dataDir is where the service keeps what is embedded.
func (s *service) dataDir() string { return filepath.Join(s.dir, "data") }

// pid is the service's process.
func (s *service) pid() int { return s.cmd.Process.Pid }

func (s *service) stop() error {
	defer os.RemoveAll(s.dir) //nolint:errcheck // the next round has a log of its own
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return s.cmd.Wait()
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

// starts is a load that sends {"start": true} to each of the sessions, once.
func (s *service) starts(paths []string, connections int, duration time.Duration) *load {
	return &load{
		addr: s.addr, connections: connections, requests: len(paths), duration: duration,
		request: func(b []byte, i int) []byte { return s.append(b, "PATCH", paths[i], `{"start": true}`) },
	}
}

func (s *service) append(b []byte, method, path, body string) []byte {
	return fmt.Appendf(b, "%s %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		method, path, s.token, len(body), body)
}
