package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"slices"
)

// A side is one of the two binaries that are compared.
type side struct{ name, binary string }

// sides returns the binaries in the order of a round, which alternates.
func (b *bench) sides(round int) []side {
	sides := []side{{"old ", b.Against}, {"new ", b.binary}}
	if round%2 == 1 {
		slices.Reverse(sides)
	}
	return sides
}

// compare measures another binary of the service and the one built here.
func (b *bench) compare(ctx context.Context) error {
	for _, side := range b.sides(0) {
		version, err := exec.CommandContext(ctx, side.binary, "version").Output()
		if err != nil {
			return fmt.Errorf("%s version: %w", side.binary, err)
		}
		progress("compare, %s%s: %s", side.name, side.binary, bytes.TrimSpace(version))
	}
	if err := b.compareWrites(ctx); err != nil {
		return err
	}
	return b.compareReads(ctx)
}

// compared describes a row with the ratio of the two binaries.
func compared(measured string, connections int, name string) row {
	return ratio(measured+", new ÷ old", connections, "1/s", "new "+name, "old "+name, "≥ 0.97")
}

// compareWrites measures PATCHes with everything inside the service.
func (b *bench) compareWrites(ctx context.Context) error {
	f := figures{}
	return b.measure("compare", f, func(round int) error {
		for _, side := range b.sides(round) {
			err := b.serve(side.binary, func(s *service) error {
				if err := b.patch(ctx, s, 64, f, side.name+"64 ", ""); err != nil {
					return err
				}
				return b.patch(ctx, s, 256, f, side.name+"256 ", "")
			})
			if err != nil {
				return fmt.Errorf("%s: %w", side.binary, err)
			}
		}
		return nil
	}, compared("PATCH/s", 64, "64 PATCHes"), compared("PATCH/s", 256, "256 PATCHes"))
}

// compareReads measures reads and verify, each binary with its own Redis and an equal log.
func (b *bench) compareReads(ctx context.Context) error {
	const connections = 64
	people := oneDoctor(50_000)
	services, redis := map[string]*service{}, map[string]string{}
	for _, side := range b.sides(0) {
		var err error
		if redis[side.name], err = b.redis(ctx); err != nil {
			return err
		}
		if services[side.name], err = b.populated(ctx, side.binary, people, "--redis-url", redis[side.name]); err != nil {
			return err
		}
	}
	f := figures{}
	return b.measure("compare", f, func(round int) error {
		for _, side := range b.sides(round) {
			s := services[side.name]
			err := b.read(ctx, f, round,
				contender{side.name + "GETs", s, cycle(s.addr, connections, b.Duration, people.gets(s)...)},
				contender{side.name + "lists", s, cycle(s.addr, connections, b.Duration, getRequest(newest, s.crm))})
			if err != nil {
				return err
			}
			if err := s.command(ctx, f, side.name+"verified", people.events(), "verify", "--redis-url", redis[side.name]); err != nil {
				return err
			}
		}
		return nil
	},
		compared("GET/s by id", connections, "GETs"),
		compared("list/s of the newest 50", connections, "lists"),
		compared("verify, events/s", 1, "verified"))
}
