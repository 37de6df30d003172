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

// addCompared adds a row with the ratio of the two binaries.
func (b *bench) addCompared(f figures, measured string, connections int, name string) {
	b.add(f.ratio(measured+", new ÷ old", connections, "1/s", "new "+name, "old "+name, "≥ 0.97"))
}

// compareWrites measures PATCHes with everything inside the service.
func (b *bench) compareWrites(ctx context.Context) error {
	f := figures{}
	for round := range b.Rounds {
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
			progress("compare, round %d of %d: %s%.0f PATCH/s at 64 connections, %.0f at 256", round+1, b.Rounds,
				side.name, f[side.name+"64 PATCHes"][round], f[side.name+"256 PATCHes"][round])
		}
	}
	b.addCompared(f, "PATCH/s", 64, "64 PATCHes")
	b.addCompared(f, "PATCH/s", 256, "256 PATCHes")
	return nil
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
	for round := range b.Rounds {
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
			progress("compare, round %d of %d: %s%.0f GET/s, %.0f lists/s, %.0f events/s verified", round+1, b.Rounds,
				side.name, f[side.name+"GETs"][round], f[side.name+"lists"][round], f[side.name+"verified"][round])
		}
	}
	b.addCompared(f, "GET/s by id", connections, "GETs")
	b.addCompared(f, "list/s of the newest 50", connections, "lists")
	b.addCompared(f, "verify, events/s", 1, "verified")
	return nil
}
