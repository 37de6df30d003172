package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"time"
)

// newest is the list that a user sees first.
const newest = "/chat-sessions?$limit=50"

// reads measures GETs and lists beside a fixed body and a handler with one GET from Redis.
func (b *bench) reads(ctx context.Context) error {
	const connections = 64
	people := oneDoctor(10_000)
	redis, err := b.redis(ctx)
	if err != nil {
		return err
	}
	s, err := b.populated(ctx, b.binary, people, "--redis-url", redis)
	if err != nil {
		return err
	}
	inside, err := b.populated(ctx, b.binary, people)
	if err != nil {
		return err
	}
	session, err := s.size(ctx, "/chat-sessions/"+people.id(0), s.doctor)
	if err != nil {
		return err
	}
	list, err := s.size(ctx, newest, s.crm)
	if err != nil {
		return err
	}
	static, err := b.baseline(ctx, "", session, list)
	if err != nil {
		return err
	}
	plain, err := b.baseline(ctx, redis, session)
	if err != nil {
		return err
	}
	contenders := []contender{
		{"static", nil, cycle(static, connections, b.Duration, getRequest(pathOf(session), s.doctor))},
		{"plain GET", nil, cycle(plain, connections, b.Duration, getRequest(pathOf(session), s.doctor))},
		{"GET", s, cycle(s.addr, connections, b.Duration, people.gets(s)...)},
		{"GET inside", inside, cycle(inside.addr, connections, b.Duration, people.gets(inside)...)},
		{"list", s, cycle(s.addr, connections, b.Duration, getRequest(newest, s.crm))},
		{"static list", nil, cycle(static, connections, b.Duration, getRequest(pathOf(list), s.crm))},
	}
	f := figures{}
	return b.measure("reads", f, func(round int) error { return b.read(ctx, f, round, contenders...) },
		ratio("GET by id ÷ static handler", connections, "1/s", "GET", "static", "≥ 0.7"),
		ratio("GET by id ÷ handler with one go-redis GET", connections, "1/s", "GET", "plain GET", "≥ 1.6"),
		ratio("GET by id, Redis inside the service ÷ static handler", connections, "1/s", "GET inside", "static", ""),
		single("GET by id p99", connections, "µs", "GET p99"),
		single("processor time per GET by id, service", connections, "µs", "GET cpu"),
		single("allocations per GET by id, service", connections, "", "GET allocations"),
		ratio("list of the newest 50 ÷ static handler", connections, "1/s", "list", "static", "≥ 0.2"),
		ratio("list of the newest 50 ÷ static handler, as many bytes", connections, "1/s", "list", "static list", ""),
		single("list of the newest 50 p99", connections, "µs", "list p99"),
		single("processor time per list, service", connections, "µs", "list cpu"))
}

// A contender answers reads: the service, or a baseline.
type contender struct {
	name    string
	service *service // nil for a baseline
	load    *load
}

// read runs the load of each contender after a warm-up, and adds the figures.
func (b *bench) read(ctx context.Context, f figures, round int, contenders ...contender) error {
	for _, c := range contenders {
		warm := *c.load
		warm.duration = b.Duration / 5
		_, err := warm.run(ctx)
		var r *result
		switch {
		case err != nil:
		case c.service == nil:
			r, err = c.load.allowed(ctx)
		default:
			r, err = b.measured(ctx, c.service, c.load, f, c.name+" ", fmt.Sprintf("%s-%d", c.name, round+1))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		f.add(c.name, r.perSecond())
		f.add(c.name+" p99", micros(r.percentile(0.99)))
	}
	return nil
}

// populated starts a service on a log of its own with a population.
func (b *bench) populated(ctx context.Context, binary string, p population, args ...string) (*service, error) {
	dir := b.dir("service")
	if err := p.seed(ctx, filepath.Join(dir, "data")); err != nil {
		return nil, fmt.Errorf("seeding: %w", err)
	}
	return b.service(binary, dir, args...)
}

// oneDoctor is a population with one doctor, who may see all sessions.
func oneDoctor(sessions int) population {
	return population{sessions: sessions, patients: sessions / 5, doctors: 1, end: time.Now().UnixMilli()}
}

// gets are GETs of all sessions by their first doctor, in random order.
func (p population) gets(s *service) [][]byte {
	requests := make([][]byte, p.sessions)
	for i, session := range rand.New(rand.NewPCG(1, 2)).Perm(p.sessions) {
		requests[i] = getRequest("/chat-sessions/"+p.id(session), s.doctor)
	}
	return requests
}

// size returns the size of a response's body.
func (s *service) size(ctx context.Context, path, token string) (int, error) {
	content, err := get(ctx, "http://"+s.addr+path, token)
	return len(content), err
}

// lag measures how long the read model takes to show a write, at half the maximum rate.
func (b *bench) lag(ctx context.Context) error {
	const connections, paced = 64, 256 // more connections than the rate needs, so that it is kept
	const wait = "chatsessions_read_model_wait_duration_seconds"
	redis, err := b.redis(ctx)
	if err != nil {
		return err
	}
	s, err := b.service(b.binary, b.dir("service"), "--redis-url", redis)
	if err != nil {
		return err
	}
	f := figures{}
	return b.measure("lag", f, func(round int) error {
		if err := b.patch(ctx, s, connections, f, "most ", ""); err != nil {
			return err
		}
		rate := f["most PATCHes"][round] / 2
		paths, _, err := s.create(ctx, int(rate*b.Duration.Seconds()), 1)
		if err != nil {
			return err
		}
		before, err := s.metrics(ctx)
		if err != nil {
			return err
		}
		l := s.starts(paths, paced, 2*b.Duration) // ends when all sessions are started
		l.rate = rate
		r, err := l.allowed(ctx)
		if err != nil {
			return fmt.Errorf("PATCH: %w", err)
		}
		after, err := s.metrics(ctx)
		if err != nil {
			return err
		}
		f.add("lag p99", 1e6*after.quantile(before, wait, 0.99))
		f.add("lag", 1e6*after.mean(before, wait, `{outcome="reached"}`))
		f.add("rate", r.perSecond())
		f.add("p99", micros(r.percentile(0.99)))
		return nil
	},
		ratio("rate of PATCHes, half the maximum", paced, "1/s", "rate", "most PATCHes", ""),
		ratio("projection lag p99 at that rate", paced, "µs", "lag p99", "", "≤ 20 ms"),
		single("projection lag, mean", paced, "µs", "lag"),
		single("PATCH p99 at that rate, from when it was due", paced, "µs", "p99"))
}
