package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"
)

// Events of the sessions whose histories are read; of the shorter, the command's start matters.
const history, longHistory = 1000, 20_000

// audit measures auditors' commands beside a bare consumer, and what a verify costs the service.
func (b *bench) audit(ctx context.Context) error {
	l, err := b.needLarge(ctx)
	if err != nil {
		return err
	}
	short, err := l.makeHistory(ctx, history)
	if err != nil {
		return err
	}
	long, err := l.makeHistory(ctx, longHistory)
	if err != nil {
		return err
	}
	replayed := filepath.Join(l.service.dir, "replayed")
	f := figures{}
	err = b.measure("audit", f, func(int) error {
		events, err := l.drain(ctx, f)
		if err != nil {
			return fmt.Errorf("ordered consumer: %w", err)
		}
		for _, c := range []struct {
			name   string
			events int
			args   []string
		}{
			{"history", history, []string{"history", short, "--output", "json"}},
			{"history long", longHistory, []string{"history", long, "--output", "json"}},
			{"replay", events, []string{"replay", "--output", "ndjson", "--file", replayed, "--force"}},
			{"verify --log-only", events, []string{"verify", "--log-only"}},
			{"verify", events, []string{"verify", "--redis-url", l.redis}},
		} {
			if err := l.service.command(ctx, f, c.name, c.events, c.args...); err != nil {
				return err
			}
		}
		return os.Remove(replayed)
	},
		ratio(fmt.Sprintf("history of %d events, events/s ÷ ordered consumer that drains the log", longHistory), 1, "1/s", "history long", "drained", "≥ 0.5"),
		ratio(fmt.Sprintf("history of %d events, the same", history), 1, "1/s", "history", "drained", ""),
		ratio("replay to a file, ndjson, events/s ÷ the same", 1, "1/s", "replay", "drained", "≥ 0.5"),
		ratio("verify of log and read model, events/s ÷ the same", 1, "1/s", "verify", "drained", "≥ 0.5"),
		ratio("verify --log-only, events/s ÷ the same", 1, "1/s", "verify --log-only", "drained", ""),
		flat("memory of chatsessions verify, second half ÷ first", "verify"),
		flat("memory of chatsessions replay, the same", "replay"))
	if err != nil {
		return err
	}
	return b.patchBesideVerify(ctx, l)
}

// patchBesideVerify measures PATCHes while the log is verified repeatedly, and without.
func (b *bench) patchBesideVerify(ctx context.Context, l *large) error {
	const connections = 64
	f := figures{}
	return b.measure("audit, PATCHes", f, func(int) error {
		if err := b.patch(ctx, l.service, connections, f, "", ""); err != nil {
			return err
		}
		verifying, stop := context.WithCancel(ctx)
		var running errgroup.Group
		running.Go(func() error {
			for verifying.Err() == nil {
				err := l.service.command(verifying, figures{}, "verify", 0, "verify", "--redis-url", l.redis)
				if err != nil && verifying.Err() == nil {
					return err
				}
			}
			return nil
		})
		err := b.patch(ctx, l.service, connections, f, "beside ", "")
		stop()
		return errors.Join(err, running.Wait())
	},
		ratio("PATCH/s while verify runs ÷ without", connections, "1/s", "beside PATCHes", "PATCHes", "≥ 0.8"),
		ratio("PATCH p99 while verify runs ÷ without", connections, "µs", "beside p99", "p99", ""))
}

// makeHistory creates a session with a number of events, and returns its id.
func (l *large) makeHistory(ctx context.Context, events int) (id string, err error) {
	paths, _, err := l.service.create(ctx, 1, 1)
	if err != nil {
		return "", err
	}
	load := &load{
		addr: l.service.addr, connections: 1, requests: events - 1, duration: patience,
		request: func(b []byte, i int) []byte {
			return l.service.append(b, "PATCH", paths[0], fmt.Sprintf(`{"room": "room %d"}`, i))
		},
	}
	r, err := load.allowed(ctx)
	if err == nil && r.count != events-1 {
		err = fmt.Errorf("a history of %d events: only %d were written", events, r.count)
	}
	return strings.TrimPrefix(paths[0], "/chat-sessions/"), err
}
