package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sync/errgroup"
)

// lists measures selective lists over many sessions beside the same over few, and
// what unselective ones do to writes.
func (b *bench) lists(ctx context.Context) error {
	l, err := b.needLarge(ctx)
	if err != nil {
		return err
	}
	if err := b.selectiveLists(ctx, l); err != nil {
		return err
	}
	return b.unselectiveLists(ctx, l)
}

// selective are lists with two filters, one of which matches at most a thousand
// sessions however many there are. All of them match the other.
func selective() []string {
	return []string{
		"/chat-sessions?state=finished&room=" + sharedRoom,
		"/chat-sessions?state=finished&participants=" + doctor(0),
	}
}

func (b *bench) selectiveLists(ctx context.Context, l *large) (err error) {
	const connections, few = 4, 10_000
	redis, err := startRedis(ctx, b.dir("redis"))
	if err != nil {
		return err
	}
	defer redis.stop()
	small, err := b.populated(ctx, b.binary, crowd(few), withArgs("--redis-url", redis.url))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, small.stop()) }()
	var contenders []contender
	for _, side := range []struct {
		name    string
		service *service
	}{{"few", small}, {"selective", l.service}} {
		var requests [][]byte
		for _, path := range selective() {
			size, err := side.service.size(ctx, path, side.service.crm)
			if err != nil {
				return err
			}
			if size <= len("[]") {
				return fmt.Errorf("%s matches nothing", path)
			}
			requests = append(requests, getRequest(path, side.service.crm))
		}
		contenders = append(contenders, contender{side.name, side.service, cycle(side.service.addr, connections, b.Duration, requests...)})
	}
	f := figures{}
	for round := range b.Rounds {
		for _, c := range contenders {
			if err := b.read(ctx, c, f, round); err != nil {
				return fmt.Errorf("selective lists: %w", err)
			}
		}
		progress("selective lists, round %d of %d: p99 %.0f µs with %d sessions, %.0f with %d", round+1, b.Rounds,
			f["selective p99"][round], l.sessions, f["few p99"][round], few)
	}
	b.rows = append(b.rows,
		f.ratio(fmt.Sprintf("list with a selective filter of two, p99: %d sessions ÷ %d", l.sessions, few), connections, "µs", "selective p99", "few p99", "≤ 1.5"),
		f.ratio("list with a selective filter of two, the same", connections, "1/s", "selective", "few", ""),
	)
	return nil
}

// unselective are lists that have to look at much: a thousand documents, filters
// that each match many sessions and none together, and what lies behind half of all
// sessions. Those that benchmarks start have the room consultation.
func (l *large) unselective() []string {
	return []string{
		"/chat-sessions?$limit=1000",
		"/chat-sessions?state=finished&room=consultation",
		fmt.Sprintf("/chat-sessions?$skip=%d", l.sessions/2),
		"/chat-sessions?state=finished&type=telemed&$limit=1000&$sort%5BcreatedAt%5D=1",
	}
}

func (b *bench) unselectiveLists(ctx context.Context, l *large) error {
	const connections, listing = 64, 2
	s := l.service
	var requests [][]byte
	for _, path := range l.unselective() {
		requests = append(requests, getRequest(path, s.crm))
	}
	f := figures{}
	for round := range b.Rounds {
		for _, side := range []struct {
			name    string
			listing int
		}{{"alone", 0}, {"with lists", listing}} {
			paths, err := b.startable(ctx, s, connections)
			if err != nil {
				return err
			}
			profiled := func() error { return nil }
			if b.Profile != "" {
				profiled = s.profile(ctx, filepath.Join(b.Profile, fmt.Sprintf("writes-%s-%d", side.name, round+1)), b.Duration)
			}
			patched, listed, err := writeWhile(ctx, s.starts(paths, connections, b.Duration), cycle(s.addr, side.listing, b.Duration, requests...))
			if err = errors.Join(err, profiled()); err != nil {
				return err
			}
			f.add(side.name, patched.perSecond())
			f.add(side.name+" p99", micros(patched.percentile(0.99)))
			f.add(side.name+" answered", listed.perSecond())
			f.add(side.name+" refused", float64(listed.refused[503])/listed.elapsed.Seconds())
			f.add(side.name+" list p99", micros(listed.percentile(0.99)))
		}
		progress("unselective lists, round %d of %d: %.0f PATCH/s, %.0f without them", round+1, b.Rounds, f["with lists"][round], f["alone"][round])
	}
	b.rows = append(b.rows,
		f.ratio("PATCH/s while unselective lists run ÷ without", connections, "1/s", "with lists", "alone", "≥ 0.8"),
		f.ratio("PATCH p99 while unselective lists run ÷ without", connections, "µs", "with lists p99", "alone p99", ""),
		f.single("  lists answered meanwhile", listing, "1/s", "with lists answered"),
		f.single("  lists refused meanwhile, 503", listing, "1/s", "with lists refused"),
		f.single("  p99 of those answered", listing, "µs", "with lists list p99"),
	)
	return nil
}

// writeWhile runs both loads, the second for as long as the first. It may be refused
// with a 503; anything else is an error.
func writeWhile(ctx context.Context, writes, lists *load) (written, listed *result, err error) {
	var running errgroup.Group
	listing, stop := context.WithCancel(ctx)
	defer stop()
	running.Go(func() (err error) {
		listed, err = lists.run(listing)
		return err
	})
	written, err = writes.run(ctx)
	stop()
	if err = errors.Join(err, running.Wait()); err != nil {
		return nil, nil, err
	}
	if len(written.refused) > 0 {
		return nil, nil, fmt.Errorf("PATCH refused: %v", written.refused)
	}
	for status := range listed.refused {
		if status != 503 {
			return nil, nil, fmt.Errorf("lists answered with %d", status)
		}
	}
	return written, listed, nil
}
