package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// How many events the sessions have whose histories are read: with the shorter one, the
// start of the command counts.
const history, longHistory = 1000, 20_000

// audit measures what auditors run, beside a consumer that only reads the same log, and
// what it costs the service to be verified meanwhile.
func (b *bench) audit(ctx context.Context) error {
	const megabyte = 1 << 20
	l, err := b.needLarge(ctx)
	if err != nil {
		return err
	}
	var sessions [2]string
	for i, events := range []int{history, longHistory} {
		if sessions[i], err = l.makeHistory(ctx, events); err != nil {
			return fmt.Errorf("a history of %d events: %w", events, err)
		}
	}
	f := figures{}
	for round := range b.Rounds {
		events, took, err := l.drain(ctx)
		if err != nil {
			return fmt.Errorf("ordered consumer: %w", err)
		}
		f.add("drained", float64(events)/took.Seconds())
		for _, c := range []struct {
			name   string
			events int
			args   []string
		}{
			{"history", history, []string{sessions[0], "--output", "json"}},
			{"history long", longHistory, []string{sessions[1], "--output", "json"}},
			{"replay", events, []string{"--output", "ndjson", "--file", filepath.Join(l.service.dir, "replayed"), "--force"}},
			{"verify --log-only", events, []string{"--log-only"}},
			{"verify", events, []string{"--redis-url", l.redis.url}},
		} {
			name, _, _ := strings.Cut(c.name, " ")
			progress("audit, round %d of %d: %s", round+1, b.Rounds, c.name)
			took, first, last, err := l.service.command(ctx, b.binary, name, c.args...)
			if err != nil {
				return err
			}
			f.add(c.name, float64(c.events)/took.Seconds())
			f.add(c.name+" memory at first", first/megabyte)
			f.add(c.name+" memory", last/megabyte)
		}
		if err := os.Remove(filepath.Join(l.service.dir, "replayed")); err != nil {
			return err
		}
		progress("audit, round %d of %d: %.0f events/s verified, %.0f replayed, %.0f drained", round+1, b.Rounds, f["verify"][round], f["replay"][round], f["drained"][round])
	}
	if err := b.patchBesideVerify(ctx, l, f); err != nil {
		return err
	}
	b.rows = append(b.rows,
		f.ratio(fmt.Sprintf("history of %d events, events/s ÷ ordered consumer that drains the log", longHistory), 1, "1/s", "history long", "drained", "≥ 0.5"),
		f.ratio(fmt.Sprintf("history of %d events, the same", history), 1, "1/s", "history", "drained", ""),
		f.ratio("replay to a file, ndjson, events/s ÷ the same", 1, "1/s", "replay", "drained", "≥ 0.5"),
		f.ratio("verify of log and read model, events/s ÷ the same", 1, "1/s", "verify", "drained", "≥ 0.5"),
		f.ratio("verify --log-only, events/s ÷ the same", 1, "1/s", "verify --log-only", "drained", ""),
		f.ratio("PATCH/s while verify runs ÷ without", auditConnections, "1/s", "beside PATCHes", "PATCHes", "≥ 0.8"),
		f.ratio("PATCH p99 while verify runs ÷ without", auditConnections, "µs", "beside p99", "p99", ""),
		f.ratio("memory of chatsessions verify, second half ÷ first", 1, "MB", "verify memory", "verify memory at first", "≤ 1.1"),
		f.ratio("memory of chatsessions replay, the same", 1, "MB", "replay memory", "replay memory at first", "≤ 1.1"),
	)
	return nil
}

// auditConnections is how many write while the log is verified.
const auditConnections = 64

// patchBesideVerify measures PATCHes while the log is verified again and again, and
// without.
func (b *bench) patchBesideVerify(ctx context.Context, l *large, f figures) error {
	for round := range b.Rounds {
		if err := b.patch(ctx, l.service, auditConnections, f, "", ""); err != nil {
			return err
		}
		verifying, stop := context.WithCancel(ctx)
		var running sync.WaitGroup
		var failed error
		running.Go(func() {
			for verifying.Err() == nil {
				if _, _, _, err := l.service.command(verifying, b.binary, "verify", "--redis-url", l.redis.url); err != nil && verifying.Err() == nil {
					failed = err
					return
				}
			}
		})
		err := b.patch(ctx, l.service, auditConnections, f, "beside ", "")
		stop()
		running.Wait()
		if err == nil {
			err = failed
		}
		if err != nil {
			return err
		}
		progress("audit, round %d of %d: %.0f PATCH/s beside verify, %.0f without", round+1, b.Rounds, f["beside PATCHes"][round], f["PATCHes"][round])
	}
	return nil
}

// makeHistory makes a session of so many events, and returns its id.
func (l *large) makeHistory(ctx context.Context, events int) (id string, err error) {
	paths, _, err := l.service.create(ctx, 1)
	if err != nil {
		return "", err
	}
	load := &load{
		addr: l.service.addr, connections: 1, requests: events - 1, duration: 10 * time.Minute,
		request: func(b []byte, i int) []byte {
			return l.service.append(b, "PATCH", paths[0], fmt.Sprintf(`{"room": "room %d"}`, i))
		},
	}
	r, err := load.run(ctx)
	if err == nil && r.count != events-1 {
		err = fmt.Errorf("%d of %d events were written; refused: %v", r.count, events-1, r.refused)
	}
	return strings.TrimPrefix(paths[0], "/chat-sessions/"), err
}

// output is the file to which a command writes what it says.
func (s *service) output(command string) string {
	return filepath.Join(s.dir, command+"-output")
}

// command runs a command on the log of the service, to its end, and returns how long it
// took and how much memory, at most, in the first and the last half of that time.
func (s *service) command(ctx context.Context, binary, name string, args ...string) (took time.Duration, first, last float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	began := time.Now()
	cmd, err := launch(s.output(name), nil, binary, append([]string{name, "--data-dir", s.dataDir()}, args...)...)
	if err != nil {
		return 0, 0, 0, err
	}
	memory := watchMemory(cmd.Process.Pid)
	waited := make(chan error, 1)
	go func() { waited <- cmd.Wait() }()
	select {
	case err = <-waited:
	case <-ctx.Done():
		_ = cmd.Process.Kill()
		err = <-waited
	}
	took = time.Since(began)
	first, last = memory.end()
	if err != nil {
		err = fmt.Errorf("chatsessions %s: %w%s", name, err, said(s.output(name)))
	}
	return took, first, last, err
}
