package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"
)

// writes measures PATCHes beside a raw loop of publishes that syncs each message.
func (b *bench) writes(ctx context.Context) error {
	for _, n := range b.Connections {
		f := figures{}
		for round := range b.Rounds {
			raw, err := startRawLog(b.dir("raw"))
			if err != nil {
				return err
			}
			baseline, err := raw.publish(n, b.Payload, b.Duration)
			raw.stop()
			if err != nil {
				return fmt.Errorf("baseline: %w", err)
			}
			f.add("publishes", baseline.perSecond())
			f.add("publish p50", micros(baseline.percentile(0.5)))
			s, err := startService(b.binary, b.dir("service"))
			if err != nil {
				return err
			}
			err = b.patch(ctx, s, n, f, "", fmt.Sprintf("writes-%d-%d", n, round+1))
			if stopped := s.stop(); err == nil {
				err = stopped
			}
			if err != nil {
				return err
			}
			progress("writes, %d connections, round %d of %d: %.0f PATCH/s, %.0f publishes/s", n, round+1, b.Rounds, f["PATCHes"][round], f["publishes"][round])
		}
		targets := map[int]string{256: "≥ 4.0", 64: "≥ 3.0"}
		p50 := ""
		if n == 1 {
			p50 = "≤ 1.5"
		}
		b.rows = append(b.rows,
			f.ratio("PATCH ÷ single publish, fsync on", n, "1/s", "PATCHes", "publishes", targets[n]),
			f.ratio("PATCH p50 ÷ publish p50", n, "µs", "p50", "publish p50", p50),
			f.single("PATCH p99", n, "µs", "p99"),
			f.single("processor time per PATCH, service", n, "µs", "cpu"),
			f.single("allocations per PATCH, service", n, "", "allocations"),
		)
		for _, p := range parts {
			b.rows = append(b.rows, f.single(p.measured, n, p.unit, p.measured))
		}
	}
	return nil
}

// parts are where the time of a PATCH goes, as the service itself measures it.
var parts = []struct {
	measured, metric, labels, unit string
	scale                          float64
}{
	{"  of a PATCH: at the log", "chatsessions_command_duration_seconds", "", "µs", 1e6},
	{"  of a PATCH: waiting for the read model", "chatsessions_read_model_wait_duration_seconds", `{outcome="reached"}`, "µs", 1e6},
	{"  one sync", "chatsessions_barrier_sync_duration_seconds", "", "µs", 1e6},
	{"  who waited for it", "chatsessions_barrier_group_size", "", "", 1},
	{"  one batch of the projector", "chatsessions_projector_batch_duration_seconds", "", "µs", 1e6},
	{"  events in it", "chatsessions_projector_batch_size", "", "", 1},
}

// patch starts sessions for the duration, each once, and adds the figures of it
// under names with a prefix. Profiles are named as profile says.
func (b *bench) patch(ctx context.Context, s *service, connections int, f figures, prefix, profile string) error {
	paths, err := b.startable(ctx, s, connections)
	if err != nil {
		return err
	}
	before, err := s.metrics(ctx)
	if err != nil {
		return err
	}
	profiled := func() error { return nil }
	if b.Profile != "" && profile != "" {
		profiled = s.profile(ctx, filepath.Join(b.Profile, profile), b.Duration)
	}
	patched, err := s.starts(paths, connections, b.Duration).run(ctx)
	if err == nil && len(patched.refused) > 0 {
		err = fmt.Errorf("refused: %v", patched.refused)
	}
	if err != nil {
		return fmt.Errorf("PATCH: %w", err)
	}
	if patched.count == len(paths) {
		progress("the %d sessions were started in %s, before the time was over", len(paths), patched.elapsed.Round(time.Millisecond))
	}
	after, err := s.metrics(ctx)
	if err != nil {
		return err
	}
	if err := profiled(); err != nil {
		return err
	}
	f.add(prefix+"PATCHes", patched.perSecond())
	f.add(prefix+"p50", micros(patched.percentile(0.5)))
	f.add(prefix+"p99", micros(patched.percentile(0.99)))
	count := float64(patched.count)
	f.add(prefix+"cpu", 1e6*after.since(before, "process_cpu_seconds_total")/count)
	f.add(prefix+"allocations", after.since(before, "go_memstats_mallocs_total")/count)
	for _, p := range parts {
		f.add(prefix+p.measured, p.scale*after.mean(before, p.metric, p.labels))
	}
	return nil
}

// startable creates more sessions than can be started in the time, and returns their
// paths: their number is what the creation of some tells, and as many again.
func (b *bench) startable(ctx context.Context, s *service, connections int) ([]string, error) {
	_, probe, err := s.create(ctx, 2000)
	if err != nil {
		return nil, fmt.Errorf("creating sessions: %w", err)
	}
	rate := min(probe.perSecond(), 2000*float64(connections))
	paths, _, err := s.create(ctx, int(2*rate*b.Duration.Seconds()))
	if err != nil {
		return nil, fmt.Errorf("creating sessions: %w", err)
	}
	return paths, nil
}

