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
	"time"

	"chatsessions/deploy/loopback"
	"chatsessions/domain"
	"chatsessions/http/auth"
)

// A service is a `chatsessions serve` process under test.
type service struct {
	binary string
	dir    string
	addr   string // host:port of its API, once it is ready
	ops    string // host:port of its metrics
	cmd    *exec.Cmd
	out    *bufio.Reader

	token  string // of the account that opens and starts the sessions
	doctor string // of the first doctor of a population
	crm    string // of an account that sees every session
}

// account opens the sessions of the benchmark. Its participants are itself and a doctor.
const account = "patient-0001"

// serve runs a function on a service with an empty log of its own.
func (b *bench) serve(binary string, f func(*service) error) error {
	s, err := launchService(binary, b.dir("service"))
	if err != nil {
		return err
	}
	if err := s.ready(); err != nil {
		return err
	}
	return errors.Join(f(s), s.stop())
}

// service starts a service in a directory, for the current measurement.
func (b *bench) service(binary, dir string, args ...string) (*service, error) {
	s, err := launchService(binary, dir, args...)
	if err != nil {
		return nil, err
	}
	if err := s.ready(); err != nil {
		return nil, err
	}
	b.cleanup(s.stop)
	return s, nil
}

// launchService starts a service. Call ready next.
func launchService(binary, dir string, args ...string) (*service, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s := &service{binary: binary, dir: dir, token: auth.NewToken(), doctor: auth.NewToken(), crm: auth.NewToken()}
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
	s.cmd = exec.Command(binary, append([]string{"serve", "--listen", "127.0.0.1:0", "--ops-listen", s.ops, "--log-level", "warn",
		"--data-dir", s.dataDir(), "--auth-tokens", tokens}, args...)...)
	s.cmd.Stderr = os.Stderr
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.out = bufio.NewReader(out)
	return s, s.cmd.Start()
}

// ready returns when the service serves, or with an error if it ends instead.
func (s *service) ready() error {
	line, err := s.out.ReadString('\n')
	if err != nil {
		return errors.Join(fmt.Errorf("the service is not ready: %w", err), s.cmd.Wait())
	}
	_, s.addr, _ = strings.Cut(strings.TrimSpace(line), "http://")
	go func() { _, _ = io.Copy(io.Discard, s.out) }() // ends with the process
	return nil
}

// dataDir is the directory of the embedded log.
func (s *service) dataDir() string { return filepath.Join(s.dir, "data") }

func (s *service) pid() int { return s.cmd.Process.Pid }

// stop ends the service and removes its log.
func (s *service) stop() error { return errors.Join(terminate(s.cmd), os.RemoveAll(s.dir)) }

// command runs a command on the service's log, and adds its events per second and its memory.
func (s *service) command(ctx context.Context, f figures, name string, events int, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	output := filepath.Join(s.dir, args[0]+"-output")
	began := time.Now()
	cmd, err := launch(ctx, output, nil, s.binary, append(args, "--data-dir", s.dataDir())...)
	if err != nil {
		return err
	}
	memory := watchMemory(cmd.Process.Pid)
	err = cmd.Wait()
	f.add(name, float64(events)/time.Since(began).Seconds())
	memory.end(f, name)
	if err != nil {
		return fmt.Errorf("chatsessions %s: %w%s", args[0], err, outputTail(output))
	}
	return nil
}

// create opens sessions, which have a number of doctors in turn, and returns their paths.
func (s *service) create(ctx context.Context, count, doctors int) ([]string, *result, error) {
	paths := make([]string, count)
	l := &load{
		addr: s.addr, connections: min(count, 256), requests: count, duration: patience,
		request: func(b []byte, i int) []byte {
			return s.append(b, "POST", "/chat-sessions", fmt.Sprintf(`{"participants":["%s","%s"],"room":"consultation"}`, account, doctor(i%doctors)))
		},
		answered: func(i int, location string) { paths[i] = location },
	}
	r, err := l.allowed(ctx)
	if err == nil && r.count != count {
		err = fmt.Errorf("only %d in %s", r.count, patience)
	}
	if err != nil {
		err = fmt.Errorf("creating %d sessions: %w", count, err)
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

// append appends a request with a body.
func (s *service) append(b []byte, method, path, body string) []byte {
	return fmt.Appendf(b, "%s %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		method, path, s.token, len(body), body)
}
