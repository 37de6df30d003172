package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"golang.org/x/sync/errgroup"
)

// lists measures selective lists over many sessions and few, and what others cost writes.
func (b *bench) lists(ctx context.Context) error {
	l, err := b.needLarge(ctx)
	if err != nil {
		return err
	}
	if err := b.selectiveLists(ctx, l); err != nil {
		return fmt.Errorf("selective lists: %w", err)
	}
	return b.unselectiveLists(ctx, l)
}

// selective are lists with two filters. One matches at most a thousand sessions, however
// many there are; all of those match the other.
func selective() []string {
	return []string{
		"/chat-sessions?state=finished&room=" + sharedRoom,
		"/chat-sessions?state=finished&participants=" + doctor(0),
	}
}

func (b *bench) selectiveLists(ctx context.Context, l *large) error {
	const connections, few = 4, 10_000
	redis, err := b.redis(ctx)
	if err != nil {
		return err
	}
	small, err := b.populated(ctx, b.binary, crowd(few), "--redis-url", redis)
	if err != nil {
		return err
	}
	contenders := []contender{{name: "few", service: small}, {name: "selective", service: l.service}}
	for i, c := range contenders {
		var requests [][]byte
		for _, path := range selective() {
			size, err := c.service.size(ctx, path, c.service.crm)
			if err != nil {
				return err
			}
			if size <= len("[]") {
				return fmt.Errorf("%s matches nothing", path)
			}
			requests = append(requests, getRequest(path, c.service.crm))
		}
		contenders[i].load = cycle(c.service.addr, connections, b.Duration, requests...)
	}
	f := figures{}
	return b.measure("selective lists", f, func(round int) error { return b.read(ctx, f, round, contenders...) },
		ratio(fmt.Sprintf("list with a selective filter of two, p99: %d sessions ÷ %d", l.sessions, few), connections, "µs", "selective p99", "few p99", "≤ 1.5"),
		ratio("list with a selective filter of two, the same", connections, "1/s", "selective", "few", ""))
}

// unselective are lists that must examine much: a thousand documents, filters that match many
// sessions but none together, and sessions after half of all. The sessions that measurements
// start have the room consultation.
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
	return b.measure("unselective lists", f, func(round int) error {
		for _, side := range []struct {
			name    string
			listing int
		}{{"without", 0}, {"with lists", listing}} {
			paths, err := b.startable(ctx, s, connections)
			if err != nil {
				return err
			}
			profiled := b.profile(ctx, s, fmt.Sprintf("writes-%s-%d", side.name, round+1))
			patched, listed, err := writeWhile(ctx, s.starts(paths, connections, b.Duration), cycle(s.addr, side.listing, b.Duration, requests...))
			if err = errors.Join(err, profiled()); err != nil {
				return err
			}
			f.add(side.name, patched.perSecond())
			f.add(side.name+" p99", micros(patched.percentile(0.99)))
			f.add(side.name+" answered", listed.perSecond())
			f.add(side.name+" refused", float64(listed.refused[http.StatusServiceUnavailable])/listed.elapsed.Seconds())
			f.add(side.name+" list p99", micros(listed.percentile(0.99)))
		}
		return nil
	},
		ratio("PATCH/s while unselective lists run ÷ without", connections, "1/s", "with lists", "without", "≥ 0.8"),
		ratio("PATCH p99 while unselective lists run ÷ without", connections, "µs", "with lists p99", "without p99", ""),
		single("  lists answered at the same time", listing, "1/s", "with lists answered"),
		single("  lists refused at the same time, 503", listing, "1/s", "with lists refused"),
		single("  p99 of those answered", listing, "µs", "with lists list p99"))
}

// writeWhile runs lists for as long as writes. A list may be refused with a 503.
func writeWhile(ctx context.Context, writes, lists *load) (written, listed *result, err error) {
	var running errgroup.Group
	listing, stop := context.WithCancel(ctx)
	defer stop()
	running.Go(func() (err error) {
		listed, err = lists.run(listing)
		return err
	})
	written, err = writes.allowed(ctx)
	stop()
	if err = errors.Join(err, running.Wait()); err != nil {
		return nil, nil, err
	}
	for status := range listed.refused {
		if status != http.StatusServiceUnavailable {
			return nil, nil, fmt.Errorf("lists answered with %d", status)
		}
	}
	return written, listed, nil
}