// durability measures the service beside itself without syncs.
func (b *bench) durability(ctx context.Context) error {
	const connections = 64
	f := figures{}
	for round := range b.Rounds {
		for _, side := range []struct {
			name, binary string
			env          []string
		}{
			{"unsafe ", b.unsafe, []string{"CHATSESSIONS_FAULT_SYNC=none"}},
			{"", b.unsafe, nil},
		} {
			s, err := startService(side.binary, b.dir("service"), withEnv(side.env...))
			if err != nil {
				return err
			}
			err = b.patch(ctx, s, connections, f, side.name, "")
			if stopped := s.stop(); err == nil {
				err = stopped
			}
			if err != nil {
				return err
			}
		}
		progress("durability, round %d of %d: %.0f PATCH/s, %.0f without syncs", round+1, b.Rounds, f["PATCHes"][round], f["unsafe PATCHes"][round])
	}
	b.rows = append(b.rows, f.ratio("PATCH ÷ PATCH with durability off", connections, "1/s", "PATCHes", "unsafe PATCHes", "≥ 0.8"))
	return nil
}

// cluster measures the service on three nats-servers and a Redis, beside raw
// publishes to a stream of the same configuration in the same cluster.
func (b *bench) cluster(ctx context.Context) error {
	const connections = 64
	c, err := startCluster(ctx, b.nats, b.dir("cluster"))
	if err != nil {
		return err
	}
	defer c.stop()
	s, err := startService(b.binary, b.dir("service"), withArgs("--nats-url", c.natsURL(), "--redis-url", c.redis.url))
	if err != nil {
		return err
	}
	f := figures{}
	for round := range b.Rounds {
		var baseline *result
		if baseline, err = c.raw.publish(connections, b.Payload, b.Duration); err != nil {
			err = fmt.Errorf("baseline: %w", err)
			break
		}
		f.add("publishes", baseline.perSecond())
		f.add("publish p50", micros(baseline.percentile(0.5)))
		if err = b.patch(ctx, s, connections, f, "", fmt.Sprintf("cluster-%d", round+1)); err != nil {
			break
		}
		progress("cluster, round %d of %d: %.0f PATCH/s, %.0f publishes/s", round+1, b.Rounds, f["PATCHes"][round], f["publishes"][round])
	}
	if stopped := s.stop(); err == nil {
		err = stopped
	}
	if err != nil {
		return err
	}
	b.rows = append(b.rows,
		f.ratio("three nodes: PATCH ÷ single publish", connections, "1/s", "PATCHes", "publishes", "≥ 0.6"),
		f.ratio("three nodes: PATCH p50 ÷ publish p50", connections, "µs", "p50", "publish p50", ""),
		f.single("three nodes: PATCH p99", connections, "µs", "p99"),
		f.single("three nodes: processor time per PATCH, service", connections, "µs", "cpu"),
	)
	for _, p := range parts {
		if len(f[p.measured]) > 0 && f.median(p.measured) > 0 {
			b.rows = append(b.rows, f.single(p.measured, connections, p.unit, p.measured))
		}
	}
	return nil
}

// size measures the service on a log of many sessions beside one of few.
func (b *bench) size(ctx context.Context) error {
	const connections, few = 64, 1000
	large, err := startService(b.binary, b.dir("large"))
	if err != nil {
		return err
	}
	defer func() { _ = large.stop() }()
	for made := 0; made < b.Sessions; {
		n := min(100_000, b.Sessions-made)
		_, created, err := large.create(ctx, n)
		if err != nil {
			return fmt.Errorf("creating sessions: %w", err)
		}
		made += n
		left := time.Duration(float64(b.Sessions-made) / created.perSecond() * float64(time.Second))
		progress("size: %d of %d sessions, %.0f a second, %s left", made, b.Sessions, created.perSecond(), left.Round(time.Second))
	}
	f := figures{}
	for round := range b.Rounds {
		small, err := startService(b.binary, b.dir("small"))
		if err != nil {
			return err
		}
		_, _, err = small.create(ctx, few)
		if err == nil {
			err = b.patch(ctx, small, connections, f, "few ", "")
		}
		if stopped := small.stop(); err == nil {
			err = stopped
		}
		if err == nil {
			err = b.patch(ctx, large, connections, f, "", fmt.Sprintf("size-%d", round+1))
		}
		if err != nil {
			return err
		}
		progress("size, round %d of %d: %.0f PATCH/s with %d sessions, %.0f with %d", round+1, b.Rounds, f["PATCHes"][round], b.Sessions, f["few PATCHes"][round], few)
	}
	b.rows = append(b.rows,
		f.ratio(fmt.Sprintf("PATCH/s, %d sessions ÷ %d", b.Sessions, few), connections, "1/s", "PATCHes", "few PATCHes", "≥ 0.9"),
		f.ratio(fmt.Sprintf("PATCH p99, %d sessions ÷ %d", b.Sessions, few), connections, "µs", "p99", "few p99", "≤ 1.2"),
	)
	return nil
}
