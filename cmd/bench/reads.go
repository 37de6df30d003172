package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"path/filepath"
	"time"
)

// newest is the list that a user sees first.
const newest = "/chat-sessions?$limit=50"

// reads measures GETs by id and lists beside handlers that do less: one that sends
// a fixed body through the service's own app, and one that gets it from the same
// Redis as anybody would. They are processes of their own, as the service is.
func (b *bench) reads(ctx context.Context) (err error) {
	const connections = 64
	// All of them have one doctor, who may see them.
	people := population{sessions: 10_000, patients: 2000, doctors: 1, end: time.Now().UnixMilli()}
	redis, err := startRedis(ctx, b.dir("redis"))
	if err != nil {
		return err
	}
	defer redis.stop()
	s, err := b.populated(ctx, b.binary, people, withArgs("--redis-url", redis.url))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	inside, err := b.populated(ctx, b.binary, people)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, inside.stop()) }()

	session, err := s.size(ctx, "/chat-sessions/"+people.id(0), s.doctor)
	if err != nil {
		return err
	}
	list, err := s.size(ctx, newest, s.crm)
	if err != nil {
		return err
	}
	static, err := startBaseline("", session, list)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, static.stop()) }()
	plain, err := startBaseline(redis.url, session)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plain.stop()) }()

	contenders := []contender{
		{"static", nil, cycle(static.addr, connections, b.Duration, getRequest(pathOf(session), s.doctor))},
		{"plain GET", nil, cycle(plain.addr, connections, b.Duration, getRequest(pathOf(session), s.doctor))},
		{"GET", s, cycle(s.addr, connections, b.Duration, people.gets(s)...)},
		{"GET inside", inside, cycle(inside.addr, connections, b.Duration, people.gets(inside)...)},
		{"list", s, cycle(s.addr, connections, b.Duration, getRequest(newest, s.crm))},
		{"static list", nil, cycle(static.addr, connections, b.Duration, getRequest(pathOf(list), s.crm))},
	}
	f := figures{}
	for round := range b.Rounds {
		for _, c := range contenders {
			if err := b.read(ctx, c, f, round); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
		progress("reads, round %d of %d: %.0f GET/s, %.0f static, %.0f by a plain GET, %.0f lists/s", round+1, b.Rounds,
			f["GET"][round], f["static"][round], f["plain GET"][round], f["list"][round])
	}
	b.rows = append(b.rows,
		f.ratio("GET by id ÷ static handler", connections, "1/s", "GET", "static", "≥ 0.7"),
		f.ratio("GET by id ÷ handler with one go-redis GET", connections, "1/s", "GET", "plain GET", "≥ 1.6"),
		f.ratio("GET by id, Redis inside the service ÷ static handler", connections, "1/s", "GET inside", "static", ""),
		f.single("GET by id p99", connections, "µs", "GET p99"),
		f.single("processor time per GET by id, service", connections, "µs", "GET cpu"),
		f.single("allocations per GET by id, service", connections, "", "GET allocations"),
		f.ratio("list of the newest 50 ÷ static handler", connections, "1/s", "list", "static", "≥ 0.2"),
		f.ratio("list of the newest 50 ÷ static handler, as many bytes", connections, "1/s", "list", "static list", ""),
		f.single("list of the newest 50 p99", connections, "µs", "list p99"),
		f.single("processor time per list, service", connections, "µs", "list cpu"),
	)
	return nil
}

// A contender is what answers reads: the service, or a baseline.
type contender struct {
	name    string
	service *service // nil for a baseline
	load    *load
}

// read asks one of them for the duration and adds the figures, after a warm-up.
func (b *bench) read(ctx context.Context, c contender, f figures, round int) error {
	warm := *c.load
	warm.duration = b.Duration / 5
	if _, err := warm.run(ctx); err != nil {
		return err
	}
	before, profiled := metrics{}, func() error { return nil }
	if c.service != nil {
		var err error
		if before, err = c.service.metrics(ctx); err != nil {
			return err
		}
		if b.Profile != "" {
			profiled = c.service.profile(ctx, filepath.Join(b.Profile, fmt.Sprintf("%s-%d", c.name, round+1)), b.Duration)
		}
	}
	r, err := c.load.run(ctx)
	if err = errors.Join(err, profiled()); err != nil {
		return err
	}
	if len(r.refused) > 0 {
		return fmt.Errorf("refused: %v", r.refused)
	}
	f.add(c.name, r.perSecond())
	f.add(c.name+" p99", micros(r.percentile(0.99)))
	if c.service == nil {
		return nil
	}
	after, err := c.service.metrics(ctx)
	if err != nil {
		return err
	}
	f.add(c.name+" cpu", 1e6*after.since(before, "process_cpu_seconds_total")/float64(r.count))
	f.add(c.name+" allocations", after.since(before, "go_memstats_mallocs_total")/float64(r.count))
	return nil
}

// populated starts a service on a log of its own in which there is a population.
func (b *bench) populated(ctx context.Context, binary string, p population, with ...func(*exec.Cmd)) (*service, error) {
	dir := b.dir("service")
	if err := p.seed(ctx, filepath.Join(dir, "data")); err != nil {
		return nil, fmt.Errorf("seeding: %w", err)
	}
	return startService(binary, dir, with...)
}

// gets are GETs of all sessions by their first doctor, in no order.
func (p population) gets(s *service) [][]byte {
	requests := make([][]byte, p.sessions)
	for i, session := range rand.New(rand.NewPCG(1, 2)).Perm(p.sessions) {
		requests[i] = getRequest("/chat-sessions/"+p.id(session), s.doctor)
	}
	return requests
}

// size is how many bytes the body of an answer has.
func (s *service) size(ctx context.Context, path, token string) (int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.addr+path, nil)
	if err != nil {
		return 0, err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, answer.Status, content)
	}
	return len(content), err
}
