package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

// writes measures PATCHes beside a raw loop of publishes that syncs each message.
func (b *bench) writes(ctx context.Context) error {
	rates, p50s := map[int]string{256: "≥ 4.0", 64: "≥ 3.0"}, map[int]string{1: "≤ 1.5"}
	for _, n := range b.Connections {
		f := figures{}
		err := b.measure(fmt.Sprintf("writes, %d connections", n), f, func(round int) error {
			raw, err := startRawLog(b.dir("raw"))
			if err != nil {
				return err
			}
			err = b.publish(raw, n, f)
			raw.stop()
			if err != nil {
				return err
			}
			return b.serve(b.binary, func(s *service) error {
				return b.patch(ctx, s, n, f, "", fmt.Sprintf("writes-%d-%d", n, round+1))
			})
		}, patchRows("", n, rates[n], p50s[n])...)
		if err != nil {
			return err
		}
		b.addParts(f, n)
	}
	return nil
}

// patchRows describes PATCHes beside single publishes.
func patchRows(setup string, n int, rate, p50 string) []row {
	return []row{
		ratio(setup+"PATCH ÷ single publish, fsync on", n, "1/s", "PATCHes", "publishes", rate),
		ratio(setup+"PATCH p50 ÷ publish p50", n, "µs", "p50", "publish p50", p50),
		single(setup+"PATCH p99", n, "µs", "p99"),
		single(setup+"processor time per PATCH, service", n, "µs", "cpu"),
		single(setup+"allocations per PATCH, service", n, "", "allocations"),
	}
}

// addParts adds the rows of the parts of a PATCH.
func (b *bench) addParts(f figures, n int) {
	for _, p := range parts {
		if median(f[p.measured]) > 0 { // an external log has no barrier
			b.add(f, single(p.measured, n, p.unit, p.measured))
		}
	}
}

// parts are the parts of a PATCH that the service itself measures.
var parts = []struct {
	measured, metric, labels, unit string
	scale                          float64
}{
	{"  of a PATCH: at the log", "chatsessions_command_duration_seconds", "", "µs", 1e6},
	{"  of a PATCH: waiting for the read model", "chatsessions_read_model_wait_duration_seconds", `{outcome="reached"}`, "µs", 1e6},
	{"  one sync", "chatsessions_barrier_sync_duration_seconds", "", "µs", 1e6},
	{"  waiting for one sync", "chatsessions_barrier_group_size", "", "", 1},
	{"  one batch of the projector", "chatsessions_projector_batch_duration_seconds", "", "µs", 1e6},
	{"  events in one batch", "chatsessions_projector_batch_size", "", "", 1},
}

// publish measures the baseline of writes.
func (b *bench) publish(raw *rawLog, inFlight int, f figures) error {
	r, err := raw.publish(inFlight, b.Payload, b.Duration)
	if err != nil {
		return fmt.Errorf("baseline: %w", err)
	}
	f.add("publishes", r.perSecond())
	f.add("publish p50", micros(r.percentile(0.5)))
	return nil
}

// patch starts sessions, each once, and adds figures with a prefix. Without a profile's name, it makes none.
func (b *bench) patch(ctx context.Context, s *service, connections int, f figures, prefix, profile string) error {
	paths, err := b.startable(ctx, s, connections)
	if err != nil {
		return err
	}
	patched, err := b.measured(ctx, s, s.starts(paths, connections, b.Duration), f, prefix, profile)
	if err != nil {
		return fmt.Errorf("PATCH: %w", err)
	}
	if patched.count == len(paths) {
		progress("all %d sessions were started in %s, before the time was over", len(paths), patched.elapsed.Round(time.Millisecond))
	}
	f.add(prefix+"PATCHes", patched.perSecond())
	f.add(prefix+"p50", micros(patched.percentile(0.5)))
	f.add(prefix+"p99", micros(patched.percentile(0.99)))
	return nil
}

