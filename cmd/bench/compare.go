package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"time"
)

// A side is one of the two binaries that are compared.
type side struct{ name, binary string }

// sides returns the two binaries in the order of a round: the older one goes first in
// the first round, the newer one in the next.
func (b *bench) sides(round int) []side {
	sides := []side{{"old ", b.Against}, {"new ", b.binary}}
	if round%2 == 1 {
		slices.Reverse(sides)
	}
	return sides
}

// compare measures another binary of the service and this one, alternating.
func (b *bench) compare(ctx context.Context) error {
	for _, binary := range []string{b.Against, b.binary} {
		version, err := exec.CommandContext(ctx, binary, "version").Output()
		if err != nil {
			return fmt.Errorf("%s version: %w", binary, err)
		}
		progress("compare: %s: %s", binary, bytes.TrimSpace(version))
	}
	if err := b.compareWrites(ctx); err != nil {
		return err
	}
	return b.compareReads(ctx)
}

// compared adds a row with the ratio of the two binaries.
func (b *bench) compared(f figures, measured string, connections int, unit, name string) {
	b.rows = append(b.rows, f.ratio(measured+", new ÷ old", connections, unit, "new "+name, "old "+name, "≥ 0.97"))
}

// compareWrites measures PATCHes with everything inside the service.
func (b *bench) compareWrites(ctx context.Context) error {
	connections := []int{64, 256}
	f := figures{}
	for round := range b.Rounds {
		for _, side := range b.sides(round) {
			s, err := startService(side.binary, b.dir("service"))
			if err != nil {
				return err
			}
			for _, n := range connections {
				err = errors.Join(err, b.patch(ctx, s, n, f, fmt.Sprintf("%s%d ", side.name, n), ""))
			}
			if err := errors.Join(err, s.stop()); err != nil {
				return fmt.Errorf("%s: %w", side.binary, err)
			}
			progress("compare, round %d of %d: %s%.0f PATCH/s at 64 connections, %.0f at 256", round+1, b.Rounds,
				side.name, f[side.name+"64 PATCHes"][round], f[side.name+"256 PATCHes"][round])
		}
	}
	for _, n := range connections {
		b.compared(f, "PATCH/s", n, "1/s", fmt.Sprintf("%d PATCHes", n))
	}
	return nil
}

// compareReads measures reads and verify. Each binary has a Redis and a log of its own,
// with the same sessions in both.
func (b *bench) compareReads(ctx context.Context) (err error) {
	const connections = 64
	people := population{sessions: 50_000, patients: 10_000, doctors: 1, end: time.Now().UnixMilli()}
	services, redis := map[string]*service{}, map[string]*redisServer{}
	for _, side := range b.sides(0) {
		r, err := startRedis(ctx, b.dir("redis"))
		if err != nil {
			return err
		}
		defer r.stop()
		s, err := b.populated(ctx, side.binary, people, withArgs("--redis-url", r.url))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.stop()) }()
		services[side.name], redis[side.name] = s, r
	}
	f := figures{}
	for round := range b.Rounds {
		for _, side := range b.sides(round) {
			s := services[side.name]
			for _, c := range []contender{
				{side.name + "GETs", s, cycle(s.addr, connections, b.Duration, people.gets(s)...)},
				{side.name + "lists", s, cycle(s.addr, connections, b.Duration, getRequest(newest, s.crm))},
			} {
				if err := b.read(ctx, c, f, round); err != nil {
					return fmt.Errorf("%s: %w", c.name, err)
				}
			}
			took, _, _, err := s.command(ctx, side.binary, "verify", "--redis-url", redis[side.name].url)
			if err != nil {
				return err
			}
			f.add(side.name+"verified", float64(people.events())/took.Seconds())
			progress("compare, round %d of %d: %s%.0f GET/s, %.0f lists/s, %.0f events/s verified", round+1, b.Rounds,
				side.name, f[side.name+"GETs"][round], f[side.name+"lists"][round], f[side.name+"verified"][round])
		}
	}
	b.compared(f, "GET/s by id", connections, "1/s", "GETs")
	b.compared(f, "list/s of the newest 50", connections, "1/s", "lists")
	b.compared(f, "verify, events/s", 1, "1/s", "verified")
	return nil
}