// measured runs a load, and adds the service's processor time and allocations per request.
func (b *bench) measured(ctx context.Context, s *service, l *load, f figures, prefix, profile string) (*result, error) {
	before, err := s.metrics(ctx)
	if err != nil {
		return nil, err
	}
	profiled := b.profile(ctx, s, profile)
	r, err := l.allowed(ctx)
	if err != nil {
		return nil, err
	}
	after, err := s.metrics(ctx)
	if err != nil {
		return nil, err
	}
	count := float64(r.count)
	f.add(prefix+"cpu", 1e6*after.since(before, "process_cpu_seconds_total")/count)
	f.add(prefix+"allocations", after.since(before, "go_memstats_mallocs_total")/count)
	for _, p := range parts {
		f.add(prefix+p.measured, p.scale*after.mean(before, p.metric, p.labels))
	}
	return r, profiled()
}

// startable creates more sessions than can be started in the duration: twice a probe's rate.
func (b *bench) startable(ctx context.Context, s *service, connections int) ([]string, error) {
	_, probe, err := s.create(ctx, 2000, 1)
	if err != nil {
		return nil, err
	}
	rate := min(probe.perSecond(), 2000*float64(connections))
	paths, _, err := s.create(ctx, int(2*rate*b.Duration.Seconds()), 1)
	return paths, err
}

// durability measures the service beside itself without syncs.
func (b *bench) durability(ctx context.Context) error {
	const connections = 64
	f := figures{}
	return b.measure("durability", f, func(int) error {
		for _, side := range []struct{ prefix, sync string }{{"unsynced ", "none"}, {"", ""}} {
			if err := os.Setenv("CHATSESSIONS_FAULT_SYNC", side.sync); err != nil { // "" syncs
				return err
			}
			if err := b.serve(b.unsynced, func(s *service) error { return b.patch(ctx, s, connections, f, side.prefix, "") }); err != nil {
				return err
			}
		}
		return nil
	}, ratio("PATCH ÷ PATCH with durability off", connections, "1/s", "PATCHes", "unsynced PATCHes", "≥ 0.8"))
}

// cluster measures a service on three nats-servers and a Redis beside raw publishes to them.
func (b *bench) cluster(ctx context.Context) error {
	const connections = 64
	natsURL, raw, err := b.natsCluster(ctx)
	if err != nil {
		return err
	}
	redisURL, err := b.redis(ctx)
	if err != nil {
		return err
	}
	s, err := b.service(b.binary, b.dir("service"), "--nats-url", natsURL, "--redis-url", redisURL)
	if err != nil {
		return err
	}
	f := figures{}
	err = b.measure("cluster", f, func(round int) error {
		if err := b.publish(raw, connections, f); err != nil {
			return err
		}
		return b.patch(ctx, s, connections, f, "", fmt.Sprintf("cluster-%d", round+1))
	}, patchRows("three nodes: ", connections, "≥ 0.6", "")...)
	if err != nil {
		return err
	}
	b.addParts(f, connections)
	return nil
}

// size measures the service on a log of many sessions beside one of few.
func (b *bench) size(ctx context.Context) error {
	const connections, few = 64, 1000
	large, err := b.service(b.binary, b.dir("large"))
	if err != nil {
		return err
	}
	progress("size: creating %d sessions", b.Sessions)
	if _, _, err := large.create(ctx, b.Sessions, 1); err != nil {
		return err
	}
	f := figures{}
	return b.measure("size", f, func(round int) error {
		err := b.serve(b.binary, func(small *service) error {
			if _, _, err := small.create(ctx, few, 1); err != nil {
				return err
			}
			return b.patch(ctx, small, connections, f, "few ", "")
		})
		if err != nil {
			return err
		}
		return b.patch(ctx, large, connections, f, "", fmt.Sprintf("size-%d", round+1))
	},
		ratio(fmt.Sprintf("PATCH/s, %d sessions ÷ %d", b.Sessions, few), connections, "1/s", "PATCHes", "few PATCHes", "≥ 0.9"),
		ratio(fmt.Sprintf("PATCH p99, %d sessions ÷ %d", b.Sessions, few), connections, "µs", "p99", "few p99", "≤ 1.2"))
}
